"""Small feature stores for the stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stages.planted import PLANTED, planted_problem, write_store


@pytest.fixture
def planted_store(tmp_path: Path) -> Path:
    """``features.h5`` with three classes, a network head, one bad row and one constant feature."""
    features, labels = planted_problem()
    weight = np.zeros((3, 30), dtype=np.float32)
    for k, j in PLANTED.items():
        weight[k, j] = 1 / np.linspace(0.2, 5, 30)[j]
    head = (weight, np.zeros(3, dtype=np.float32))
    return write_store(
        tmp_path / "features.h5", features, labels, class_names=["ash", "birch", "cedar"], dense_head=head
    )


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Path]:
    """Write any arrays as ``features.h5`` in a fresh folder."""

    def make(features: dict[str, np.ndarray], labels: dict[str, np.ndarray], **options: Any) -> Path:
        folder = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return write_store(folder / "features.h5", features, labels, **options)

    return make
