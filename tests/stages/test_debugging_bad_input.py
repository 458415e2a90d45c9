"""What the debugging commands say to bad input, through the command line: one line, the exit code, the rest done."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from debugnet.artifacts.bundle import read_json
from debugnet.artifacts.head_store import load_head
from debugnet.artifacts.provenance import collect
from debugnet.cli.app import main
from tests.counterfactual.test_commands import clouds, pictures  # noqa: F401  (fixtures)
from tests.explain.conftest import one_thread, picture_head, text_head, world  # noqa: F401  (fixtures)
from tests.stages.planted import write_store
from tests.stages.test_debugging_commands import chain  # noqa: F401  (fixture)


@pytest.fixture
def command(capfd, monkeypatch):
    """Run one command; gives (exit code, stderr)."""

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["debugnet"])
        capfd.readouterr()
        code = main([str(word) for word in words])
        return code, capfd.readouterr().err

    return run


def refuses(answer: tuple[int, str], code: int, *said: str) -> None:
    error = [line for line in answer[1].splitlines() if line.startswith("debugnet: error:")]
    assert answer[0] == code and len(error) == 1, answer
    assert all(words in error[0] for words in said), error


@pytest.mark.parametrize("name", ["diagnose", "pairs", "stability"])
def test_a_head_and_features_that_do_not_belong_together(chain, tmp_path, command, name):  # noqa: F811
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    y = np.arange(60) % 3
    other = write_store(
        tmp_path / "other.h5", {s: X for s in ("train", "val")}, {s: y for s in ("train", "val")},
        class_names=["a", "b", "c"],
    )  # fmt: skip
    answer = command(name, chain / "head", "--features", other, "-o", tmp_path / "out")
    refuses(answer, 3, "other.h5")
    assert not (tmp_path / "out").exists()


def test_sample_ids_that_do_not_exist(chain, tmp_path, command):  # noqa: F811
    diagnose = ("diagnose", chain / "head", "--split", "test/a", "-o")
    refuses(command(*diagnose, tmp_path / "none", "--sample", "test/99999"), 3, "'test/99999'", "test/a")
    assert not (tmp_path / "none").exists()
    from debugnet.stages.evaluation import Evaluation

    known = Evaluation(chain / "head", "test/a").ids[3]
    code, said = command(*diagnose, tmp_path / "some", "--sample", f"{known},test/99999")
    assert code == 0 and "'test/99999'" in said and f"{known}: '" in said
    (record,) = read_json(tmp_path / "some" / "diagnosis.json")["decompositions"]
    assert record["id"] == known


def test_masks_and_patterns_of_another_size(picture_head, pictures, tmp_path, command):  # noqa: F811
    for name, size in (("mask", 8), ("pattern", 32)):
        Image.fromarray(np.full((size, size), 255, dtype=np.uint8)).convert("RGB").save(tmp_path / f"{name}.png")
    answer = command(
        "counterfactual", "image", picture_head, "--mask", tmp_path / "mask.png", "--pattern",
        tmp_path / "pattern.png", "--target", "1", "--device", "cpu", "-o", tmp_path / "out",
    )  # fmt: skip
    refuses(answer, 3, "8x8")
    assert not (tmp_path / "out").exists()


def test_words_outside_the_vocabulary_and_of_another_script(text_head, clouds, tmp_path, command):  # noqa: F811
    words = tmp_path / "words.txt"
    words.write_text("superb\nхристианин\nxylophone\n", encoding="utf-8")
    common = (text_head, "--explanations", clouds)
    code, said = command("bias", *common, "--words", words, "-o", tmp_path / "bias")
    assert code == 0 and "христианин" in said
    report = read_json(tmp_path / "bias" / "bias.json")
    assert report["words_in_no_cloud"] == ["христианин", "xylophone"]
    assert any(row["matched"] == ["superb"] for row in report["features"])
    code, said = command(
        "counterfactual", "text", *common, "--insert", words, "--limit", "20", "--device", "cpu", "-o", tmp_path / "cf"
    )
    assert code == 0
    rows = {row["word"]: row for row in read_json(tmp_path / "cf" / "rates.json")["insertions"]}
    assert rows["xylophone"]["unknown_to_the_network"] and not rows["superb"]["unknown_to_the_network"]
    words.write_bytes(b"\xff\xfe\x00")
    refuses(command("bias", *common, "--words", words, "-o", tmp_path / "b2"), 3, "words.txt")


def test_a_class_never_predicted_and_no_misclassification(tmp_path, command):
    rng = np.random.default_rng(0)
    y = np.arange(90) % 2
    X = (rng.normal(size=(90, 5)) * 0.1 + 3 * np.eye(5)[y]).astype(np.float32)
    rare = np.where(np.arange(90) < 8, 2, y)  # in train, and not to be told from the others
    store = write_store(
        tmp_path / "features.h5", {"train": X, "val": X}, {"train": rare, "val": y}, class_names=["a", "b", "never"]
    )
    assert command("fit-path", store, "--n-lambdas", 5, "-o", tmp_path / "path.h5")[0] == 0
    assert command("select", tmp_path / "path.h5", "--index", 4, "-o", tmp_path / "head")[0] == 0
    code, said = command("diagnose", tmp_path / "head", "-o", tmp_path / "diagnosis")
    report = read_json(tmp_path / "diagnosis" / "diagnosis.json")
    assert code == 0 and "0 errors" in said and "nothing to explain" in said
    assert report["never_predicted"] == ["never"] and report["fixed_by_one_feature"]["mean"]["value"] is None
    assert report["suspects"] and not any(row["suspect"] for row in report["suspects"])
    assert (tmp_path / "diagnosis" / "errors.jsonl").read_text() == ""
    code, said = command("pairs", tmp_path / "head", "--permutations", 20, "-o", tmp_path / "pairs")
    assert code == 0 and json.loads((tmp_path / "pairs" / "pairs.json").read_text())["confused_pairs"] == []


def test_the_stability_of_another_head(chain, tmp_path, command):  # noqa: F811
    from debugnet.artifacts.head_store import save_head

    assert command("stability", chain / "head", "--bootstrap", 2, "-o", tmp_path / "stability")[0] == 0
    head = load_head(chain / "head")
    head.meta["note"] = "another"
    save_head(tmp_path / "head", head, collect("head", {"other": True}, {}))
    answer = command(
        "diagnose", tmp_path / "head", "--features", chain / "features.h5", "--stability", tmp_path / "stability"
    )
    refuses(answer, 3, "made for another head")
