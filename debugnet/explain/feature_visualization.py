"""Images that drive a feature as high, or as low, as the network lets them.

For standard networks the image is the inverse Fourier transform of a spectrum, in decorrelated
colours, and is judged under small random shifts, turns and scalings (Olah, Mordvintsev &
Schubert, "Feature Visualization", Distill 2017; constants as in lucid).  For adversarially robust
networks plain normalized gradient ascent on the pixels is enough (Engstrom et al. 2019).  Why
not a library: docs/architecture.md, "Dependencies".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from debugnet.errors import UsageError
from debugnet.explain.forward import sample_seed

PRESETS = {"draft": 64, "standard": 512, "fine": 2048}
"""Steps of each preset; the paper's figure is 512."""
PARAMETRIZATIONS = ("fourier", "pixel")
_REFERENCE_SIDE = 224
# Square root of the colour covariance of ImageNet (lucid's constant): columns mix three
# uncorrelated channels into red, green and blue.
_COLOUR_MIX = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
MIN_PERCENTILE = 50.0
Unit = tuple[int, str]


@dataclass(frozen=True)
class Visualization:
    """One optimized image.

    Attributes
    ----------
    feature : int
    side : str
        "positive" (maximized) or "negative" (minimized).
    image : ndarray (H, W, 3), uint8
    activation : float
        What the feature is on ``image`` as it is stored, unshifted and rounded to 8 bits.
    percentile : float
        Percent of the data that the image beats: 100 means that it drives the feature beyond
        every sample.  NaN until :func:`compare_with_data`.
    failed : str or None
        Why this is no picture of the feature; such an image must not be shown as one.
    """

    feature: int
    side: str
    image: np.ndarray
    activation: float
    percentile: float
    failed: str | None


class FourierImage:
    """A batch of images as spectra: (n, 3, H, W) in [0, 1] from unbounded parameters."""

    def __init__(self, seeds: Sequence[int], side: int, device: torch.device | str) -> None:
        frequency = torch.sqrt(torch.fft.fftfreq(side)[:, None] ** 2 + torch.fft.rfftfreq(side)[None] ** 2)
        # 1/f makes all frequencies of a natural image equally easy to change.
        self.scale = (1.0 / frequency.clamp(min=1.0 / side)).to(device)
        self.side = side
        shape = (3, *frequency.shape, 2)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self.parameters = (0.01 * torch.stack(noise)).to(device).requires_grad_()
        mix = torch.tensor(_COLOUR_MIX)
        self.mix = (mix / mix.norm(dim=0).max()).to(device)

    def images(self) -> Tensor:
        """Render the batch."""
        spectrum = torch.view_as_complex(self.parameters) * self.scale
        planes = torch.fft.irfft2(spectrum, s=(self.side, self.side), norm="ortho") / 4.0
        return torch.sigmoid(torch.einsum("rc,nchw->nrhw", self.mix, planes))


def transform_randomly(images: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Shift (up to 12 pixels of 224), turn (10 degrees) and scale (10 %) each image by its generator, on grey."""
    n = len(images)
    shift, angle, zoom = (2 * torch.stack([torch.rand(4, generator=g) for g in generators]) - 1).split((2, 1, 1), 1)
    angle, zoom = torch.deg2rad(10 * angle[:, 0]), 1 / (1 + 0.1 * zoom[:, 0])
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(n, 2, 2)
    theta = torch.cat([rotation * zoom[:, None, None], (shift * 2 * 12 / _REFERENCE_SIDE)[:, :, None]], dim=2)
    grid = functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return functional.grid_sample(images - 0.5, grid, align_corners=False) + 0.5


def visualize_features(
    features: Callable[[Tensor], Tensor],
    units: Sequence[Unit],
    *,
    side: int,
    steps: int = PRESETS["standard"],
    parametrization: str = "fourier",
    seed: int = 0,
    device: torch.device | str = "cpu",
    learning_rate: float = 0.05,
    on_step: Callable[[], None] = lambda: None,
) -> list[Visualization]:
    """Optimize a batch of images, one per (feature, side).

    Parameters
    ----------
    features : callable
        Pixels (n, 3, side, side), float32 in [0, 1] -> features (n, d), differentiable.
    units : sequence of (int, str)
        Feature index and "positive" (maximize) or "negative" (minimize).
    side : int
        Height and width of the network's input, pixels; any.
    steps : int
        Gradient steps; see :data:`PRESETS`.
    parametrization : str
        "fourier", with decorrelated colours and random transformations, or "pixel".
    seed : int
        What is random for a unit derives from it and the unit, not from the batch.
    device : str or torch.device
    learning_rate : float
        Adam's for "fourier"; for "pixel" 20 times it is the l2 length of a step at 224 pixels.
    on_step : callable
        Called after every step, for progress.

    Returns
    -------
    list of Visualization
        In the order of ``units``; a unit that cannot be driven is marked failed.

    Raises
    ------
    UsageError
        Unknown parametrization.
    """
    if parametrization not in PARAMETRIZATIONS:
        raise UsageError(f"unknown parametrization '{parametrization}': known: {', '.join(PARAMETRIZATIONS)}")
    columns = torch.tensor([j for j, _ in units], device=device)
    signs = torch.tensor([1.0 if s == "positive" else -1.0 for _, s in units], device=device)
    seeds = [sample_seed(seed, f"{j} {s}") for j, s in units]

    def objective(images: Tensor) -> Tensor:
        return signs * features(images).gather(1, columns[:, None])[:, 0]

    ascend = _ascend_fourier if parametrization == "fourier" else _ascend_pixels
    with torch.enable_grad():
        images, driven = ascend(objective, seeds, side, steps, learning_rate, device, on_step)
    stored = (images.detach() * 255).round().clamp(0, 255).to(torch.uint8)
    with torch.no_grad():
        reached = (signs * objective(stored.float() / 255)).cpu().numpy()
    pictures = stored.permute(0, 2, 3, 1).cpu().numpy()
    return [
        _judge(unit, picture, float(value), bool(moved))
        for unit, picture, value, moved in zip(units, pictures, reached, driven, strict=True)
    ]


def _ascend_fourier(
    objective: Callable[[Tensor], Tensor],
    seeds: Sequence[int],
    side: int,
    steps: int,
    learning_rate: float,
    device: torch.device | str,
    on_step: Callable[[], None],
) -> tuple[Tensor, np.ndarray]:
    canvas = FourierImage(seeds, side, device)
    _leave_flat_ground(objective, canvas, seeds)
    generators = [torch.Generator().manual_seed(seed + 100) for seed in seeds]  # clear of the starts' seeds
    optimizer = torch.optim.Adam([canvas.parameters], lr=learning_rate)
    driven = np.zeros(len(seeds), dtype=bool)
    for _ in range(steps):
        optimizer.zero_grad()
        (-objective(transform_randomly(canvas.images(), generators)).sum()).backward()
        assert canvas.parameters.grad is not None
        driven |= (canvas.parameters.grad.abs().amax(dim=(1, 2, 3, 4)) > 0).cpu().numpy()
        optimizer.step()
        on_step()
    return canvas.images(), driven


def _leave_flat_ground(objective: Callable[[Tensor], Tensor], canvas: FourierImage, seeds: Sequence[int]) -> None:
    """Draw units whose gradient is zero at the start (behind a ReLU) anew, stronger and with a tint, up to 12 times."""
    for attempt in range(12):
        (gradient,) = torch.autograd.grad(objective(canvas.images()).sum(), canvas.parameters)
        flat = torch.nonzero(gradient.abs().amax(dim=(1, 2, 3, 4)) == 0)[:, 0].tolist()
        for i in flat:
            generator = torch.Generator().manual_seed(seeds[i] + attempt + 1)
            noise = 0.1 * 4.0 ** (attempt % 3) * torch.randn(canvas.parameters.shape[1:], generator=generator)
            noise[:, 0, 0] *= 10
            with torch.no_grad():
                canvas.parameters[i] = noise.to(canvas.parameters.device)
        if not flat:
            return


def _ascend_pixels(
    objective: Callable[[Tensor], Tensor],
    seeds: Sequence[int],
    side: int,
    steps: int,
    learning_rate: float,
    device: torch.device | str,
    on_step: Callable[[], None],
) -> tuple[Tensor, np.ndarray]:
    noise = [torch.randn(3, side, side, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    images = (0.5 + 0.05 * torch.stack(noise)).clamp(0, 1).to(device)
    driven = np.zeros(len(seeds), dtype=bool)
    step_length = 20 * learning_rate * side / _REFERENCE_SIDE
    for _ in range(steps):
        images.requires_grad_()
        (gradient,) = torch.autograd.grad(objective(images).sum(), images)
        length = gradient.flatten(1).norm(dim=1)[:, None, None, None]
        driven |= (length.flatten() > 0).cpu().numpy()
        images = (images.detach() + step_length * gradient / length.clamp(min=1e-30)).clamp(0, 1)
        on_step()
    return images, driven


def _judge(unit: Unit, picture: np.ndarray, activation: float, driven: bool) -> Visualization:
    failed = None
    if not np.isfinite(activation):
        failed = "the feature is not finite on the image"
    elif not driven:
        failed = "no gradient reaches the image: a dead unit"
    return Visualization(*unit, picture, activation, float("nan"), failed)


def compare_with_data(found: Visualization, activations: np.ndarray) -> Visualization:
    """Fill in the percentile of the data that an image beats; one below the median has failed.

    Parameters
    ----------
    found : Visualization
    activations : ndarray (n,)
        The same feature on real samples, in the same coordinates; NaN are left out.
    """
    known = activations[np.isfinite(activations)]
    if not len(known) or not np.isfinite(found.activation):
        return found
    beaten = known < found.activation if found.side == "positive" else known > found.activation
    percentile = 100.0 * float(beaten.mean())
    failed = found.failed
    if failed is None and percentile < MIN_PERCENTILE:
        failed = f"the image stays within the data: it beats only {percentile:.0f} % of the samples"
    return replace(found, percentile=percentile, failed=failed)
