"""Hugging Face models: the right feature for each head, and every checkpoint that must be refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from debugnet.backbones import BackboneSpec, load_backbone
from debugnet.errors import InputError, UsageError

TEXTS = ["the film was very good", "dull", "i saw it and liked it", "not bad not good and very very long"]


def load(folder, **options):
    return load_backbone(BackboneSpec(str(folder), **options), "cpu")


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "gpt2"])
def test_the_feature_gives_the_logits(language_model, kind):
    backbone = load(language_model(kind))
    with torch.no_grad():
        features, logits = backbone.features(backbone.encode(TEXTS), logits=True)
        own = backbone.network(**backbone.tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    assert features.shape == (4, 16) and logits.shape == (4, 3)
    torch.testing.assert_close(logits, own, atol=1e-5, rtol=0)
    weight, bias = backbone.head
    np.testing.assert_allclose(features.double().numpy() @ weight.T + bias, logits.numpy(), atol=1e-5)


def test_each_head_has_its_own_feature(language_model):
    with torch.no_grad():
        bert = load(language_model("bert"))
        batch = bert.encode(TEXTS)
        torch.testing.assert_close(bert.features(batch), bert.network.bert(**batch).pooler_output)
        roberta = load(language_model("roberta"))
        batch = roberta.encode(TEXTS)
        first = roberta.network.roberta(**batch).last_hidden_state[:, 0]
        torch.testing.assert_close(roberta.features(batch), torch.tanh(roberta.network.classifier.dense(first)))
        assert roberta.layer == "classifier.out_proj"
        distilbert = load(language_model("distilbert"))
        assert (distilbert.features(distilbert.encode(TEXTS)) >= 0).all()  # behind a ReLU


def test_encoders_are_pooled_and_have_no_head(language_model):
    folder = language_model("bert", classifier=False)
    mean, cls, pooler = (load(folder, pooling=p) for p in ("mean", "cls", "pooler"))
    batch = mean.encode(TEXTS)
    with torch.no_grad():
        output = mean.network(**batch)
        for i, mask in enumerate(batch["attention_mask"].bool()):
            torch.testing.assert_close(mean.features(batch)[i], output.last_hidden_state[i, mask].mean(0))
        torch.testing.assert_close(cls.features(batch), output.last_hidden_state[:, 0])
        torch.testing.assert_close(pooler.features(batch), output.pooler_output)
    assert mean.head is None and mean.class_names is None and mean.feature_dim == 16


def test_a_classifier_can_be_read_at_any_layer(language_model):
    backbone = load(language_model("bert"), layer="bert.encoder.layer.0", pooling="mean")
    assert backbone.features(backbone.encode(TEXTS)).shape == (4, 16) and backbone.head is None
    with pytest.raises(UsageError, match="--layer bert.nope: the network has no such module"):
        load(language_model("bert"), layer="bert.nope")


def test_padding_changes_nothing(language_model):
    for kind in ("bert", "gpt2"):
        backbone = load(language_model(kind))
        with torch.no_grad():
            together = backbone.features(backbone.encode(TEXTS))
            alone = torch.cat([backbone.features(backbone.encode([text])) for text in TEXTS])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_long_texts_are_cut_at_the_limit_and_counted(language_model, kind):
    backbone = load(language_model(kind))
    assert backbone.max_length == 20  # roberta: 22 positions, of which the first two are never used
    rows, truncated = backbone.tokenize(["film " * 18, "film " * 19, "film"])
    assert [len(row["input_ids"]) for row in rows] == [20, 20, 3] and truncated.tolist() == [False, True, False]
    assert torch.isfinite(backbone.features(backbone.encode(["film " * 500]))).all()
    shorter = load(language_model(kind), max_length=6)
    assert shorter.encode(["film " * 9])["input_ids"].shape == (1, 6)
    with pytest.raises(UsageError, match="--max-length 21: .* reads at most 20 tokens"):
        load(language_model(kind), max_length=21)


def test_encode_is_the_tokenizers_own_padding(language_model):
    backbone = load(language_model("bert"))
    for side in ("right", "left"):
        backbone.tokenizer.padding_side = side
        expected = backbone.tokenizer(TEXTS, padding=True, return_tensors="pt")
        found = backbone.encode(TEXTS)
        assert found.keys() == set(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_head_that_would_be_random_is_refused(language_model):
    with pytest.raises(InputError, match="its classification head is missing and would be random .*--pool cls"):
        load(language_model("bert", classifier=False))


def test_a_pooler_that_would_be_random_is_refused(language_model):
    with pytest.raises(InputError, match="would be random .pooler"):
        load(language_model("roberta"), pooling="pooler")
    assert load(language_model("roberta"), pooling="cls").feature_dim == 16


def broken(folder, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    change(copy)
    return copy


def _smaller_vocabulary(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"] = {k: v for k, v in content["model"]["vocab"].items() if v < 5}
    (folder / "tokenizer.json").write_text(json.dumps(content))


def _cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])


def _more_labels(folder):
    config = json.loads((folder / "config.json").read_text())
    labels = {str(i): f"c{i}" for i in range(5)}
    config |= {"id2label": labels, "label2id": {v: int(k) for k, v in labels.items()}}
    (folder / "config.json").write_text(json.dumps(config))


BROKEN = {
    "vocabulary": (_smaller_vocabulary, "the tokenizer knows 5 tokens, the network"),
    "truncated": (_cut_weights, "truncated or damaged|not loadable"),
    "web page": (lambda f: (f / "model.safetensors").write_text("<html>"), "a web page, not weights"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "not loadable as a Hugging Face model"),
    "no config": (lambda f: (f / "config.json").unlink(), "neither a Hugging Face model"),
    "no type": (lambda f: (f / "config.json").write_text("{}"), "not loadable as a Hugging Face model"),
    "labels": (_more_labels, "not loadable|would be random"),
    "no tokenizer": (
        lambda f: [(f / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
        "the tokenizer knows|not loadable",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_get_one_line(language_model, tmp_path, name):
    change, message = BROKEN[name]
    with pytest.raises(InputError, match=message) as caught:
        load(broken(language_model("bert"), tmp_path, change))
    assert "\n" not in str(caught.value)


def test_names_that_are_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(InputError, match="--backbone some-org/some-net: .* add --online to download it"):
        load("some-org/some-net", pooling="cls")
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        load("resnet5O")
    with pytest.raises(InputError, match=r"--backbone \./nothing: no such folder"):
        load("./nothing")
    (tmp_path / "w.pt").write_bytes(b"x")
    with pytest.raises(InputError, match="is a file: give the architecture"):
        load(tmp_path / "w.pt")


def test_loading_leaves_the_library_and_the_random_stream_as_they_were(language_model):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load(language_model("bert"))
    assert torch.equal(torch.rand(3), expected)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_class_names_come_from_the_configuration(language_model, tmp_path):
    assert load(language_model("bert")).class_names is None  # LABEL_0 … is no name

    def name_them(folder):
        config = json.loads((folder / "config.json").read_text())
        config |= {"id2label": {"0": "bad", "1": "fair", "2": "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
        (folder / "config.json").write_text(json.dumps(config))

    assert load(broken(language_model("bert"), tmp_path, name_them)).class_names == ("bad", "fair", "good")


def test_weights_beside_a_folder_are_refused(language_model):
    with pytest.raises(UsageError, match="brings its own weights"):
        load(language_model("bert"), weights="other.safetensors")
