"""A decision layer as the studies see it: one row and one probability per class."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from debugnet.heads import LinearHead


def class_weights(head: LinearHead) -> np.ndarray:
    """Standardized weights (K, d); a one-row head gives its mirror image to the first class."""
    import numpy as np

    weight = head.standardized_weight
    return np.concatenate([-weight, weight]) if len(weight) == 1 else weight


def class_scores(head: LinearHead, X: np.ndarray) -> np.ndarray:
    """Scores (n, K) of raw features (n, d)."""
    import numpy as np

    scores = head.logits(X)
    return np.hstack([-scores, scores]) if scores.shape[1] == 1 else scores


def class_probabilities(head: LinearHead, X: np.ndarray) -> np.ndarray:
    """Probabilities (n, K) of raw features (n, d)."""
    import numpy as np

    from debugnet.analysis.contributions import probabilities

    if len(head.weight) == 1:
        positive = probabilities(head.logits(X), "binomial")
        return np.hstack([1 - positive, positive])
    return probabilities(head.logits(X), head.family)


def log_odds(head: LinearHead, X: np.ndarray) -> np.ndarray:
    """Log-odds (n, K) of each class against all others."""
    import numpy as np

    p = np.clip(class_probabilities(head, X), 1e-300, 1.0)
    with np.errstate(divide="ignore"):
        others = np.log(np.maximum(1.0 - p, 1e-300))
    return np.asarray(np.log(p) - others)
