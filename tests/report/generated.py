"""Material of any size with any names, made up, with a real explanation bundle on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from debugnet.artifacts.bundle import BundleWriter, write_json
from debugnet.artifacts.explanation_bundle import load_explanations, record_key
from debugnet.artifacts.provenance import collect
from debugnet.heads import LinearHead
from debugnet.report.material import Counterfactuals, Material, Notes, OtherHead
from debugnet.standardization import Standardizer


class Shown:
    """Samples made up on the spot: pictures, texts, or nothing."""

    def __init__(self, make) -> None:
        self.make = make

    def show(self, split: str, row: int):
        return self.make(split, row)


def make_head(names: Sequence[str], n_features: int, per_class: int, seed: int = 0) -> LinearHead:
    rng = np.random.default_rng(seed)
    weight = np.zeros((len(names), n_features))
    for k in range(len(names)):
        chosen = np.unique(np.concatenate([rng.choice(n_features, per_class), np.arange(k, n_features, len(names))]))
        weight[k, chosen] = rng.normal(size=len(chosen))
    standardizer = Standardizer(np.zeros(n_features), np.ones(n_features))
    meta = {"rule": "drop", "drop": 0.05, "reference": "best", "mean_features_per_class": 3.0, "metrics": {}}
    return LinearHead(weight, np.zeros(len(names)), standardizer, "multinomial", list(names), meta=meta)


def write_bundle_of(
    folder: Path, head: LinearHead, words: Sequence[str], *, per_side: int, pictures: bool, n_parts: int = 40,
    side: int = 160, seed: int = 0,
):  # fmt: skip
    """Write explanations of every feature: prototypes, LIME with superpixels or words, word tables."""
    rng = np.random.default_rng(seed)
    features = [int(f) for f in head.used_features]
    index: dict = {
        "modality": "image" if pictures else "text", "methods": ["prototypes", "lime", "words"],
        "class_names": list(head.class_names), "features": {}, "notes": [], "skipped": [],
        "summary": {"explanations": 1, "unstable": 1},
    }  # fmt: skip
    with BundleWriter(folder, collect("explanations", {"split": "val"}, {})) as writer:
        (writer.folder / "words").mkdir(exist_ok=True)
        for number, feature in enumerate(features):
            index["features"][str(feature)] = {"sides": ["positive", "negative"], "classes": {}}
            mine = [words[(number * 7 + i) % len(words)] for i in range(min(12, len(words)))]
            table = [
                {"word": w, "mean": 1.0 - 0.2 * i, "shrunk": 0.1, "n": 5, "low": -0.1, "high": 0.3}
                for i, w in enumerate(mine)
            ]
            write_json(writer.folder / "words" / f"f{feature:05d}.json", {"feature": feature, "words": table})
            for place, which in enumerate(("positive", "negative")):
                records, lime = [], []
                for i in range(per_side):
                    row = feature * 100 + place * 50 + i
                    record = {"sample_id": f"{words[row % len(words)]}:{row}", "row": row, "activation": 2.0 - i,
                              "classes": str(head.class_names[row % len(head.class_names)])}  # fmt: skip
                    key = f"lime:{feature}{which}{i}"
                    if pictures:
                        segments = np.add.outer(np.arange(side) // 24, 7 * (np.arange(side) // 24)) % n_parts
                        writer.add(key, {}, {"segments": segments.astype(np.uint16)})
                        parts: dict = {}
                    else:
                        record["text"] = " ".join(mine)
                        parts = {"parts": [w.casefold() for w in mine]}
                    n = n_parts if pictures else len(mine)
                    records.append(record)
                    lime.append(record | parts | {
                        "effects": rng.normal(size=n).round(4).tolist(), "r2": 0.8, "split_half": 0.9, "limit": 2.0,
                        "flags": [words[(row + 3) % len(words)]] if i == 0 else [], "stable": i > 0,
                        "measured": -1.0, "predicted": -1.1, "random_mean": -0.2, "random_as_strong": 0.0,
                        "n_removed": 3, "sample_key": key,
                    })  # fmt: skip
                writer.add(record_key("prototypes", feature, which), {"records": records, "pictures": []})
                writer.add(record_key("lime", feature, which), {"records": lime, "pictures": []})
                rows = table if which == "positive" else table[::-1]
                writer.add(record_key("words", feature, which), {"records": rows, "pictures": []})
        write_json(writer.folder / "index.json", index)
        writer.finish()
    return load_explanations(folder)


def hostile_material(folder: Path, strings: Sequence[str]) -> Material:
    """Material in which every name, word, note, id and text is one of ``strings``."""
    k = len(strings) // 10
    names, words, ids, notes = strings[:k], strings[k : 4 * k], strings[4 * k : 7 * k], strings[7 * k :]
    head = make_head(names, 60, 2)
    rng = np.random.default_rng(0)
    n = len(ids)
    X, y = rng.normal(size=(n, 60)).astype(np.float32), np.arange(n) % k
    made = collect("head", {notes[0]: notes[1], "note": notes[2]}, {})
    errors = [
        {"id": ids[i], "row": i, "true": names[int(y[i])], "predicted": names[0], "gap": 1.0, "feature_wrong": 1,
         "gamma_wrong": 1.0, "feature_right": 2, "gamma_right": -1.0, "fixed_mean": True, "fixed_zero": False}
        for i in range(20)
    ]  # fmt: skip
    rate = {"count": 1, "n": 2, "value": 0.5, "interval": [0.1, 0.9]}
    diagnosis = {
        "split": notes[3], "off": "mean", "accuracy": rate, "errors": 20, "fixed_by_one_feature": {"mean": rate},
        "published_fixable": 0.26, "threshold": 0.05, "never_predicted": names[:3],
        "suspects": [{"feature": 1, "fixed": 3, "broken": 1, "p_value": 0.01, "errors_dominated": 4, "suspect": True}],
        "dominant_features": [{"feature": 1, "errors": 20, "fixed": 9, "mean_gamma": 1.0,
                               "pairs": [{"true": names[0], "predicted": names[1], "errors": 2}]}],
    }  # fmt: skip
    pairs = {
        "split": notes[4], "overlap": "jaccard", "published": {"standard": 0.51, "robust": 0.4}, "n_shared": 2,
        "correlation": {"r": 0.4, "p_value": 0.1, "n_pairs": 3, "method": "pearson"},
        "confused_pairs": [{"classes": [names[i], names[i + 1]], "confusion": 0.2, "counts": [1, 2], "overlap": 0.1}
                           for i in range(4)],
    }  # fmt: skip
    shared = [{"classes": [names[0], names[1]], "feature": 1, "weights": [1.0, 1.0], "strength": 0.5,
               "samples": [[{"id": ids[0], "activation": 1.0}], [{"id": ids[1], "activation": 1.0}]]}]  # fmt: skip
    texts = Counterfactuals(
        notes[5],
        {"split": "val", "sentences": 4, "skipped": [], "layers": {notes[6]: {
            "all": {"flip": rate, "control": rate}, "common": {"flip": rate, "control": rate}}},
         "insertions": [{"word": w, "unknown_to_the_network": True,
                         "sparse": rate | {"to": [{"from": names[0], "to": names[1]}]}} for w in words[:20]]},
        [{"id": ids[i], "layer": notes[6], "before": words[i], "after": words[i + 1], "predicted": names[0],
          "flipped": True, "edit": {"feature": 1}} for i in range(20)], [], {}, notes[7],
    )  # fmt: skip
    images = Counterfactuals(
        notes[8], {"split": "val", "pattern": notes[9], "target": names[2], "area": 0.1, "flip": rate, "control": rate},
        [{"id": ids[2], "before": names[0], "after": names[1], "flipped": True, "controls_flipped": 0}],
        [], {}, notes[10],
    )  # fmt: skip
    audit = {
        "n": n, "before": rate, "after": rate, "fixed": list(ids[:3]), "broken": list(ids[3:5]), "mcnemar_p": 0.5,
        "classes": [{"name": name, "before": rate, "after": rate, "fixed": 1, "broken": 0} for name in names],
        "audited_on": notes[11], "chosen_on": notes[12], "same_samples": True, "refit": False,
        "edits": [{"action": "remove", "feature": 1, "output": names[0], "value": None, "note": notes[13]}],
    }  # fmt: skip
    return Material(
        title=notes[14], head=head, head_path=notes[15], split=notes[16], X=X, y=y, ids=ids, rows=np.arange(n),
        samples=Shown(lambda split, row: words[row % len(words)]), modality="text",
        groups=np.zeros(n, dtype=int), group_names=[notes[17]],
        diagnosis=diagnosis, errors=errors, pairs=pairs, shared=shared,
        explanations=write_bundle_of(folder / "explanations", head, words, per_side=2, pictures=False),
        explained_split="val", counterfactuals=[texts, images],
        stability={"weights": [{"feature": 1, "share": 0.3}], "below_half": 1},
        others=[OtherHead(notes[18], make_head(names, 60, 1, seed=1), audit, notes[19])],
        made=[(notes[20], made, "0" * 64)],
        notes=Notes(notes[21], {int(f): notes[22 + i % (len(notes) - 22)] for i, f in enumerate(head.used_features)},
                    {name: notes[-1 - i] for i, name in enumerate(names)}),
    )  # fmt: skip
