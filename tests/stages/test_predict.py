"""Predictions from stored features and from the network itself are the same, and add up."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from debugnet.artifacts.head_store import load_head
from debugnet.errors import InputError, StaleArtifact, UsageError
from debugnet.recipes.extract import Extract
from debugnet.recipes.fit_path import FitPath
from debugnet.recipes.predict import Predict
from debugnet.recipes.select import Select
from debugnet.stages import extract, fit_path, predict, select
from tests.stages.planted import planted_problem

FACTORY = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 2))
"""


def records(path):
    return [json.loads(line) for line in (path / "predictions.jsonl").read_text().splitlines()]


def test_stored_features_with_an_unusable_row(planted_store):
    path = fit_path.run(FitPath(planted_store, n_lambdas=10, lambda_min_ratio=0.1, threads=1)).path
    head_path = select.run(Select(path)).path
    result = predict.run(Predict(head_path, split="train"))
    rows, head = records(result.path), load_head(head_path)
    assert len(rows) == 240 and rows[7]["status"] == "non-finite feature" and "prediction" not in rows[7]
    features, labels = planted_problem()
    predicted = head.predict(np.nan_to_num(features["train"]))
    for i, row in enumerate(rows):
        assert row["id"] == f"train/{i}" and row["label"] == head.class_names[labels["train"][i]]
        if i != 7:
            assert row["prediction"] == head.class_names[predicted[i]]
    usable = np.arange(240) != 7
    assert result.summary["accuracy"] == pytest.approx(np.mean((predicted == labels["train"])[usable]))
    assert predict.run(Predict(head_path, split="train")).reused
    with pytest.raises(InputError, match="no split 'dev'"):
        predict.run(Predict(head_path, head_path.parent / "other", split="dev"))
    with pytest.raises(UsageError, match="top-features"):
        predict.run(Predict(head_path, top_features=-1))


def test_the_network_on_new_data_gives_what_its_stored_features_give(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tinynet.py").write_text(FACTORY)
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    X = rng.normal(size=(120, 20)).astype(np.float32)
    X[y == 1, :4] += 1.5
    np.savez("data.npz", x_train=X[:80], y_train=y[:80], x_test=X[80:], y_test=y[80:])
    np.savez("new.npz", images=X[80:])
    store = extract.run(
        Extract("python:tinynet:make", "data.npz", tmp_path / "features.h5", device="cpu", workers=0)
    ).path
    path = fit_path.run(FitPath(store, n_lambdas=10, lambda_min_ratio=0.1, threads=1)).path
    head_path = select.run(Select(path, index=9)).path
    stored = records(predict.run(Predict(head_path, tmp_path / "stored", split="test")).path)
    fresh = records(predict.run(Predict(head_path, tmp_path / "fresh", data="new.npz", device="cpu", workers=0)).path)
    assert len(stored) == len(fresh) == 40
    for a, b in zip(stored, fresh, strict=True):
        assert a["prediction"] == b["prediction"] and "label" not in b
        assert a["outputs"][0]["logit"] == pytest.approx(b["outputs"][0]["logit"], abs=1e-4)
    assert {row["prediction"] for row in stored} == {row["label"] for row in stored}

    # put into the network as a layer, the head says the same
    from tinynet import make

    network = make()
    network[2] = load_head(head_path).to_linear()
    with torch.no_grad():
        classes = network(torch.from_numpy(X[80:])).argmax(dim=1)
    assert [load_head(head_path).class_names[k] for k in classes] == [row["prediction"] for row in fresh]

    (tmp_path / "tinynet.py").write_text(FACTORY.replace("manual_seed(0)", "manual_seed(1)"))
    monkeypatch.delitem(__import__("sys").modules, "tinynet")
    with pytest.raises(StaleArtifact):
        predict.run(Predict(head_path, tmp_path / "stale", data="new.npz", device="cpu", workers=0))
