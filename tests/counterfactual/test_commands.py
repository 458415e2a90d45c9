"""counterfactual text | image and bias, end to end on networks whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from debugnet.artifacts.bundle import read_json
from debugnet.artifacts.explanation_bundle import load_explanations
from debugnet.errors import InputError, UsageError
from debugnet.recipes.bias import Bias
from debugnet.recipes.counterfactual_image import CounterfactualImage
from debugnet.recipes.counterfactual_text import CounterfactualText
from debugnet.recipes.explain import Explain
from debugnet.stages import bias, counterfactual_image, counterfactual_text, explain
from tests.explain.conftest import PATCH, TRUTH, one_thread, picture_head, text_head, world  # noqa: F401  (fixtures)


@pytest.fixture(scope="module")
def clouds(text_head, tmp_path_factory) -> Path:  # noqa: F811
    output = tmp_path_factory.mktemp("clouds") / "explanations"
    options = Explain(
        text_head, output=output, features=(0, 1), methods=("words",), num_samples=100, min_count=3, device="cpu"
    )
    return explain.run(options).path


@pytest.fixture(scope="module")
def pictures(picture_head, tmp_path_factory) -> Path:  # noqa: F811
    output = tmp_path_factory.mktemp("pictures") / "explanations"
    options = Explain(
        picture_head, output=output, features=(0,), methods=("prototypes", "lime"), num_samples=150,
        segmentation="grid", samples_per_feature=2, device="cpu", sides="positive",
    )  # fmt: skip
    return explain.run(options).path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_text_flips_are_what_the_network_says(text_head, clouds, tmp_path):  # noqa: F811
    words = tmp_path / "words.txt"
    words.write_text("superb\nawful\nfilm\nxylophone\n")
    options = CounterfactualText(
        text_head, output=tmp_path / "c", explanations=clouds, search=True, insert=words, device="cpu"
    )
    report = counterfactual_text.run(options).summary

    def decision(text: str) -> str:
        known = {w.strip(".!") for w in text.split()}
        return "1" if sum(TRUTH.get(w, 0.0) for w in known) > 0 else "0"

    rows = [row for row in lines(tmp_path / "c" / "rows.jsonl") if row["found"]]
    clear = [r for r in rows if r["after"].isascii() and abs(np.diff(r["logits_after"])[0]) > 0.5]
    assert len(clear) > 15 and all(r["flipped"] == (decision(r["after"]) != r["predicted"]) for r in clear)
    for row in rows:
        edit = row["edit"]
        assert edit["before"] in row["before"].lower() and edit["after"] in row["after"].lower()
        assert TRUTH.get(edit["before"], 0) * TRUTH.get(edit["after"], 0) <= 0 or edit["feature"] == 1
    rates = report["layers"]["sparse"]["all"]
    assert rates["flip"]["value"] > rates["control"]["value"] + 0.1
    assert rates["flip"]["count"] == sum(r["flipped"] for r in rows)
    found = lines(tmp_path / "c" / "search.jsonl")
    assert np.mean([r["flipped"] for r in found]) > 0.9
    assert all(1 <= len(r["edits"]) <= 3 for r in found if r["flipped"])
    insertions = {row["word"]: row for row in report["insertions"]}
    assert insertions["xylophone"]["unknown_to_the_network"] and not insertions["film"]["unknown_to_the_network"]
    assert insertions["superb"]["sparse"]["value"] > insertions["film"]["sparse"]["value"]
    assert {flip["to"] for flip in insertions["awful"]["sparse"]["to"]} <= {"0"}
    assert (tmp_path / "c" / "flip_rates.png").exists()
    assert counterfactual_text.run(options).reused


def test_bias_finds_listed_words_and_only_those(text_head, clouds, tmp_path):  # noqa: F811
    words = tmp_path / "words.txt"
    words.write_text("SUPERB\nawful\nzebra\nхристианин\n", encoding="utf-8")
    bias.run(Bias(text_head, output=tmp_path / "b", words=words, explanations=clouds))
    report = read_json(tmp_path / "b" / "bias.json")
    assert report["words_in_no_cloud"] == ["zebra", "христианин"]
    matched = {(row["feature"], row["side"]): row["matched"] for row in report["features"] if row["feature"] == 0}
    assert matched == {(0, "positive"): ["superb"], (0, "negative"): ["awful"]}
    words.write_text("\n")
    with pytest.raises(InputError, match="holds no word"):
        bias.run(Bias(text_head, output=tmp_path / "b2", words=words, explanations=clouds))
    with pytest.raises(UsageError, match="--words"):
        bias.run(Bias(text_head, explanations=clouds))


def test_a_planted_patch_flips_to_its_class_and_noise_does_not(picture_head, pictures, tmp_path):  # noqa: F811
    options = CounterfactualImage(
        picture_head, output=tmp_path / "c", explanations=pictures, feature=0, superpixels=4, device="cpu"
    )
    report = counterfactual_image.run(options).summary
    assert report["target"] == "1" and report["flip"]["value"] > 0.9
    rows = lines(tmp_path / "c" / "rows.jsonl")
    assert all(row["before"] == "0" for row in rows) and len(rows) == report["flip"]["n"]
    a, b = PATCH
    grey = np.full((32, 32, 3), 120, dtype=np.uint8)
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[a:b, a:b] = 255
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    from dataclasses import replace

    harmless = replace(
        options, output=tmp_path / "g", feature=None, pattern=tmp_path / "grey.png", mask=tmp_path / "mask.png",
        target="1",
    )  # fmt: skip
    assert counterfactual_image.run(harmless).summary["flip"]["value"] < 0.9 * report["flip"]["value"]
    small = tmp_path / "small.png"
    Image.fromarray(grey[:8, :8]).save(small)
    with pytest.raises(InputError, match="8x8 pixels"):
        counterfactual_image.run(replace(harmless, output=tmp_path / "s", pattern=small))
    resized = replace(harmless, output=tmp_path / "r", pattern=small, resize_mask=True)
    assert counterfactual_image.run(resized).summary["flip"]["n"] == report["flip"]["n"]


def test_the_pattern_is_cut_from_the_explained_image(picture_head, pictures, tmp_path):  # noqa: F811
    options = CounterfactualImage(
        picture_head, output=tmp_path / "c", explanations=pictures, feature=0, superpixels=4, split="test", device="cpu"
    )
    report = counterfactual_image.run(options).summary
    record = load_explanations(pictures).records(0, "positive", "lime")[0]
    assert record["sample_id"] in report["pattern"]
    image = np.load(picture_head.parent / "data.npz")["x_train"][int(record["sample_id"].rpartition(":")[2])]
    pattern = np.asarray(Image.open(tmp_path / "c" / "pattern.png"))
    inside = pattern[..., 3] == 255
    assert inside.any() and not inside.all()
    np.testing.assert_array_equal(pattern[inside, :3], image[inside])
    again = CounterfactualImage(
        picture_head, output=tmp_path / "d", pattern=tmp_path / "c" / "pattern.png", target="1", split="test",
        device="cpu",
    )  # fmt: skip
    assert counterfactual_image.run(again).summary["flip"] == report["flip"]


@pytest.mark.parametrize(
    "changes, error, says",
    [
        ({"feature": None}, UsageError, "either --feature"),
        ({"feature": 77}, UsageError, "not used by this head"),
        ({"target": "zebra"}, UsageError, "no class"),
        ({"prototype": 9}, InputError, "--prototype 9"),
        ({"split": "nowhere"}, (InputError, UsageError), "nowhere"),
    ],
)
def test_bad_image_requests_get_one_line(picture_head, pictures, tmp_path, changes, error, says):  # noqa: F811
    options = {"feature": 0, "explanations": pictures, "output": tmp_path / "c", "device": "cpu"} | changes
    with pytest.raises(error, match=says):
        counterfactual_image.run(CounterfactualImage(picture_head, **options))


def test_the_modality_must_fit(text_head, picture_head, clouds, pictures, tmp_path):  # noqa: F811
    with pytest.raises(UsageError, match="counterfactual text"):
        counterfactual_image.run(
            CounterfactualImage(text_head, explanations=clouds, feature=0, output=tmp_path / "a", device="cpu")
        )
    with pytest.raises(InputError, match="no word clouds"):
        counterfactual_text.run(
            CounterfactualText(picture_head, explanations=pictures, output=tmp_path / "b", device="cpu")
        )
    with pytest.raises(UsageError, match="is no class"):
        counterfactual_text.run(
            CounterfactualText(
                text_head, explanations=clouds, output=tmp_path / "d", search=True, to="zebra", device="cpu"
            )
        )
