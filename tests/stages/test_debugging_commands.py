"""diagnose, pairs, edit, diff and stability on a store with a planted shortcut."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from debugnet.artifacts.bundle import read_json
from debugnet.artifacts.feature_store import create_feature_store
from debugnet.artifacts.head_store import load_head, save_head
from debugnet.artifacts.provenance import collect, input_reference
from debugnet.errors import InputError, OutputExists, UsageError
from debugnet.heads import LinearHead
from debugnet.recipes.diagnose import Diagnose
from debugnet.recipes.diff import Diff
from debugnet.recipes.edit import Edit
from debugnet.recipes.pairs import Pairs
from debugnet.recipes.stability import Stability
from debugnet.stages import diagnose, diff, edit, pairs, stability
from debugnet.standardization import Standardizer

SHORTCUT = 7
NAMES = ["ant", "bee <b>", "cat"]


def draw(n: int, seed: int, holds: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features 0..2 tell the classes; feature 7 tells class 1 as long as the shortcut holds."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    X = rng.normal(size=(n, 10))
    X[np.arange(n), y] += 2.0
    patched = (y == 1) if holds else rng.random(n) < 0.4
    X[:, SHORTCUT] += 3.0 * patched
    return X.astype(np.float32), y, patched.astype(np.int64)


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    """A folder with features.h5 and head/."""
    from sklearn.linear_model import LogisticRegression

    folder = tmp_path_factory.mktemp("planted")
    parts = {"train": draw(900, 0, True), "val": draw(200, 1, True), "test": draw(600, 2, False)}
    provenance = collect("features", {"planted": True}, {})
    with create_feature_store(
        folder / "features.h5", {s: len(p[0]) for s, p in parts.items()}, 10, provenance=provenance
    ) as writer:
        for split, (X, _, _) in parts.items():
            status = np.zeros(len(X), dtype=np.uint8)
            status[5] = 1
            writer.write(split, 0, X, status)
        writer.finish(
            labels={s: p[1] for s, p in parts.items()},
            ids={s: [f"{s}/{i}" for i in range(len(p[1]))] for s, p in parts.items()},
            task="single-label", class_names=NAMES, config={},
            groups={s: p[2] for s, p in parts.items()}, group_names=["plain", "patched"],
        )  # fmt: skip
    X, y, _ = parts["train"]
    scale = X.std(axis=0)
    fit = LogisticRegression(l1_ratio=1.0, solver="saga", C=0.05, max_iter=500).fit((X - X.mean(axis=0)) / scale, y)
    standardizer = Standardizer(X.mean(axis=0).astype(float), scale.astype(float))
    head = LinearHead(
        *standardizer.to_raw(fit.coef_, fit.intercept_), standardizer, "multinomial", NAMES,
        meta={"lam": 1 / (0.05 * len(X)), "l1_ratio": 0.99, "penalty": "elastic_net"},
    )  # fmt: skip
    save_head(folder / "head", head, collect("head", {}, {"features": input_reference(folder / "features.h5")}))
    return folder


def test_the_planted_feature_is_the_first_suspect_and_its_removal_helps(chain, tmp_path):
    result = diagnose.run(Diagnose(chain / "head", output=tmp_path / "d", split="test/a"))
    report = read_json(tmp_path / "d" / "diagnosis.json")
    assert report["suspects"][0]["feature"] == SHORTCUT and report["suspects"][0]["suspect"]
    assert [row["feature"] for row in report["suspects"] if row["suspect"]] == [SHORTCUT]
    records = [json.loads(line) for line in open(tmp_path / "d" / "errors.jsonl", encoding="utf-8")]
    assert len(records) == report["errors"] == sum(group["errors"] for group in report["dominant_features"])
    assert sum(r["fixed_mean"] for r in records) == report["fixed_by_one_feature"]["mean"]["count"]
    assert diagnose.run(Diagnose(chain / "head", output=tmp_path / "d", split="test/a")).reused and not result.reused

    edited = edit.run(Edit(chain / "head", output=tmp_path / "e", from_=tmp_path / "d" / "edits.yaml"))
    audit = read_json(tmp_path / "e" / "audit.json")
    assert audit["audited_on"] == "test/b" and not audit["same_samples"]
    assert audit["after"]["value"] > audit["before"]["value"] + 0.05
    worst = audit["worst_group"]
    assert worst["after"]["after"]["value"] > worst["before"]["before"]["value"] + 0.1
    assert not load_head(edited.path).support[:, SHORTCUT].any()
    again = edit.run(Edit(chain / "head", output=tmp_path / "again", from_=tmp_path / "e" / "edits.yaml"))
    np.testing.assert_array_equal(load_head(again.path).weight, load_head(edited.path).weight)

    compared = diff.run(Diff(chain / "head", tmp_path / "e")).summary
    assert {row["feature"] for row in compared["weights"]} == {SHORTCUT}
    assert all(row["change"] == "removed" for row in compared["weights"])


def test_one_ranking_names_the_evidence_of_pairs_and_stability(chain, tmp_path):
    stability.run(Stability(chain / "head", output=tmp_path / "s", bootstrap=4))
    diagnose.run(Diagnose(chain / "head", output=tmp_path / "d", split="test/a", stability=tmp_path / "s"))
    rows = read_json(tmp_path / "d" / "diagnosis.json")["suspects"]
    first = rows[0]
    assert first["feature"] == SHORTCUT and first["selected"] == 1.0 and "bee <b>" in first["classes"]
    assert [said.split(":")[0] for said in first["evidence"]][0] == "diagnose"
    assert first["evidence"][-1] == "stability: selected in 100% of the resamples"
    assert all(("pairs: " in " ".join(row["evidence"])) == (len(row["classes"]) > 1) for row in rows)


def test_any_decision_is_an_exact_sum(chain, tmp_path):
    from debugnet.stages.evaluation import Evaluation

    evaluation = Evaluation(chain / "head", "test")
    right = int(np.flatnonzero(evaluation.predictions == evaluation.y)[0])
    wrong = int(np.flatnonzero(evaluation.predictions != evaluation.y)[0])
    ids = (evaluation.ids[right], evaluation.ids[wrong])
    result = diagnose.run(Diagnose(chain / "head", output=tmp_path / "d", split="test", sample=ids))
    records = read_json(tmp_path / "d" / "diagnosis.json")["decompositions"]
    assert [r["id"] for r in records] == list(ids) and records[1]["against"] == NAMES[evaluation.y[wrong]]
    for i, record in zip((right, wrong), records, strict=True):
        total = sum(term["contribution"] for term in record["terms"]) + record["bias"]
        scores = dict(zip(NAMES, evaluation.scores[i], strict=True))
        gap = scores[record["predicted"]] - scores[record["against"]]
        assert record["gap"] == pytest.approx(gap) == pytest.approx(total + record["residual"])
        assert abs(record["residual"]) < 1e-9 and record["id"] in result.text


def test_where_the_shortcut_holds_nothing_is_suspected(chain, tmp_path):
    result = diagnose.run(Diagnose(chain / "head", output=tmp_path / "d", split="val"))
    assert result.summary["suspects"] == []


def test_halves_are_disjoint_and_whole(chain):
    from debugnet.stages.evaluation import Evaluation

    rows = [Evaluation(chain / "head", part).rows for part in ("test/a", "test/b", "test")]
    assert set(rows[0]) | set(rows[1]) == set(rows[2]) and not set(rows[0]) & set(rows[1])
    assert 5 not in rows[2] and 200 < len(rows[0]) < 400


def test_an_audit_on_the_samples_that_chose_is_refused(chain, tmp_path):
    file = tmp_path / "edits.yaml"
    file.write_text("chosen_on: test/a\nedits:\n- {action: remove, feature: 7}\n")
    with pytest.raises(UsageError, match="would flatter"):
        edit.run(Edit(chain / "head", output=tmp_path / "e", from_=file, audit="test"))
    result = edit.run(Edit(chain / "head", output=tmp_path / "e", from_=file, audit="test", allow_same=True))
    assert result.summary["same_samples"]
    with pytest.raises(OutputExists):
        edit.run(Edit(chain / "head", output=tmp_path / "e", remove=("1",)))


@pytest.mark.parametrize(
    "options, error, says",
    [
        ({}, UsageError, "nothing to edit"),
        ({"remove": ("x",)}, UsageError, "12 or cat/12"),
        ({"scale": ("cat/1",)}, UsageError, "12=0.5"),
        ({"remove": ("zebra/1",)}, UsageError, "zebra"),
        ({"remove": ("99",)}, UsageError, "0..9"),
        ({"from_": Path("missing.yaml")}, InputError, "missing.yaml"),
        ({"remove": ("1",), "audit": "nowhere"}, (InputError, UsageError), "nowhere"),
        ({"scale": ("1=2",), "refit": True}, UsageError, "--refit"),
    ],
)
def test_bad_edits_get_one_clear_line(chain, tmp_path, options, error, says):
    with pytest.raises(error, match=says):
        edit.run(Edit(chain / "head", output=tmp_path / "e", **options))
    assert not (tmp_path / "e").exists()


def test_refit_leaves_the_feature_out(chain, tmp_path):
    edit.run(Edit(chain / "head", output=tmp_path / "e", remove=("7",), refit=True))
    head = load_head(tmp_path / "e")
    assert not head.support[:, SHORTCUT].any() and head.support.any()
    assert not np.allclose(head.standardized_weight[:, 0], load_head(chain / "head").standardized_weight[:, 0])


def test_pairs(chain, tmp_path):
    result = pairs.run(Pairs(chain / "head", output=tmp_path / "p", split="test", permutations=20))
    report = read_json(tmp_path / "p" / "pairs.json")
    assert report["correlation"]["n_pairs"] == 3 and result.summary["shared"] == report["n_shared"]
    assert (tmp_path / "p" / "confusion_against_overlap.png").stat().st_size > 5000


def test_stability_tells_planted_from_chance(chain, tmp_path):
    stability.run(Stability(chain / "head", output=tmp_path / "s", bootstrap=8))
    with np.load(tmp_path / "s" / "shares.npz") as stored:
        share = stored["share"]
    assert min(share[0, 0], share[1, 1], share[2, 2], share[1, SHORTCUT]) == 1.0
    noise = [j for j in range(10) if j not in (0, 1, 2, SHORTCUT)]
    assert share[:, noise].max() < 1.0


def test_stability_tells_the_penalty_mixes_apart(chain, tmp_path):
    options = Stability(chain / "head", output=tmp_path / "s", bootstrap=5, l1_ratios=(0.2, 0.99))
    stability.run(options)
    with np.load(tmp_path / "s" / "shares.npz") as stored:
        ridge, lasso, both = (stored[name] for name in ("share_l1_0.2", "share_l1_0.99", "share"))
    assert np.allclose(both, (3 * ridge + 2 * lasso) / 5) and ridge.sum() > lasso.sum()  # less l1: more is selected
    rows = read_json(tmp_path / "s" / "stability.json")["weights"]
    for row in rows:
        k, j = NAMES.index(row["output"]), row["feature"]
        assert row["by_l1_ratio"] == {"0.2": ridge[k, j], "0.99": lasso[k, j]} and row["share"] == both[k, j]
    with pytest.raises(UsageError, match="one for each mix"):
        stability.run(Stability(chain / "head", output=tmp_path / "t", bootstrap=2, l1_ratios=(0.2, 0.5, 0.99)))


def test_an_unknown_half_is_refused(chain, tmp_path):
    with pytest.raises(UsageError, match="test/c"):
        diagnose.run(Diagnose(chain / "head", output=tmp_path / "d", split="test/c"))
