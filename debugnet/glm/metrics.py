"""How good one point is on one split; every metric is made of sums over rows."""

from __future__ import annotations

import torch
from torch import Tensor

from debugnet.glm.design import Communicator
from debugnet.glm.families import Family


def evaluate(
    family: Family,
    task: str,
    scores: Tensor,
    target: Tensor,
    weight: Tensor,
    communicator: Communicator,
    loss: float | None = None,
) -> dict[str, float]:
    """Weighted metrics of scores (n, K) against an encoded target.

    Parameters
    ----------
    family : Family
    task : str
        ``single-label``, ``multi-label`` or ``regression``.
    scores : Tensor (n, K)
        W x + b of this rank's rows.
    target : Tensor (n,) or (n, K)
        As the family encodes it.
    weight : Tensor (n,), float64
        Sums to 1 over all rows of all ranks.
    communicator : Communicator
        Adds up over the ranks.
    loss : float, optional
        The mean loss, where it is known already.

    Returns
    -------
    dict
        ``loss`` (mean, without penalty) and, for single-label, ``accuracy`` and
        ``balanced_accuracy`` (mean recall of the classes present); for multi-label ``accuracy``
        (mean over labels), ``balanced_accuracy`` (mean over labels of the mean recall of 0 and 1)
        and ``exact_match``; for regression ``r2`` (of all outputs together).  Fractions.
    """
    if loss is None:
        loss = float(communicator.sum_(weight @ family.loss(scores, target).to(torch.float64)))
    if task == "regression":
        return {"loss": loss, "r2": _r2(scores, target, weight, communicator)}
    if task == "multi-label":
        return {"loss": loss, **_multi_label(scores, target, weight, communicator)}
    labels, hit, n_classes = _hits(scores, target)
    right = hit.to(torch.float64) * weight
    mass = torch.zeros((2, n_classes), dtype=torch.float64, device=scores.device)
    mass[0].index_add_(0, labels, weight)
    mass[1].index_add_(0, labels, right)
    communicator.sum_(mass)
    present = mass[0] > 0
    recall = mass[1][present] / mass[0][present]
    accuracy = float(mass[1].sum() / mass[0].sum())  # the divisor is 1 but for rounding
    return {"loss": loss, "accuracy": accuracy, "balanced_accuracy": float(recall.mean())}


def _hits(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor, int]:
    """(true labels, whether the first of the largest scores is theirs, number of classes) of single-label scores."""
    if scores.shape[1] == 1:
        labels = target[:, 0].to(torch.int64)
        return labels, (scores[:, 0] > 0) == (labels == 1), 2
    labels = target if target.ndim == 1 else target.argmax(dim=1)
    top = scores.amax(dim=1, keepdim=True)
    if int((scores >= top).sum()) == len(scores):  # no ties: no need for the place of the largest, which costs more
        return labels, scores.gather(1, labels[:, None])[:, 0] >= top[:, 0], scores.shape[1]
    return labels, scores.argmax(dim=1) == labels, scores.shape[1]


def _multi_label(scores: Tensor, target: Tensor, weight: Tensor, communicator: Communicator) -> dict[str, float]:
    truth, guess = target > 0.5, scores > 0
    right = (truth == guess).to(torch.float64)
    truth = truth.to(torch.float64)
    whole = right.amin(dim=1, keepdim=True).expand_as(right)
    sums = torch.stack([weight @ right, weight @ truth, weight @ (truth * right), weight @ whole])
    accuracy, positive, hit, exact = communicator.sum_(sums)
    negative = 1 - positive
    tiny = torch.finfo(torch.float64).tiny
    recalls = torch.stack([hit / positive.clamp(min=tiny), (accuracy - hit) / negative.clamp(min=tiny)])
    present = torch.stack([positive > 0, negative > 1e-12])
    balanced = (recalls * present).sum(dim=0) / present.sum(dim=0)
    return {
        "accuracy": float(accuracy.mean()),
        "balanced_accuracy": float(balanced.mean()),
        "exact_match": float(exact[0]),
    }


def _r2(scores: Tensor, target: Tensor, weight: Tensor, communicator: Communicator) -> float:
    mean = communicator.sum_(weight @ target)
    error = weight @ (scores - target).square()
    spread = weight @ (target - mean).square()
    error, spread = communicator.sum_(torch.stack([error, spread])).sum(dim=1)
    return float(1 - error / spread) if float(spread) > 0 else float("nan")
