"""A scikit-learn classifier around the path fit, for people who bring their own features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from debugnet.errors import DebugnetError
from debugnet.glm.path import fit_path
from debugnet.heads import LinearHead
from debugnet.regularization_path import RegularizationPath


class SparseDecisionLayer(ClassifierMixin, BaseEstimator):
    """Sparse linear classifier: one lambda, or the sparsest point of a path that is accurate enough.

    With ``lam=None`` a part of each class is held out, the path is fitted on the rest, the
    sparsest point whose held-out accuracy is within ``drop`` of the best is selected (the paper's
    D.1.1), and that lambda is fitted again on all rows.

    Parameters
    ----------
    lam : float, optional
        Regularization strength; None selects it on held-out rows.
    l1_ratio : float
        Mix of the elastic net, in (0, 1].
    penalty : {"elastic_net", "group_lasso"}
    family : {"multinomial", "binomial"}
        Softmax, or one-vs-rest (one row for two classes).  Multi-label y is always binomial.
    drop : float
        Accuracy given up for sparsity, a fraction (0.05 = 5 percentage points).
    validation_fraction : float
        Share of each class held out for the selection.
    n_lambdas, lambda_min_ratio, tol, solver, penalty_factor, nonnegative, fit_intercept, standardize, device
        As in :class:`debugnet.glm.FitOptions`.
    random_state : int
        Seed of the split and of the solver.

    Attributes
    ----------
    classes_ : ndarray (K,)
    coef_ : ndarray (K, d) or (1, d), float64
        Raw-feature coordinates; exact zeros off the support.
    intercept_ : ndarray (K,) or (1,), float64
    lam_ : float
        The lambda of ``coef_``.
    path_ : RegularizationPath
        The path the lambda was selected on (with ``val`` metrics), or the one point fitted.
    head_ : LinearHead
        The same layer as the rest of debugnet uses it.
    """

    def __init__(
        self,
        *,
        lam: float | None = None,
        l1_ratio: float = 0.99,
        penalty: str = "elastic_net",
        family: str = "multinomial",
        drop: float = 0.05,
        validation_fraction: float = 0.1,
        n_lambdas: int = 100,
        lambda_min_ratio: float = 1e-3,
        tol: float = 1e-6,
        solver: str = "auto",
        penalty_factor: Sequence[float] | None = None,
        nonnegative: bool = False,
        fit_intercept: bool = True,
        standardize: bool = True,
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        self.lam = lam
        self.l1_ratio = l1_ratio
        self.penalty = penalty
        self.family = family
        self.drop = drop
        self.validation_fraction = validation_fraction
        self.n_lambdas = n_lambdas
        self.lambda_min_ratio = lambda_min_ratio
        self.tol = tol
        self.solver = solver
        self.penalty_factor = penalty_factor
        self.nonnegative = nonnegative
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SparseDecisionLayer:
        """Fit on X (n, d) and labels y (n,) of any type, or 0/1 y (n, K).

        Raises
        ------
        ValueError
            Where :func:`debugnet.glm.fit_path` refuses the input.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32, np.float16], multi_output=True)
        check_classification_targets(y)
        self._multi_label = type_of_target(y).startswith("multilabel")
        if self._multi_label:
            encoded = np.asarray(y)
            self.classes_ = np.arange(encoded.shape[1])
        else:
            self.classes_, encoded = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        try:
            self._fit(X, encoded, sample_weight)
        except DebugnetError as refusal:
            raise ValueError(str(refusal)) from refusal
        return self

    def _fit(self, X: np.ndarray, y: np.ndarray, sample_weight: Any) -> None:
        lam = self.lam
        if lam is None:
            self.path_ = self._fit_path(X, y, sample_weight)
            lam = float(self.path_.lam[_sparsest_within(self.path_, self.drop)])
        options = {**self._options(), "sample_weight": sample_weight, "lambdas": lam}
        refit = fit_path(X, y, **options)
        self.path_ = refit if self.lam is not None else self.path_
        self.lam_ = lam
        self.coef_, self.intercept_ = refit.raw(0)
        self.head_ = LinearHead(
            weight=self.coef_,
            bias=self.intercept_,
            standardizer=refit.standardizer,
            family=refit.meta["family"],
            class_names=[str(c) for c in self.classes_],
            task=refit.meta["task"],
            meta={"lam": lam, "status": refit.status[0], "duality_gap": float(refit.duality_gap[0])},
        )

    def _fit_path(self, X: np.ndarray, y: np.ndarray, sample_weight: Any) -> RegularizationPath:
        held_out = _hold_out(y, self.validation_fraction, self.random_state)
        validation = (X, y, held_out if held_out.any() else ~held_out)
        return fit_path(
            X,
            y,
            rows=~held_out,
            validation=validation,
            sample_weight=sample_weight,
            n_lambdas=self.n_lambdas,
            lambda_min_ratio=self.lambda_min_ratio,
            **self._options(),
        )

    def _options(self) -> dict[str, Any]:
        return {
            "family": "binomial" if self._multi_label else self.family,
            "penalty": self.penalty,
            "l1_ratio": self.l1_ratio,
            "tol": self.tol,
            "solver": self.solver,
            "penalty_factor": self.penalty_factor,
            "nonnegative": self.nonnegative,
            "fit_intercept": self.fit_intercept,
            "standardize": self.standardize,
            "device": self.device,
            "seed": self.random_state,
        }

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores (n, K); (n,) for two classes, positive where the second is preferred."""
        scores = self._scores(X)
        if self._multi_label or len(self.classes_) > 2:
            return scores
        return scores[:, -1] - scores[:, 0] if scores.shape[1] == 2 else scores[:, 0]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities (n, K); for multi-label y the probability of each label."""
        scores = self._scores(X)
        if self._multi_label:
            return expit(scores)
        if self.head_.family == "multinomial":
            return softmax(scores, axis=1)
        positive = expit(scores)
        if positive.shape[1] == 1:
            return np.hstack([1 - positive, positive])
        return positive / positive.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """Labels (n,) as given to :meth:`fit`, or 0/1 (n, K)."""
        scores = self._scores(X)
        if self._multi_label:
            return (scores > 0).astype(np.int64)
        index = (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(axis=1)
        return self.classes_[index]

    def _scores(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self.head_.logits(validate_data(self, X, dtype=[np.float64, np.float32, np.float16], reset=False))


def _hold_out(y: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Boolean (n,): ``fraction`` of every class (of every combination of labels), seeded."""
    generator = np.random.default_rng(seed)
    _, group = np.unique(y, axis=0, return_inverse=True)
    held = np.zeros(len(y), dtype=bool)
    for g in range(group.max() + 1):
        members = generator.permutation(np.flatnonzero(group.ravel() == g))
        held[members[: int(fraction * len(members))]] = True
    return held


def _sparsest_within(path: RegularizationPath, drop: float) -> int:
    """Index of the sparsest point whose held-out accuracy is at least the best minus ``drop``."""
    accuracy = path.metrics["val"]["accuracy"]
    good = np.flatnonzero(accuracy >= accuracy.max() - drop - 1e-12)
    return int(good[np.argmin(path.nnz[good])])
