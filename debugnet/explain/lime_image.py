"""LIME on superpixels: one set of perturbed images explains every deep feature of the image.

The reference runs lime once per feature, 1,000 forward passes each.  Here an image is perturbed
once, the perturbed images are composed on the device, their features stream into the sums of
:mod:`debugnet.explain.surrogate`, and all features are solved together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from debugnet.explain.forward import NotExplainable, Probe, require_finite
from debugnet.explain.superpixels import Segmenter, fill_image, segment_image
from debugnet.explain.surrogate import Moments, Surrogate, fit_surrogate, kernel_weights

KERNEL_WIDTH = 0.25


class ImagePerturber:
    """Composes perturbed copies of one image on the device.

    Parameters
    ----------
    pixels : ndarray (H, W, 3), uint8
    segments : ndarray (H, W), int
    filled : ndarray (H, W, 3), uint8
        What is seen where a segment is off.
    device : str or torch.device
    """

    def __init__(
        self, pixels: np.ndarray, segments: np.ndarray, filled: np.ndarray, device: str | torch.device = "cpu"
    ) -> None:
        def to_planes(image: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(device).float().div_(255.0)

        self.image, self.filled = to_planes(pixels), to_planes(filled)
        self.segments = torch.from_numpy(segments.astype(np.int64)).to(device)

    def compose(self, switches: np.ndarray) -> torch.Tensor:
        """Return the images (n, 3, H, W), float32 in [0, 1], with the segments of ``switches`` (n, K) kept."""
        kept = torch.from_numpy(switches).to(self.segments.device)[:, self.segments]
        return torch.where(kept[:, None], self.image, self.filled)


@dataclass
class ImageExplanation:
    """All that LIME found out about one image, for all d features.

    Attributes
    ----------
    segments : ndarray (H, W), int32
        0-based superpixels, K of them.
    activation : ndarray (d,), float32
        The features of the unperturbed image.
    moments : Moments
        Sums over the neighbourhood; :meth:`fit` solves any feature from them.
    changed : ndarray (K,), float32
        How much switching a superpixel off changes it: mean absolute difference, in [0, 1].  A
        part that looks the same when it is off shows no effect whatever it does.
    """

    segments: np.ndarray
    activation: np.ndarray
    moments: Moments
    changed: np.ndarray

    def fit(self, features: np.ndarray | None = None, *, ridge: float = 1.0) -> Surrogate:
        """Solve the local linear models of ``features`` (all by default); costs no forward pass."""
        return fit_surrogate(self.moments, features, ridge=ridge)


def draw_switches(n_parts: int, n_samples: int, seed: int) -> np.ndarray:
    """Draw lime's perturbations of an image: (n_samples, K) bool, each part kept with probability 1/2.

    The first row keeps everything.  The random stream is lime's own for
    ``LimeImageExplainer(random_state=seed)``, whose first draw seeds the segmentation.
    """
    random = np.random.RandomState(seed)
    random.randint(0, high=1000)
    switches = random.randint(0, 2, n_samples * n_parts).reshape(n_samples, n_parts).astype(bool)
    switches[0] = True
    return switches


def explain_image(
    pixels: np.ndarray,
    probe: Probe,
    *,
    n_samples: int = 1000,
    segmentation: str | Segmenter | np.ndarray = "quickshift",
    fill: str = "black",
    seed: int = 0,
    device: str | torch.device = "cpu",
    lime_compat: bool = False,
) -> ImageExplanation:
    """Explain every deep feature of one image by its superpixels.

    Parameters
    ----------
    pixels : ndarray (H, W, 3), uint8
        The image as the network sees it, resized and cropped.
    probe : Probe
        Pixels (n, 3, H, W) float32 in [0, 1] -> features (n, d).
    n_samples : int
        Perturbed images, the image itself among them.
    segmentation, fill
        See :func:`segment_image` and :func:`fill_image`.
    seed : int
        Of this image's perturbations; see :func:`debugnet.explain.forward.sample_seed`.
    device : str or torch.device
        Where the images are composed: the network's device.
    lime_compat : bool
        lime's own quickshift (see :func:`segment_image`); all else is lime's protocol anyway.

    Returns
    -------
    ImageExplanation

    Raises
    ------
    NotExplainable
        When the image has a single superpixel, or a feature is not finite.
    """
    segments = segment_image(pixels, segmentation, seed=seed, lime_compat=lime_compat)
    n_parts = int(segments.max()) + 1
    if n_parts < 2:
        raise NotExplainable(
            f"{segmentation if isinstance(segmentation, str) else 'the segmentation'} finds a single superpixel: "
            "use --segmentation grid, which always finds 49"
        )
    filled = fill_image(pixels, segments, fill, seed=seed)
    perturber = ImagePerturber(pixels, segments, filled, device)
    difference = np.abs(pixels.astype(np.float64) - filled).mean(axis=2) / 255
    changed = (np.bincount(segments.ravel(), difference.ravel()) / np.bincount(segments.ravel())).astype(np.float32)
    switches = draw_switches(n_parts, n_samples, seed)
    weights = kernel_weights(switches, KERNEL_WIDTH)
    halves = np.stack([np.arange(n_samples) % 2 == 0, np.arange(n_samples) % 2 == 1]).astype(np.float64)
    found: list[ImageExplanation] = []

    def receive(start: int, stop: int, answers: np.ndarray) -> None:
        require_finite(answers)
        if not found:
            moments = Moments.of_switches(switches, weights, halves, answers.shape[1])
            found.append(ImageExplanation(segments, answers[0].copy(), moments, changed))
        rows = slice(start, stop)
        relative = answers.astype(np.float64) - found[0].activation
        found[0].moments.add(switches[rows], weights[rows], halves[:, rows], relative)

    probe.run(lambda start, stop: perturber.compose(switches[start:stop]), n_samples, receive)
    return found[0]
