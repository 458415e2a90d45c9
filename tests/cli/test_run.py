"""``debugnet run``: into one folder, resumed where something changed, never over another recipe's run."""

from __future__ import annotations

import json

import pytest

RECIPE = "probe:\n  source: a.txt\n  size: 3\nsecond:\n  factor: 2\n"


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    return "r.yaml"


def stages(done):
    assert done.returncode == 0, done.stderr
    return {s["stage"]: s["reused"] for s in json.loads(done.stdout)["stages"]}


def test_run_makes_a_folder_and_prints_its_path(shell, recipe, tmp_path):
    done = shell("debugnet run r.yaml")
    assert (done.returncode, done.stdout) == (0, "runs/r\n")
    assert "[1/2] probe" in done.stderr and "[2/2] second" in done.stderr and "seconds" in done.stderr
    names = {p.name for p in (tmp_path / "runs/r").iterdir()}
    assert names == {"probe.txt", "second.txt", "run.json"}


def test_run_goes_on_where_something_changed(shell, recipe):
    assert stages(shell("debugnet run r.yaml -o x --json")) == {"probe": False, "second": False}
    assert stages(shell("debugnet run r.yaml -o x --json")) == {"probe": True, "second": True}
    changed_last = shell("debugnet run r.yaml -o x --json --set second.factor=3")
    assert stages(changed_last) == {"probe": True, "second": False}
    assert "made with another factor: making it again" in changed_last.stderr
    assert stages(shell("debugnet run r.yaml -o x --json --set probe.size=10")) == {"probe": False, "second": False}
    assert stages(shell("debugnet run r.yaml -o x --json --force")) == {"probe": False, "second": False}


def test_run_stops_at_a_failing_stage_and_keeps_what_it_made(shell, recipe, tmp_path):
    (tmp_path / "r.yaml").write_text("probe:\n  source: a\nsecond:\n")
    (tmp_path / "x").mkdir()
    done = shell("debugnet run r.yaml -o x --set second.probe=missing")
    assert done.returncode == 3 and "No such file" in done.stderr and done.stdout == ""
    assert (tmp_path / "x/probe.txt").exists()
    assert stages(shell("debugnet run r.yaml -o x --json")) == {"probe": True, "second": False}


def test_another_recipe_does_not_take_the_folder(shell, recipe, tmp_path):
    assert shell("debugnet run r.yaml -o x").returncode == 0
    (tmp_path / "other.yaml").write_text(RECIPE.replace("3", "4"))
    done = shell("debugnet run other.yaml -o x")
    assert done.returncode == 4 and "holds a run of r.yaml" in done.stderr
    assert (tmp_path / "x/probe.txt").read_text().startswith("3 ")
    assert stages(shell("debugnet run other.yaml -o x --force --json")) == {"probe": False, "second": False}


def test_an_artefact_outside_the_folder_is_not_replaced(shell, recipe, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = shell("debugnet run r.yaml -o x --set probe.output=mine.txt")
    assert done.returncode == 4 and (tmp_path / "mine.txt").read_text() == "mine"


def test_two_runs_in_one_folder(shell, recipe, tmp_path):
    (tmp_path / "r.yaml").write_text("probe:\n  source: a\n  do: loop\n")
    done = shell(
        "$PROBES run r.yaml -o x 2>log & until grep -q looping log; do sleep 0.05; done; "
        "debugnet run r.yaml -o x; echo $?; kill $!; wait"
    )
    assert done.stdout == "75\n" and "another process" in done.stderr


def test_check_until_and_mistakes(shell, recipe, tmp_path):
    done = shell("debugnet run r.yaml -o x --check")
    assert done.returncode == 0 and "second  -> x/second.txt" in done.stdout and not (tmp_path / "x").exists()
    assert stages(shell("debugnet run r.yaml -o x --until probe --json")) == {"probe": False}
    assert "did you mean 'second'?" in shell("debugnet run r.yaml --until secon").stderr
    done = shell("debugnet run r.yaml --set probe.siz=3")
    assert done.returncode == 2 and "did you mean 'size'?" in done.stderr


def test_interrupted_run_shows_how_to_go_on(started, tmp_path):
    (tmp_path / "r.yaml").write_text("probe:\n  source: a\n  do: loop\n")
    process = started("run", "r.yaml", "-o", "x", until="looping")
    process.terminate()
    assert "to go on: debugnet run r.yaml -o x" in process.communicate(timeout=20)[1]
    assert process.returncode == 143
