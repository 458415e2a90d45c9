"""Forward passes for explanations: batched, counted, halved when the device runs out of memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from debugnet.errors import DeviceError

Features = Callable[[Any], torch.Tensor]
"""A batch (pixels (n, 3, H, W) in [0, 1], or a list of n texts) -> features (n, d)."""


class NotExplainable(Exception):
    """One sample has no explanation, for the reason given; the others go on."""


def require_finite(answers: np.ndarray) -> np.ndarray:
    """Return the features (n, d), or raise NotExplainable when one is NaN or infinite."""
    if not np.isfinite(answers).all():
        raise NotExplainable("the network's features are not finite (NaN or infinity) on it or near it")
    return answers


def sample_seed(run_seed: int, sample_id: str) -> int:
    """Return the seed of one sample's perturbations: the same in any order, alone or among others."""
    digest = hashlib.sha256(f"{run_seed}\0{sample_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1  # scikit-image takes 31 bits


class Probe:
    """A network's features, asked in batches.

    Parameters
    ----------
    features : callable
        Batch -> tensor (n, d).
    batch_size : int
        Largest batch; halved, for good, when the device runs out of memory.

    Attributes
    ----------
    n_forwards : int
        Samples pushed through the network so far.
    """

    def __init__(self, features: Features, batch_size: int = 64) -> None:
        self.features = features
        self.batch_size = batch_size
        self.n_forwards = 0

    def run(self, compose: Callable[[int, int], Any], n: int, receive: Callable[[int, int, np.ndarray], None]) -> None:
        """Push ``n`` perturbed samples through the network.

        Parameters
        ----------
        compose : callable
            (start, stop) -> the batch of these rows.
        n : int
        receive : callable
            (start, stop, features (stop - start, d) float32 ndarray): called once per batch.

        Raises
        ------
        DeviceError
            Out of memory with a single sample.
        """
        start = 0
        while start < n:
            stop = min(start + self.batch_size, n)
            try:
                with torch.inference_mode():
                    answers = self.features(compose(start, stop)).float().cpu().numpy()
            except torch.OutOfMemoryError:
                self._halve()
                continue
            self.n_forwards += stop - start
            receive(start, stop, answers)
            start = stop

    def collect(self, compose: Callable[[int, int], Any], n: int) -> np.ndarray:
        """Run, and return all the features (n, d) float32: for few rows only."""
        parts: list[np.ndarray] = []
        self.run(compose, n, lambda start, stop, answers: parts.append(answers))
        return np.concatenate(parts)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Features (n, d) of texts, each distinct one pushed once, those of similar length together.

        The longest go first, so that running out of memory shows at once.
        """
        ordered = sorted(dict.fromkeys(texts), key=len, reverse=True)
        row = {text: i for i, text in enumerate(ordered)}
        answers = self.collect(lambda start, stop: ordered[start:stop], len(ordered))
        return answers[[row[text] for text in texts]]

    def _halve(self) -> None:
        if self.batch_size == 1:
            raise DeviceError(
                "the device runs out of memory with a single sample: use a smaller network or input, or --device cpu"
            )
        self.batch_size //= 2
        torch.cuda.empty_cache()
