"""Sparse decision layers for deep networks: fit them fast, read them, and debug with them.

The names below are imported when they are first used, so ``import debugnet`` costs nothing; they
are the same objects as in their own modules.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from debugnet.artifacts.feature_store import load_features as load_features
    from debugnet.artifacts.head_store import load_head as load_head
    from debugnet.artifacts.path_store import load_path as load_path
    from debugnet.errors import DebugnetError as DebugnetError
    from debugnet.glm import fit_path as fit_path
    from debugnet.glm import iter_path as iter_path
    from debugnet.heads import LinearHead as LinearHead
    from debugnet.regularization_path import PathPoint as PathPoint
    from debugnet.regularization_path import RegularizationPath as RegularizationPath
    from debugnet.standardization import Standardizer as Standardizer

_PUBLIC = {
    "load_features": "debugnet.artifacts.feature_store",
    "load_head": "debugnet.artifacts.head_store",
    "load_path": "debugnet.artifacts.path_store",
    "DebugnetError": "debugnet.errors",
    "fit_path": "debugnet.glm",
    "iter_path": "debugnet.glm",
    "LinearHead": "debugnet.heads",
    "PathPoint": "debugnet.regularization_path",
    "RegularizationPath": "debugnet.regularization_path",
    "Standardizer": "debugnet.standardization",
}

__all__ = [*_PUBLIC, "__version__"]  # noqa: PLE0604 (all are strings)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("debugnet")
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'debugnet' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
