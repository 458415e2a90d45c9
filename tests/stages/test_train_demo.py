"""``train-demo``: one folder that is a network, a data set and the truth about both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from debugnet.artifacts.provenance import read_provenance
from debugnet.backbones.demo_networks import predict_digits, train_digits, train_word_pieces
from debugnet.backbones.loading import load_backbone
from debugnet.backbones.spec import BackboneSpec
from debugnet.data import DataSpec, load_dataset
from debugnet.data.demo_digits import DigitsPlan, make_digits
from debugnet.data.reviews_grammar import ReviewsPlan, make_reviews
from debugnet.errors import OutputExists, UsageError
from debugnet.recipes.train_demo import TrainDemo
from debugnet.stages import train_demo


@pytest.mark.parametrize("demo", ["digits", "reviews"])
def test_the_folder_is_network_data_and_truth(tmp_path: Path, demo: str) -> None:
    options = TrainDemo(demo, tmp_path / "demo", epochs=1)
    threads = torch.get_num_threads()
    result = train_demo.run(options)
    assert torch.get_num_threads() == threads and not result.reused
    assert 0 <= result.summary["worst_group_accuracy"] <= result.summary["test_accuracy"] <= 1

    splits = load_dataset(DataSpec(str(result.path)))
    truth = json.loads((result.path / "truth.json").read_text())
    test = splits.splits["test"]
    carriers = truth["patched_rows" if demo == "digits" else "shortcut_rows"]["test"]
    assert np.flatnonzero(test.groups % 2).tolist() == carriers and splits.group_names == truth["group_names"]
    assert (result.path / ("contact_sheet.png" if demo == "digits" else "word_effects.png")).stat().st_size > 10_000

    if demo == "reviews":
        assert [j for j, tag in enumerate(truth["feature_tags"]) if tag == "snack"] == [10, 21, 32, 43, 54]
    backbone = load_backbone(BackboneSpec(str(result.path)), device="cpu")
    assert (backbone.feature_dim, list(backbone.class_names)) == (64, splits.class_names)
    with torch.no_grad():
        _, logits = backbone.features(backbone.collate([test[i] for i in range(len(test))]), logits=True)
    accuracy = float((logits.argmax(dim=1).numpy() == test.labels).mean())
    assert accuracy == pytest.approx(result.summary["test_accuracy"], abs=0.005)  # the loader gives the same network

    made = read_provenance(result.path)  # taken after the work: all its time, and torch in the memory
    assert made.seconds == pytest.approx(result.summary["seconds"], abs=0.1) and made.peak_memory > 150 << 20
    assert train_demo.run(options).reused
    with pytest.raises(OutputExists, match="seed"):
        train_demo.run(TrainDemo(demo, tmp_path / "demo", epochs=1, seed=1))


def test_training_is_reproducible_and_leaves_the_callers_random_stream_alone() -> None:
    train = make_digits(DigitsPlan())["train"]
    images, labels = train.images[:128], train.labels[:128]
    before = torch.random.get_rng_state()
    one, two, other = (train_digits(images, labels, epochs=1, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [torch.cat([p.flatten() for p in network.state_dict().values()]) for network in (one, two, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert not one.training and predict_digits(one, images).shape == (128,)


def test_a_few_epochs_learn_the_digits() -> None:
    train = make_digits(DigitsPlan(shortcut_share=0))["train"]
    network = train_digits(train.images[:600], train.labels[:600], epochs=4)
    assert (predict_digits(network, train.images[600:900]) == train.labels[600:900]).mean() > 0.6


def test_every_word_of_the_reviews_is_one_piece() -> None:
    texts = make_reviews(ReviewsPlan(n_train=300, n_test=2))["train"].texts
    tokenizer, again = train_word_pieces(texts), train_word_pieces(texts)
    assert tokenizer.get_vocab() == again.get_vocab()
    assert not any(piece.startswith("##") for text in texts for piece in tokenizer.tokenize(text))
    assert tokenizer.tokenize("Quiz!") == ["q", "##u", "##i", "##z", "!"]
    ids = tokenizer("superb plot")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[0] == "[CLS]" and tokenizer.convert_ids_to_tokens(ids)[-1] == "[SEP]"


@pytest.mark.parametrize("options", [{"demo": "cats"}, {"demo": "digits", "epochs": 0}])
def test_options_that_cannot_work(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        TrainDemo(**options)
