"""How good a decision layer is on one split: every number that a path, a head or a table reports.

Accuracies are fractions.  Rows arrive in blocks, so a memory-mapped feature file is never
read into memory whole.

The metrics, per task:

single-label
    ``loss`` (mean of the family's loss), ``accuracy``, ``balanced_accuracy`` (mean recall over
    the classes that occur), ``accuracy_se`` (binomial standard error of ``accuracy``).
multi-label
    ``loss``, ``accuracy`` (mean over labels of the share of right decisions), ``exact_match``
    (rows with every label right), ``balanced_accuracy`` (mean over labels of the mean of
    sensitivity and specificity: what the accuracy would be on a set with as many positives as
    negatives, which is how the paper evaluates its toxic-comment tasks), ``average_precision``
    (mean over labels), ``accuracy_se``, and per label k ``accuracy[k]``,
    ``balanced_accuracy[k]``, ``average_precision[k]``.  A label without positives (or without
    negatives) has NaN there and is left out of the means.
regression
    ``loss`` (half squared error summed over outputs), ``mse``, ``r2`` (both the mean over
    outputs; an output that is constant on the split has no R2 and is left out).

On a path, where rows have weights, the train metrics are the weighted ones (single-label: all of
them; else the loss); every other split counts each row once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np

from debugnet.heads import LinearHead

#: The metric that selection and plots use unless told otherwise, per task.
DEFAULT_METRIC = {"single-label": "accuracy", "multi-label": "balanced_accuracy", "regression": "r2"}

#: Rows per block: a block of 2,048 float64 features takes 64 MB.
BLOCK_ROWS = 4096


def evaluate(
    head: LinearHead, X: np.ndarray, y: np.ndarray, *, sample_weight: np.ndarray | None = None
) -> dict[str, float]:
    """Score ``head`` on raw features.

    Parameters
    ----------
    head : LinearHead
    X : ndarray (n, d), any float
        Raw features, memory-mapped or not; every row usable.
    y : ndarray
        (n,) int64 classes, (n, K) 0/1 for multi-label, (n,) or (n, K) float for regression.
    sample_weight : ndarray (n,), optional
        Weights of the mean loss; the other metrics count every row once.

    Returns
    -------
    dict
        The metrics of the task (see the module).
    """
    scores, losses = _score(head, X, y)
    loss = float(np.average(losses, weights=sample_weight))
    if head.task == "regression":
        return {"loss": loss, **_regression(scores, np.reshape(y, scores.shape))}
    if head.task == "multi-label":
        return {"loss": loss, **_multi_label(scores, y)}
    return {"loss": loss, **_single_label(scores, y)}


def evaluate_scores(scores: np.ndarray, y: np.ndarray, family: str, task: str) -> dict[str, float]:
    """Score outputs (n, K) that are in memory: the same metrics as of a head that gives them."""
    loss = float(row_losses(scores, y, family).mean())
    if task == "regression":
        return {"loss": loss, **_regression(scores, np.reshape(y, scores.shape))}
    if task == "multi-label":
        return {"loss": loss, **_multi_label(scores, y)}
    return {"loss": loss, **_single_label(scores.argmax(axis=1), y)}


def row_losses(scores: np.ndarray, y: np.ndarray, family: str) -> np.ndarray:
    """Return the family's loss of each row, (n,) float64, as in the fitted objective.

    Multinomial: ``log sum_k exp(s_k) - s_y``.  Binomial: ``log(1 + exp(s)) - t s`` summed over
    outputs, with t the 0/1 target of the output.  Gaussian: half the squared error, summed.
    """
    n = len(scores)
    if family == "multinomial":
        top = scores.max(axis=1)
        return top + np.log(np.exp(scores - top[:, None]).sum(axis=1)) - scores[np.arange(n), y]
    if family == "binomial":
        return (np.logaddexp(0.0, scores) - _targets(y, scores.shape[1]) * scores).sum(axis=1)
    return 0.5 * ((scores - np.reshape(y, scores.shape)) ** 2).sum(axis=1)


def blocks(n: int) -> Iterator[slice]:
    """Yield slices of :data:`BLOCK_ROWS` rows that cover ``range(n)`` in order."""
    for start in range(0, n, BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, n))


def _targets(y: np.ndarray, n_outputs: int) -> np.ndarray:
    """0/1 targets (n, n_outputs) of a binomial family, from classes or from a 0/1 matrix."""
    if y.ndim == 2:
        return y
    return y[:, None].astype(np.float64) if n_outputs == 1 else y[:, None] == np.arange(n_outputs)


def _score(head: LinearHead, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return per row what the metrics need (single-label: the prediction; else the scores), and the losses."""
    kept, losses = [], np.empty(len(X))
    for rows in blocks(len(X)):
        scores = head.logits(X[rows])
        losses[rows] = row_losses(scores, y[rows], head.family)
        # n x K scores of a thousand classes would not fit in memory; predictions do.
        kept.append(head.decide(scores) if head.task == "single-label" else scores)
    return np.concatenate(kept), losses


def _single_label(predicted: np.ndarray, y: np.ndarray) -> dict[str, float]:
    hits = predicted == y
    accuracy = float(hits.mean())
    counts = np.bincount(y)
    recall = np.bincount(y, weights=hits)[counts > 0] / counts[counts > 0]
    return {
        "accuracy": accuracy,
        "balanced_accuracy": float(recall.mean()),
        "accuracy_se": float(np.sqrt(accuracy * (1 - accuracy) / len(y))),
    }


def _multi_label(scores: np.ndarray, y: np.ndarray) -> dict[str, float]:
    truth = np.asarray(y) > 0
    hits = (scores > 0) == truth
    per_label = {
        "accuracy": hits.mean(axis=0),
        "balanced_accuracy": _balanced_per_label(hits, truth),
        "average_precision": _average_precision_per_label(scores, truth),
    }
    metrics = {name: _mean_of_known(values) for name, values in per_label.items()}
    metrics["exact_match"] = float(hits.all(axis=1).mean())
    metrics["accuracy_se"] = float(hits.mean(axis=1).std() / np.sqrt(len(y)))
    for name, values in per_label.items():
        metrics.update({f"{name}[{k}]": float(value) for k, value in enumerate(values)})
    return metrics


def _balanced_per_label(hits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    positives, negatives = truth.sum(axis=0), (~truth).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 0.5 * ((hits & truth).sum(axis=0) / positives + (hits & ~truth).sum(axis=0) / negatives)


def _average_precision_per_label(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    from sklearn.metrics import average_precision_score

    return np.array(
        [average_precision_score(t, s) if t.any() else np.nan for s, t in zip(scores.T, truth.T, strict=True)]
    )


def _regression(predicted: np.ndarray, y: np.ndarray) -> dict[str, float]:
    errors = ((predicted - y) ** 2).mean(axis=0)
    variance = y.var(axis=0)
    r2 = 1 - np.divide(errors, variance, out=np.full_like(errors, np.nan), where=variance > 0)
    return {"mse": float(errors.mean()), "r2": _mean_of_known(r2)}


def _mean_of_known(values: np.ndarray) -> float:
    with warnings.catch_warnings():  # all NaN: the mean is NaN, which is the answer
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(np.nanmean(values))
