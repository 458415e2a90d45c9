"""Data of the tests of whole commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """scikit-learn's digits as images: 700 to train on, 300 to test."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    images = np.clip(X.reshape(-1, 8, 8) * 16, 0, 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, x_train=images[:700], y_train=y[:700], x_test=images[700:1000], y_test=y[700:1000])
    return path
