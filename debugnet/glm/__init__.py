"""Sparse generalized linear models along a regularization path, certified at every point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from debugnet.glm.options import FitOptions
from debugnet.glm.path import PathFit, fit_path, iter_path

if TYPE_CHECKING:
    from debugnet.glm.estimator import SparseDecisionLayer

__all__ = ["FitOptions", "PathFit", "SparseDecisionLayer", "fit_path", "iter_path"]


def __getattr__(name: str) -> Any:
    """Import the estimator only when asked for: scikit-learn costs seconds."""
    if name == "SparseDecisionLayer":
        from debugnet.glm.estimator import SparseDecisionLayer

        return SparseDecisionLayer
    raise AttributeError(f"module 'debugnet.glm' has no attribute '{name}'")
