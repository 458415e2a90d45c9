"""Decisions of chosen samples, each as a sum over features that can be checked by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from debugnet.errors import InputError
from debugnet.progress import log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debugnet.stages.evaluation import Evaluation

_TERMS_SHOWN = 5


def find_samples(evaluation: Evaluation, wanted: Sequence[str]) -> list[int]:
    """Positions of the samples with these ids; ids that do not exist are named on stderr and left out.

    Raises
    ------
    InputError
        None of them exists.
    """
    position = {id_: i for i, id_ in enumerate(evaluation.ids)} if wanted else {}
    unknown = [id_ for id_ in wanted if id_ not in position]
    if unknown:
        place = f"{evaluation.part} of {evaluation.features_path}"
        says = f"no sample has the id {', '.join(map(repr, unknown))} in {place}; ids look like {evaluation.ids[0]!r}"
        if len(unknown) == len(wanted):
            raise InputError(says)
        log(f"{says}: left out")
    return [position[id_] for id_ in wanted if id_ in position]


def decompose_samples(evaluation: Evaluation, positions: Sequence[int], off: str) -> list[dict[str, Any]]:
    """Take decisions apart: the predicted against the true output, or against the runner-up where it is right.

    The logit gap is the sum of ``(w_predicted - w_other) z`` over the features, plus the difference of the biases;
    ``residual`` is what rounding leaves.  A multi-label head has one gap per label, each against 0.
    """
    return [record for i in positions for record in _decompose(evaluation, i, off)]


def _decompose(evaluation: Evaluation, i: int, off: str) -> list[dict[str, Any]]:
    import numpy as np

    from debugnet.analysis.misclassification import decompose
    from debugnet.stages.evaluation import output_label

    head = evaluation.head
    records = []
    for predicted, other in _outputs(evaluation, i):
        parts: dict[str, Any] = decompose(head, np.asarray(evaluation.X[i]), predicted, other, off=off)
        records.append(
            {
                "id": evaluation.ids[i],
                "predicted": output_label(head, predicted),
                "against": output_label(head, other) if other >= 0 or len(head.weight) == 1 else "0",
                "gap": parts["gap"],
                "bias": parts["bias"],
                "terms": [
                    {"feature": int(f), "contribution": float(c)}
                    for f, c in zip(parts["features"], parts["contributions"], strict=True)
                ],
                "residual": parts["residual"],
            }
        )
    return records


def _outputs(evaluation: Evaluation, i: int) -> list[tuple[int, int]]:
    """Pairs of output rows (:data:`ZERO_ROW` for the constant 0) whose gap decides sample i."""
    from debugnet.analysis.misclassification import ZERO_ROW

    scores, y = evaluation.scores[i], evaluation.y[i]
    if evaluation.head.task == "multi-label":
        return [(k, ZERO_ROW) for k in range(len(scores))]
    if len(scores) == 1:
        return [(0, ZERO_ROW) if scores[0] > 0 else (ZERO_ROW, 0)]
    first, second = (-scores).argsort(kind="stable")[:2]
    return [(int(first), int(second) if first == y else int(y))]


def describe_decomposition(record: dict[str, Any]) -> str:
    """Write one gap as a sum on one line."""
    shown, rest = record["terms"][:_TERMS_SHOWN], record["terms"][_TERMS_SHOWN:]
    terms = [f"{term['contribution']:+.3f} (feature {term['feature']})" for term in shown]
    if rest:
        terms.append(f"{sum(term['contribution'] for term in rest):+.3f} ({len(rest)} others)")
    return (
        f"{record['id']}: '{record['predicted']}' over '{record['against']}' by {record['gap']:.3f} = "
        f"{' '.join(terms)} {record['bias']:+.3f} (bias), residual {record['residual']:.1e}"
    )
