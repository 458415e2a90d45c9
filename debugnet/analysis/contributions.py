"""Why a score is what it is: the exact sum of the features' contributions."""

from __future__ import annotations

from typing import Any

import numpy as np

from debugnet.heads import LinearHead


def probabilities(scores: np.ndarray, family: str) -> np.ndarray:
    """Turn scores (n, K) into probabilities of the family; gaussian scores stay as they are.

    Multinomial: softmax.  Binomial: the logistic function of each output.
    """
    if family == "gaussian":
        return scores
    if family == "binomial":
        return np.exp(-np.logaddexp(0.0, -scores))
    top = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(top / top.sum(axis=1, keepdims=True))


def explain_logit(head: LinearHead, x: np.ndarray, output: int, n: int = 0) -> dict[str, Any]:
    """Split one score of one sample into what each feature adds to it.

    ``logit = bias + sum_j w_j z_j`` with z the standardized features and w, bias the layer's
    standardized weights: a contribution is measured from the feature's train mean, where it is 0.

    Parameters
    ----------
    head : LinearHead
    x : ndarray (d,)
        Raw features of the sample.
    output : int
        Row of the layer.
    n : int
        List this many features, largest |contribution| first; 0 lists all that the output uses.

    Returns
    -------
    dict
        ``logit``, ``bias``, ``features``: ``[{feature, contribution, weight, value}]`` (value and
        weight standardized), ``others`` (sum of the contributions not listed) and ``residual``
        (logit minus everything, from rounding alone).
    """
    columns = np.flatnonzero(head.support[output])
    value = (x[columns].astype(np.float64) - head.standardizer.mean[columns]) * head.standardizer.inverse_scale[columns]
    weight = head.standardized_weight[output, columns]
    contribution = weight * value
    order = np.argsort(-np.abs(contribution), kind="stable")
    listed, rest = (order[:n], order[n:]) if n else (order, order[:0])
    bias, others = float(head.standardized_bias[output]), float(contribution[rest].sum())
    logit = float(x.astype(np.float64) @ head.weight[output] + head.bias[output])
    return {
        "logit": logit,
        "bias": bias,
        "features": [
            {
                "feature": int(columns[i]),
                "contribution": float(contribution[i]),
                "weight": float(weight[i]),
                "value": float(value[i]),
            }
            for i in listed
        ],
        "others": others,
        "residual": logit - (bias + float(contribution[listed].sum()) + others),
    }


def explain_prediction(head: LinearHead, x: np.ndarray, n: int = 0) -> dict[str, Any]:
    """Say what the head predicts for one sample, how sure it is, and which features made it so.

    Returns
    -------
    dict
        ``prediction``: the class's name; a list of names for multi-label; a number or a list of
        them for regression.  ``score``: the probability of the predicted class (single-label
        only).  ``outputs``: for single-label the predicted class's output, else every output,
        each as ``{"class", "score", **explain_logit(...)}``.
    """
    scores = head.logits(x[None])
    score, decision = probabilities(scores, head.family)[0], head.decide(scores)[0]
    names = [str(name) for name in head.class_names]
    outputs: list[int] = list(range(scores.shape[1]))
    found: dict[str, Any]
    if head.task == "regression":
        found = {"prediction": float(decision[0]) if len(decision) == 1 else decision.tolist()}
    elif head.task == "multi-label":
        found = {"prediction": [name for name, on in zip(head.output_names, decision, strict=True) if on]}
    else:
        k = int(decision)
        outputs = [0] if len(outputs) == 1 else [k]
        sure = float(score[0] if k == 1 else 1 - score[0]) if len(score) == 1 else float(score[k])
        found = {"prediction": names[k], "score": sure}
    found["outputs"] = [
        {"class": str(head.output_names[k]), "score": float(score[k]), **explain_logit(head, x, k, n)} for k in outputs
    ]
    return found
