"""What notebooks show is small, true and escaped."""

from __future__ import annotations

import numpy as np

from debugnet.heads import LinearHead
from debugnet.html_table import html_table
from debugnet.standardization import Standardizer

HOSTILE = "<script>alert('x')</script>"


def test_everything_is_escaped():
    text = html_table(HOSTILE, {HOSTILE: HOSTILE}, (HOSTILE,), [(HOSTILE * 9,)] * 20)
    assert "<script" not in text and text.count("&lt;script&gt;") >= 4
    assert "and 8 more" in text and text.count("<tr>") == 13


def test_a_head_shows_its_strongest_features():
    weight = np.zeros((2, 50))
    weight[0, [3, 7]], weight[1, 9] = [2.0, -4.0], 1.0
    head = LinearHead(weight, np.zeros(2), Standardizer(np.zeros(50), np.full(50, 0.5)), "multinomial", [HOSTILE, "b"])
    text = head._repr_html_()
    assert "-2 · 7, +1 · 3" in text and "3 of 50" in text and "<script" not in text and len(text) < 2000


def test_stores_paths_and_explanations_have_one(tmp_path):
    from debugnet import fit_path
    from debugnet.artifacts.feature_store import load_features
    from tests.report.generated import make_head, write_bundle_of
    from tests.stages.planted import planted_problem, write_store

    features, labels = planted_problem()
    store = load_features(write_store(tmp_path / "f.h5", features, labels, class_names=[HOSTILE, "b", "c"]))
    assert "239" in store._repr_html_() and "<script" not in store._repr_html_()
    path = fit_path(features["val"], labels["val"], n_lambdas=5)
    assert "converged" in path._repr_html_() and path._repr_html_().count("<tr>") == 6
    bundle = write_bundle_of(tmp_path / "e", make_head(["a", "b"], 6, 1), [HOSTILE, "w"], per_side=1, pictures=False)
    assert "&lt;script" in bundle._repr_html_() and "<script" not in bundle._repr_html_()
