"""``debugnet explain`` end to end, on networks whose truth is known."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from debugnet.artifacts.bundle import verify_bundle
from debugnet.artifacts.explanation_bundle import load_explanations
from debugnet.errors import DeviceError, InputError, OutputExists, UsageError
from debugnet.recipes.explain import Explain, parse_features
from debugnet.stages import explain
from tests.explain.conftest import PATCH, TRUTH

PICTURES = {"num_samples": 150, "segmentation": "grid", "samples_per_feature": 2, "preset": "draft"}


def files_of(folder: Path) -> dict[str, bytes]:
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: content for name, content in found.items() if name != "manifest.json"}


@pytest.fixture(scope="module")
def explained(picture_head, tmp_path_factory):
    output = tmp_path_factory.mktemp("explained") / "explanations"
    options = Explain(picture_head, output=output, features=(0, 1, 2, 3, 4), device="cpu", **PICTURES)
    return load_explanations(explain.run(options).path)


def test_superpixels_of_a_planted_patch_get_the_weight(explained):
    a, b = PATCH
    patch = np.zeros((32, 32), dtype=bool)
    patch[a:b, a:b] = True
    random = np.random.RandomState(0)
    ours, chance = [], []
    for record in explained.records(0, "positive", "lime"):
        segments, effects = explained.segments(record), np.array(record["effects"])
        n = 3
        top = np.isin(segments, np.argsort(-effects)[:n])
        ours.append((top & patch).sum() / (top | patch).sum())
        for _ in range(50):
            other = np.isin(segments, random.choice(len(effects), n, replace=False))
            chance.append((other & patch).sum() / (other | patch).sum())
        assert record["stable"] and record["r2"] > 0.9 and record["random_as_strong"] == 0
        assert record["measured"] == pytest.approx(record["predicted"], rel=0.2)
    assert np.mean(ours) > 0.4 > 4 * np.mean(chance)


def test_what_lowers_a_feature_is_shown_as_lowering_it(explained):
    """Green in the patch lowers feature 0; the reference code showed the parts that raise it on both sides."""
    for record in explained.records(0, "negative", "lime"):
        effects, segments = np.array(record["effects"]), explained.segments(record)
        strongest = int(np.argmin(effects))
        assert effects[strongest] < 0
        inside = (segments == strongest)[PATCH[0] : PATCH[1], PATCH[0] : PATCH[1]]
        assert inside.any()
        assert record["predicted"] > 0


def test_noise_is_flagged_as_unstable(explained):
    records = [r for side in explained.sides(3) for r in explained.records(3, side, "lime")]
    assert records and not any(record["stable"] for record in records)
    assert all(record["flags"] for record in records)


def test_whatever_explains_an_untrained_network_is_flagged(untrained_head, explained, tmp_path):
    options = Explain(untrained_head, output=tmp_path / "e", features=(0, 1), device="cpu", **PICTURES)
    found = load_explanations(explain.run(options).path)
    records = [r for j in (0, 1) for side in found.sides(j) for r in found.records(j, side, "lime")]
    assert records and all(any("looks untrained" in flag for flag in record["flags"]) for record in records)
    assert not any(record["stable"] for record in records) and found.index["summary"]["untrained_matrices"]
    assert explained.index["summary"]["untrained_matrices"] == []


def test_a_dead_feature_is_failed_and_never_drawn(explained):
    assert explained.records(2, "positive", "lime") == []
    (found,) = explained.records(2, "positive", "visualization")
    assert "dead" in found["failed"] and explained.pictures(2, "positive", "visualization") == []


def test_a_sample_the_feature_does_not_react_to_is_drawn_and_says_so(explained):
    records = explained.records(4, "positive", "lime")
    assert records and all(record["r2"] is None and not record["stable"] for record in records)
    assert all(any("does not react" in flag for flag in record["flags"]) for record in records)
    pictures = explained.pictures(4, "positive", "lime")
    assert len(pictures) == len(records) and all(path.stat().st_size > 1000 for path in pictures)


def test_visualization_drives_what_it_should(explained):
    (found,) = explained.records(0, "positive", "visualization")
    (low,) = explained.records(0, "negative", "visualization")
    assert found["percentile"] == low["percentile"] == 100 and found["failed"] is None
    (path,) = explained.pictures(0, "positive", "visualization")
    image = np.array(Image.open(path)).astype(float)
    a, b = PATCH
    assert image.shape == (32, 32, 3)
    contrast = image[:, :, 0] - image[:, :, 1]
    assert contrast[a:b, a:b].mean() > 100 and contrast[a:b, a:b].mean() > 2 * np.abs(contrast).mean()


def test_prototypes_are_the_extremes_and_are_drawn(explained):
    high = [record["activation"] for record in explained.records(1, "positive", "prototypes")]
    low = [record["activation"] for record in explained.records(1, "negative", "prototypes")]
    assert high == sorted(high, reverse=True) and low == sorted(low) and high[-1] > low[0]
    assert {record["classes"] for record in explained.records(0, "positive", "prototypes")} == {"1"}
    for path in explained.pictures(1, "positive", "prototypes"):
        assert np.array(Image.open(path)).std() > 10


def test_the_bundle_is_whole_and_names_what_uses_each_feature(explained):
    verify_bundle(explained.path)
    assert explained.features == [0, 1, 2, 3, 4]
    assert set(explained.index["features"]["0"]["classes"]) == {"0", "1"}
    with pytest.raises(InputError, match="does not explain feature 9"):
        explained.records(9, "positive", "lime")


def test_again_is_reused_and_other_options_are_refused(explained, picture_head):
    same = Explain(picture_head, output=explained.path, features=(0, 1, 2, 3, 4), device="cpu", **PICTURES)
    assert explain.run(same).reused
    with pytest.raises(OutputExists, match="features"):
        explain.run(Explain(picture_head, output=explained.path, features=(0,), device="cpu", **PICTURES))


def test_a_feature_added_later_costs_no_perturbation(picture_head, tmp_path, monkeypatch):
    from debugnet.explain import neighbourhoods

    common = PICTURES | {"samples_per_feature": 40, "methods": ("lime",), "output": tmp_path / "e", "device": "cpu"}
    explain.run(Explain(picture_head, features=(1,), **common))
    before = {p.name: p.read_bytes() for p in (tmp_path / "e" / "arrays").iterdir()}

    def never(*args, **kwargs):
        raise AssertionError("an image was perturbed again")

    monkeypatch.setattr(neighbourhoods, "explain_image", never)
    plan = explain.run(Explain(picture_head, features=(0, 1), plan=True, **common))
    assert plan.path is None and plan.summary["samples_there"] == plan.summary["samples"] > 0
    explain.run(Explain(picture_head, features=(0, 1), **common), force=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "e" / "arrays").iterdir()} == before
    assert load_explanations(tmp_path / "e").records(0, "positive", "lime")


def run_and_die(options: Explain, after: int) -> None:
    """Run in a child that is killed by SIGKILL once ``after`` records are on disk."""
    child = os.fork()
    if child == 0:
        from debugnet.artifacts.bundle import BundleWriter

        add, done = BundleWriter.add, []

        def add_and_die(self, *args, **kwargs):
            add(self, *args, **kwargs)
            done.append(1)
            if len(done) == after:
                os.kill(os.getpid(), signal.SIGKILL)

        BundleWriter.add = add_and_die
        try:
            explain.run(options)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("after", [1, 5, 9])
def test_killed_and_resumed_gives_the_same_bytes(picture_head, tmp_path, after):
    options = PICTURES | {"features": (0, 1), "device": "cpu", "methods": ("prototypes", "lime")}
    whole = explain.run(Explain(picture_head, output=tmp_path / "whole", **options)).path
    partial = Explain(picture_head, output=tmp_path / "partial", **options)
    run_and_die(partial, after)
    assert not (tmp_path / "partial").exists() and (tmp_path / "partial.partial").exists()
    assert files_of(explain.run(partial).path) == files_of(whole)


@pytest.fixture(scope="module")
def words(text_head, tmp_path_factory):
    output = tmp_path_factory.mktemp("words") / "explanations"
    return load_explanations(explain.run(Explain(text_head, output=output, num_samples=150, device="cpu")).path)


def test_word_scores_follow_the_truth_and_its_signs(words):
    table = {row["word"]: row for row in words.word_table(0)}
    known = [word for word, effect in TRUTH.items() if effect and word in table]
    assert len(known) >= 8
    correlation = stats.spearmanr([TRUTH[w] for w in known], [table[w]["mean"] for w in known])[0]
    assert correlation > 0.95
    up, down = words.words(0, "positive"), words.words(0, "negative")
    assert up[0] in ("superb", "good") and down[0] in ("awful", "bad") and not set(up) & set(down)
    for word in known:
        assert table[word]["low"] <= table[word]["mean"] <= table[word]["high"] and table[word]["n"] >= 3
    for word in ("film", "the", "actor"):
        assert abs(table[word]["mean"]) < 0.1 * table["superb"]["mean"]


def test_clouds_and_tables_are_written(words):
    for side in words.sides(0):
        suffixes = {path.suffix for path in words.pictures(0, side, "words")}
        assert suffixes == {".png", ".svg"} and all(p.stat().st_size for p in words.pictures(0, side, "words"))
    assert (words.path / "words" / "f00000.csv").read_text(encoding="utf-8").startswith("word,mean,shrunk,n,low,high\n")


def test_texts_without_words_are_counted_and_listed(words):
    lines = [json.loads(line) for line in (words.path / "skipped.jsonl").read_text().splitlines()]
    assert words.index["summary"]["skipped"] == len(lines) == 1
    assert "no words" in lines[0]["reason"]


def test_a_text_over_the_limit_is_explained_by_what_the_network_sees(words):
    assert words.index["summary"]["truncated_texts"] >= 1


def test_noise_in_texts_is_flagged_and_signal_is_not(words):
    """Of a text of three words, whose eight subsets a line may fit by chance, nobody can tell; most are longer."""

    def stable(feature: int) -> float:
        found = [r["stable"] for side in words.sides(feature) for r in words.records(feature, side, "lime")]
        return float(np.mean(found))

    assert stable(1) < 0.5 < 0.8 < stable(0)


def test_killed_text_run_resumes_to_the_same_bytes(text_head, tmp_path):
    options = {"num_samples": 60, "limit": 20, "samples_per_feature": 2, "device": "cpu"}
    whole = explain.run(Explain(text_head, output=tmp_path / "whole", **options)).path
    partial = Explain(text_head, output=tmp_path / "partial", **options)
    run_and_die(partial, 5)
    assert files_of(explain.run(partial).path) == files_of(whole)


def test_texts_near_which_the_network_gives_nan_are_counted_and_listed(text_head, tmp_path, monkeypatch):
    monkeypatch.setenv("PLANTED_TROUBLE", "nan")
    options = Explain(text_head, output=tmp_path / "e", methods=("cloud",), num_samples=40, limit=40, device="cpu")
    found = load_explanations(explain.run(options).path)
    reasons = [line["reason"] for line in found.index["skipped"]]
    assert sum("not finite" in reason for reason in reasons) > 2 and len(reasons) < 30
    assert "good" in found.words(0, "positive") and "superb" not in found.words(0, "positive")


def test_out_of_memory_with_one_text_is_one_clear_line(text_head, tmp_path, monkeypatch):
    monkeypatch.setenv("PLANTED_TROUBLE", "memory")
    with pytest.raises(DeviceError, match="smaller network or input, or --device cpu"):
        explain.run(Explain(text_head, output=tmp_path / "e", num_samples=40, limit=6, device="cpu"))
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("text", "features"), [("12,907", (12, 907)), (" 3 , 5-7 ", (3, 5, 6, 7)), ("all", "all"), ("4-4", (4,))]
)
def test_features_are_read_as_numbers_ranges_or_all(text, features):
    assert parse_features(text) == features


@pytest.mark.parametrize("text", ["", ",", "a", "-3", "5-2", "1.5", "1-2-3", "all,3"])
def test_what_is_no_list_of_features_is_refused(text):
    with pytest.raises(ValueError, match="write 12,907 or 0-99 or all"):
        parse_features(text)


def test_all_features_are_those_of_the_layer_whatever_it_uses(text_head, tmp_path):
    options = Explain(text_head, output=tmp_path / "e", features="all", methods=("prototypes",), device="cpu")
    assert load_explanations(explain.run(options).path).features == [0, 1]


def test_plan_writes_nothing(text_head, tmp_path):
    result = explain.run(Explain(text_head, output=tmp_path / "e", plan=True, device="cpu"))
    assert result.summary["forward_passes"] > 0 and result.summary["seconds"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": (99,)}, UsageError, "features 0 to 4"),
        ({"for_class": ("cat",)}, UsageError, "the classes are"),
        ({"features": (0,), "top": 2}, UsageError, "leave out"),
        ({"methods": ("cloud",)}, UsageError, "not for image data"),
        ({"num_samples": 1}, UsageError, "at least 10"),
        ({"font": Path("nowhere.ttf")}, InputError, "cannot read the font nowhere.ttf"),
        ({"split": "dev"}, InputError, "no split 'dev'"),
        ({"output": None, "head": "features.h5"}, InputError, "a head is needed"),
    ],
)
def test_bad_input_gets_one_clear_line(picture_head, tmp_path, change, error, message):
    change = {"output": tmp_path / "e"} | change
    head = picture_head.parent / change.pop("head") if "head" in change else picture_head
    with pytest.raises(error, match=message) as caught:
        explain.run(Explain(head, device="cpu", **change))
    assert "\n" not in str(caught.value)
