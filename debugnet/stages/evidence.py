"""One ranking of suspects: what diagnose, the pairs of classes and the stability of the layer say of each feature."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from debugnet.analysis.misclassification import Ablation, ErrorCauses
    from debugnet.analysis.suspects import Reliance
    from debugnet.stages.evaluation import Evaluation

#: A class leans on a feature whose weight is above this share of the class's largest (as in ``debugnet pairs``).
LEANS = 0.05


def rank_suspects(
    evaluation: Evaluation,
    reliance: Reliance,
    ablation: Ablation,
    causes: ErrorCauses,
    threshold: float,
    stability: Path | None,
) -> list[dict[str, Any]]:
    """Every used feature from the most to the least suspicious, with the evidence of each kind.

    The tests of diagnose order the features, because they alone have a false-alarm rate; what else is known
    stands beside: the classes that lean on the feature (two or more: a pattern shared by a pair), and in what share
    of resamples it is selected.
    """
    import numpy as np

    from debugnet.analysis.suspects import combine_evidence

    p_value = combine_evidence(reliance, ablation)
    dominated = np.bincount(causes.feature_wrong, minlength=evaluation.head.weight.shape[1])
    selected = None if stability is None else _selection(stability, evaluation)
    names, leaning = evaluation.head.output_names, _leaning(evaluation)
    rows = []
    for i in np.lexsort((-reliance.z, p_value)):
        feature = int(ablation.feature[i])
        row = {
            "feature": feature,
            "z": float(reliance.z[i]),
            "p_value": float(p_value[i]),
            "suspect": bool(p_value[i] < threshold),
            "p_reliance": float(reliance.p_value[i]),
            "p_ablation": float(ablation.p_value[i]),
            "fixed": int(ablation.fixed[i]),
            "broken": int(ablation.broken[i]),
            "errors_dominated": int(dominated[feature]),
            "classes": [names[k] for k in np.flatnonzero(leaning[:, feature])],
        }
        rows.append(row if selected is None else row | {"selected": float(selected[feature])})
        rows[-1]["evidence"] = _say(rows[-1], threshold)
    return rows


def _leaning(evaluation: Evaluation) -> np.ndarray:
    """Which outputs lean on which feature, (K, d) bool."""
    import numpy as np

    positive = np.maximum(evaluation.head.standardized_weight, 0)
    top = positive.max(axis=1, keepdims=True)
    return np.asarray(positive > LEANS * np.where(top > 0, top, np.inf))


def _selection(folder: Path, evaluation: Evaluation) -> np.ndarray:
    """Share of resamples that select each feature for one of the outputs that use it, (d,).

    Raises
    ------
    InputError
        The folder does not belong to this head.
    """
    import numpy as np

    from debugnet.artifacts.provenance import input_reference, read_provenance

    made = read_provenance(folder)
    if made.kind != "stability":
        raise InputError(f"{folder} is of kind {made.kind}, and a stability folder is needed (debugnet stability)")
    if made.inputs["head"]["digest"] != input_reference(evaluation.head_path)["digest"]:
        raise InputError(
            f"{folder} was made for another head than {evaluation.head_path}: run debugnet stability on it"
        )
    with np.load(folder / "shares.npz", allow_pickle=False) as stored:
        return np.asarray(np.where(evaluation.head.support, stored["share"], 0.0).max(axis=0))


def _say(row: dict[str, Any], threshold: float) -> list[str]:
    """Name the evidence against one feature."""
    said = []
    if 2 * row["p_reliance"] < threshold:
        said.append(f"diagnose: less of it would lower the loss (z {row['z']:.1f})")
    if 2 * row["p_ablation"] < threshold:
        said.append(f"diagnose: without it {row['fixed']} decisions are mended and {row['broken']} spoilt")
    if len(row["classes"]) > 1:
        said.append(f"pairs: {len(row['classes'])} classes lean on it")
    if "selected" in row:
        said.append(f"stability: selected in {row['selected']:.0%} of the resamples")
    return said
