"""From an image to what the network sees: geometry on the CPU, normalization on the device."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from debugnet.errors import InputError

# Written with Pillow alone: importing torchvision would cost every worker process seconds.
_PIL_INTERPOLATION = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImagePreprocessing:
    """Resize the shorter side, crop the centre, normalize: the steps of torchvision's presets.

    Attributes
    ----------
    resize_size, crop_size : int
        Pixels.
    mean, std : tuple of float
        Per channel, for pixels in [0, 1].
    interpolation : str
        A torchvision ``InterpolationMode`` value ("bilinear", "bicubic").
    """

    resize_size: int
    crop_size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"

    @classmethod
    def of_preset(cls, preset: Any) -> ImagePreprocessing:
        """Read the parameters of a torchvision ``ImageClassification`` preset."""
        return cls(
            preset.resize_size[0],
            preset.crop_size[0],
            tuple(preset.mean),
            tuple(preset.std),
            preset.interpolation.value,
        )

    def at_size(self, crop_size: int | None) -> ImagePreprocessing:
        """Keep the ratio of resize to crop at another image size (None changes nothing)."""
        if crop_size is None:
            return self
        resize_size = round(self.resize_size * crop_size / self.crop_size)
        return dataclasses.replace(self, resize_size=resize_size, crop_size=crop_size)

    def to_pixels(self, image: Any) -> Tensor:
        """Resize and crop one image.

        Parameters
        ----------
        image : PIL.Image or ndarray (H, W) or (H, W, 3), uint8

        Returns
        -------
        Tensor (crop_size, crop_size, 3), uint8
        """
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8:
                raise InputError(f"image array of dtype {image.dtype} {image.shape}: pixels must be uint8")
            image = Image.fromarray(image.squeeze())
        image = image if image.mode == "RGB" else image.convert("RGB")
        width, height = image.size
        shorter = min(width, height)
        if shorter != self.resize_size:  # as torchvision: the longer side is rounded down
            size = tuple(self.resize_size * side // shorter for side in image.size)
            image = image.resize(size, _PIL_INTERPOLATION[self.interpolation])
            width, height = size
        left, top = round((width - self.crop_size) / 2), round((height - self.crop_size) / 2)
        return torch.from_numpy(np.array(image.crop((left, top, left + self.crop_size, top + self.crop_size))))

    def normalize(self, pixels: Tensor) -> Tensor:
        """Normalize pixels (n, 3, H, W), float in [0, 1], to the network's input; differentiable."""
        shape = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, dtype=pixels.dtype, device=pixels.device).reshape(shape)
        std = torch.tensor(self.std, dtype=pixels.dtype, device=pixels.device).reshape(shape)
        return (pixels - mean) / std
