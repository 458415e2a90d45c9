"""stdout is the path alone, everything else goes to stderr; commands chain through pipes."""

from __future__ import annotations

import json
import re

import pytest


def test_stdout_is_the_path_alone(shell):
    done = shell("debugnet probe x")
    assert (done.returncode, done.stdout) == (0, "probe.txt\n")
    assert done.stderr == "working\na table\n"


def test_a_second_run_reuses(shell):
    done = shell("debugnet probe x && debugnet probe x")
    assert done.returncode == 0
    assert done.stdout == "probe.txt\nprobe.txt\n"
    assert done.stderr.count("working") == 1 and "up to date: probe.txt" in done.stderr


def test_other_options_need_force(shell):
    done = shell("debugnet probe x && debugnet probe x --size 4")
    assert done.returncode == 4 and "--force replaces it" in done.stderr
    assert shell("debugnet probe x --size 4 --force && cat probe.txt").stdout.endswith("4 0.5 fast x\n")


def test_json_is_one_strict_document(shell):
    done = shell("debugnet probe x --json --names a,b --tag c,d --tag e --share 25% --no-bias --strict")
    document = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(name))
    assert document["path"] == "probe.txt" and document["reused"] is False and document["nan"] is None
    assert document["options"] == {
        "source": "x", "output": None, "behaviour": "write", "size": 3, "share": 0.25, "rate": None, "mode": "fast",
        "names": ["a", "b"], "tags": ["c,d", "e"], "strict": True, "bias": False,
    }  # fmt: skip


def test_quiet_and_json_logs(shell):
    assert shell("debugnet probe x --quiet").stderr == ""
    assert shell("debugnet probe x --do input --quiet").stderr != ""
    lines = shell("debugnet probe x --size 9 --force --log-json").stderr.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["working", "a table"]


def test_pipe(shell):
    done = shell("debugnet probe x -o a.txt | debugnet second - | debugnet probe - -o b.txt")
    assert done.stdout == "b.txt\n"
    assert shell("cat b.txt").stdout == "3 0.5 fast second.txt\n"


@pytest.mark.parametrize(
    "line, arrived",
    [
        ("debugnet probe x --do input | debugnet second -", "nothing arrived"),
        ("printf 'a\\nb\\n' | debugnet second -", "2 lines arrived"),
        ("debugnet second - <&-", "nothing arrived"),
    ],
)
def test_pipe_without_a_path(shell, line, arrived):
    done = shell(line)
    assert done.returncode == 3 and done.stdout == "" and arrived in done.stderr


def test_reader_gone_is_141(shell):
    done = shell("(sleep 0.2; debugnet list stages; echo $? >code) | true; cat code")
    assert done.stdout == "141\n"
    assert done.stderr == ""


def test_closed_and_full_stdout(shell, tmp_path):
    assert shell("debugnet probe x >&-").returncode == 0
    assert (tmp_path / "probe.txt").read_text() == "3 0.5 fast x\n"
    done = shell("debugnet probe x >/dev/full")
    assert done.returncode == 6 and "No space left" in done.stderr


def test_closed_stderr_does_not_stop_the_work(shell):
    done = shell("debugnet probe x 2>&-")
    assert (done.returncode, done.stdout) == (0, "probe.txt\n")


def test_two_words_make_one_command(shell):
    assert shell("debugnet study probe x").stdout == "probe.txt\n"
    assert re.search(r"probe +The same, as a command of two words\.", shell("debugnet study --help").stdout)
    assert "study" in shell("debugnet --help").stdout


def test_version_and_list(shell):
    assert shell("debugnet --version").stdout.startswith("debugnet ")
    assert json.loads(shell("debugnet list solvers --json").stdout)["solvers"].keys() >= {"saga"}
    assert "did you mean 'solvers'?" in shell("debugnet list solver").stderr


@pytest.mark.parametrize(
    "line, word, expected",
    [
        ("debugnet pro", 1, ["probe"]),
        ("debugnet study pr", 2, ["probe"]),
        ("debugnet probe --mo", 2, ["--mode"]),
        ("debugnet probe --mode ", 3, ["fast", "right"]),
        ("debugnet list so", 2, ["solvers"]),
        ("debugnet nonsense --x", 2, []),
    ],
)
def test_completion(shell, line, word, expected):
    done = shell(f"COMP_WORDS='{line}' COMP_CWORD={word} _DEBUGNET_COMPLETE=complete_bash $PROBES")
    assert (done.stdout.split(), done.stderr) == (expected, "")
