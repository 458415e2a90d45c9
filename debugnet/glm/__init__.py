"""Sparse generalized linear models along a regularization path, certified at every point."""

from __future__ import annotations

from debugnet.glm.options import FitOptions
from debugnet.glm.path import PathFit, fit_path, iter_path

__all__ = ["FitOptions", "PathFit", "fit_path", "iter_path"]
