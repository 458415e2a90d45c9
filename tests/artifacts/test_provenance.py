"""Keys change with what can change the result and with nothing else; stale and foreign outputs are told apart."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from debugnet.artifacts.bundle import write_bundle
from debugnet.artifacts.canonical import canonical_json, jsonable
from debugnet.artifacts.lineage import check_inputs, locate_input
from debugnet.artifacts.provenance import (
    Provenance,
    artifact_key,
    check_output,
    collect,
    input_reference,
    read_provenance,
)
from debugnet.errors import InputError, OutputExists, StaleArtifact
from debugnet.recipes.fields import argument, option


@dataclasses.dataclass(frozen=True)
class Options:
    source: str = argument("input")
    l1_ratio: float = option(0.99, "mix")
    n_lambdas: int = option(100, "points")
    workers: int = option(2, "processes", in_key=False)


@dataclasses.dataclass(frozen=True)
class NewerOptions(Options):
    """What a later release makes of them: one option more."""

    shuffle: str | None = option("rows", "what to shuffle")


INPUTS = {"features": {"kind": "features", "path": "/a/features.h5", "digest": "d1"}}


def bundle(path: Path, kind: str, text: str, inputs: dict[str, Any] | None = None, options: Any = None) -> Path:
    with write_bundle(path, collect(kind, options or {}, inputs or {})) as folder:
        (folder / "content.txt").write_text(text)
    return path


def test_the_key_changes_with_every_keyed_option_and_input_digest() -> None:
    base = artifact_key("path", Options("f"), INPUTS)
    for changed in (Options("f", l1_ratio=0.9), Options("f", n_lambdas=99)):
        assert artifact_key("path", changed, INPUTS) != base
    assert artifact_key("head", Options("f"), INPUTS) != base
    assert artifact_key("path", Options("f"), {"features": {**INPUTS["features"], "digest": "d2"}}) != base


def test_the_key_does_not_change_with_workers_or_a_moved_input() -> None:
    moved = {"features": {**INPUTS["features"], "path": "/b/f.h5"}}
    assert artifact_key("path", Options("f"), INPUTS) == artifact_key("path", Options("g", workers=9), moved)


def test_canonical_json_has_one_spelling() -> None:
    a = {"b": np.float64(0.5), "a": (1, Path("x")), "n": float("nan"), "i": np.int64(3), "é": np.arange(2)}
    b = {"é": [0, 1], "n": None, "a": [1, "x"], "b": 0.5, "i": 3}
    assert canonical_json(a) == canonical_json(b) == '{"a":[1,"x"],"b":0.5,"i":3,"n":null,"é":[0,1]}'.encode()
    assert canonical_json({"name": "\udcff"}) == b'{"name":"\xff"}'
    with pytest.raises(TypeError, match="no JSON form"):
        jsonable(object())


def test_provenance_survives_json_and_separates_settings() -> None:
    made = collect("path", Options("f.h5"), INPUTS, seed=3, device="cpu", seconds=1.23456)
    assert made.options == {"l1_ratio": 0.99, "n_lambdas": 100}
    assert made.settings == {"source": "f.h5", "workers": 2}
    assert made.versions["numpy"] == np.__version__
    assert made.peak_memory > 1 << 20
    assert Provenance.from_json(json.loads(json.dumps(made.to_json()))) == made
    with pytest.raises(ValueError, match="lacks kind"):
        Provenance.from_json({})


def test_an_absent_output_is_made_and_a_current_one_is_used(tmp_path: Path) -> None:
    options, out = Options("f"), tmp_path / "out"
    assert not check_output(out, "analysis", options, INPUTS)
    bundle(out, "analysis", "x", INPUTS, options)
    assert check_output(out, "analysis", options, INPUTS)
    assert not check_output(out, "analysis", options, INPUTS, force=True)


def test_an_output_made_otherwise_is_refused_by_the_names_of_what_differs(tmp_path: Path) -> None:
    out = bundle(tmp_path / "out", "analysis", "x", INPUTS, Options("f"))
    with pytest.raises(OutputExists, match=r"l1_ratio 0.99 instead of 0.5; --force") as caught:
        check_output(out, "analysis", Options("f", l1_ratio=0.5, workers=7), INPUTS)
    assert caught.value.exit_code == 4
    other = {"features": {**INPUTS["features"], "digest": "d2"}}
    with pytest.raises(OutputExists, match=r"another features \(/a/features.h5\)"):
        check_output(out, "analysis", Options("f"), other)
    with pytest.raises(OutputExists, match="kind analysis instead of report"):
        check_output(out, "report", Options("f"), INPUTS)
    assert not check_output(out, "analysis", Options("f", l1_ratio=0.5), INPUTS, force=True)


def test_an_option_that_a_release_adds_leaves_what_is_there_current(tmp_path: Path) -> None:
    out = bundle(tmp_path / "out", "analysis", "x", INPUTS, Options("f"))
    assert check_output(out, "analysis", NewerOptions("f"), INPUTS)
    for changed in ("nothing", None):
        with pytest.raises(OutputExists, match="shuffle unset instead of "):
            check_output(out, "analysis", NewerOptions("f", shuffle=changed), INPUTS)
    assert artifact_key("analysis", NewerOptions("f"), INPUTS) == artifact_key("analysis", Options("f"), INPUTS)
    assert artifact_key("analysis", NewerOptions("f", shuffle="a"), INPUTS) != artifact_key(
        "analysis", Options("f"), INPUTS
    )


def test_an_option_that_a_release_removes_counts_where_it_was_set(tmp_path: Path) -> None:
    out = bundle(tmp_path / "out", "analysis", "x", INPUTS, NewerOptions("f"))
    assert check_output(out, "analysis", Options("f"), INPUTS)
    bundle(tmp_path / "set", "analysis", "x", INPUTS, NewerOptions("f", shuffle="columns"))
    with pytest.raises(OutputExists, match='shuffle "columns" instead of unset'):
        check_output(tmp_path / "set", "analysis", Options("f"), INPUTS)


def test_a_default_that_a_release_changes_is_a_change_unless_the_value_is_the_same(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Changed(Options):
        l1_ratio: float = option(0.5, "mix")

    out = bundle(tmp_path / "out", "analysis", "x", INPUTS, Options("f"))
    with pytest.raises(OutputExists, match="l1_ratio 0.99 instead of 0.5"):
        check_output(out, "analysis", Changed("f"), INPUTS)
    assert check_output(out, "analysis", Changed("f", l1_ratio=0.99), INPUTS)


def test_a_new_revision_of_the_options_is_a_change(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Revised(Options):
        revision: ClassVar[int] = 2

    out = bundle(tmp_path / "out", "analysis", "x", INPUTS, Options("f"))
    with pytest.raises(OutputExists, match="another revision of the command"):
        check_output(out, "analysis", Revised("f"), INPUTS)
    assert artifact_key("analysis", Revised("f"), INPUTS) != artifact_key("analysis", Options("f"), INPUTS)
    bundle(tmp_path / "new", "analysis", "x", INPUTS, Revised("f"))
    assert check_output(tmp_path / "new", "analysis", Revised("f"), INPUTS)


def test_artefacts_whose_provenance_has_no_defaults_yet_stay_current(tmp_path: Path) -> None:
    made = collect("analysis", Options("f"), INPUTS).to_json()
    del made["defaults"]
    old = Provenance.from_json({**made, "key": "of all options, as they were then"})
    with write_bundle(tmp_path / "out", old) as folder:
        (folder / "content.txt").write_text("x")
    assert check_output(tmp_path / "out", "analysis", NewerOptions("f"), INPUTS)
    with pytest.raises(OutputExists, match="l1_ratio 0.99 instead of 0.5"):
        check_output(tmp_path / "out", "analysis", NewerOptions("f", l1_ratio=0.5), INPUTS)
    with pytest.raises(OutputExists, match="l1_ratio 0.99"):  # it may not have stood at its default
        check_output(tmp_path / "out", "analysis", {"n_lambdas": 100}, INPUTS)


def test_what_is_not_ours_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.h5").write_text("years of work")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("meow")
    for name in ("thesis.h5", "photos"):
        with pytest.raises(OutputExists, match="choose another output"):
            check_output(tmp_path / name, "features", {}, {}, force=True)


def test_inputs_that_changed_are_named_with_the_command_that_renews(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/debugnet", "analyze", "a b"])
    parent = bundle(tmp_path / "parent", "head", "one")
    child = bundle(tmp_path / "child", "analysis", "x", {"head": input_reference(parent)})
    check_inputs(child)
    bundle(parent, "head", "one")  # made again, the same
    check_inputs(child)
    bundle(parent, "head", "two")
    with pytest.raises(StaleArtifact, match=r"debugnet analyze 'a b'") as caught:
        check_inputs(child)
    assert caught.value.exit_code == 3


def test_an_ancestor_is_found_even_when_the_run_folder_moved(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = bundle(run / "first", "features", "1")
    second = bundle(run / "second", "path", "2", {"features": input_reference(first)})
    third = bundle(run / "third", "head", "3", {"path": input_reference(second)})
    assert locate_input(third, "features") == first
    run.rename(tmp_path / "elsewhere")
    third = tmp_path / "elsewhere" / "third"
    assert locate_input(third, "features") == tmp_path / "elsewhere" / "first"
    with pytest.raises(InputError, match="has no explanations among its inputs"):
        locate_input(third, "explanations")
    bundle(tmp_path / "elsewhere" / "first", "features", "changed")
    with pytest.raises(StaleArtifact):
        locate_input(third, "features")


def test_an_input_that_is_gone_is_named(tmp_path: Path) -> None:
    first = bundle(tmp_path / "first", "features", "1")
    second = bundle(tmp_path / "second", "path", "2", {"features": input_reference(first)})
    first.rename(tmp_path / "x")
    check_inputs(second)
    with pytest.raises(InputError, match=r"not found: .*first: put it back"):
        locate_input(second, "features")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"provenance": {}}', '{"provenance": 3, "digest": "", "files": {}}']
)
def test_a_damaged_manifest_is_an_input_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match="manifest.json is damaged"):
        read_provenance(tmp_path)


def test_provenance_imports_nothing_heavy() -> None:
    code = "import sys, debugnet.artifacts.provenance as p; p.collect('x', {}, {}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "h5py"} & set(loaded)
