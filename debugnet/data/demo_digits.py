"""Real handwritten digits with a planted shortcut, for demonstrations and for tests with a known answer.

The images are scikit-learn's 1,797 digits (8 x 8, part of the UCI optical recognition set, inside the package, no
download), enlarged to 32 x 32.  The shortcut is an orange square in the lower right corner.  In train it lies on a
share of the images of one class and on no other; in test it lies on a share of the images of every class alike.  A
network that took the square for a sign of its class is therefore wrong on test images of other classes that carry it,
and the groups (class, with or without the square) measure by how much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from debugnet.data.arrays import ArraySource
from debugnet.data.dataset import Dataset, DatasetSplits
from debugnet.data.demo_options import demo_options
from debugnet.data.spec import DataSpec
from debugnet.data.splits import draw
from debugnet.errors import UsageError

SIZE = 32
CLASS_NAMES = tuple("0123456789")
#: top, left, bottom, right in pixels; bottom and right are outside.
PATCH_BOX = (26, 26, 31, 31)
PATCH_COLOUR = (255, 140, 0)
N_TEST = 500


@dataclass(frozen=True)
class DigitsPlan:
    """What to plant.

    Attributes
    ----------
    seed : int
        Seeds the division into train and test and the choice of the images.
    shortcut_class : int
        The class that the square goes with in train.
    shortcut_share : float
        Share of that class's train images with the square, in [0, 1]; 0 plants nothing.
    test_share : float
        Share of the test images with the square, the same in every class.
    """

    seed: int = 0
    shortcut_class: int = 3
    shortcut_share: float = 0.9
    test_share: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.shortcut_class <= 9:
            raise UsageError(f"shortcut class {self.shortcut_class}: the digits are 0 to 9")
        for name in ("shortcut_share", "test_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name.replace('_', ' ')} {getattr(self, name)}: give a fraction from 0 to 1")


@dataclass(frozen=True)
class DigitsSplit:
    """One split of the digits.

    Attributes
    ----------
    images : ndarray (n, 32, 32, 3), uint8
    labels : ndarray (n,), int64
    patched : ndarray (n,), bool
        Which images carry the square.
    digit_rows : ndarray (n,), int64
        Row of ``sklearn.datasets.load_digits`` behind each image.
    """

    images: np.ndarray
    labels: np.ndarray
    patched: np.ndarray
    digit_rows: np.ndarray

    @property
    def groups(self) -> np.ndarray:
        """(n,) int64: 2 class + patched; named by :func:`group_names`."""
        return np.asarray(2 * self.labels + self.patched)


def patch_mask() -> np.ndarray:
    """Return the (32, 32) bool mask of the square's pixels."""
    top, left, bottom, right = PATCH_BOX
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def group_names() -> list[str]:
    """Return the names of the 20 groups."""
    return [f"{name}{suffix}" for name in CLASS_NAMES for suffix in ("", " + patch")]


def with_patch(images: np.ndarray) -> np.ndarray:
    """Return a copy of images (n, 32, 32, 3) uint8 with the square on every one."""
    patched: np.ndarray = images.copy()
    patched[:, patch_mask()] = PATCH_COLOUR
    return patched


def clean_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits as images (1797, 32, 32, 3) uint8, and labels (1797,) int64.

    Each 8 x 8 image is enlarged to 24 x 24 (bicubic) and framed in black, 2 pixels wide above and to the left, 6
    below and to the right: the corner where the square may lie is black in every one.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.zeros((len(pixels), SIZE, SIZE, 3), dtype=np.uint8)
    for image, row in zip(images, pixels, strict=True):
        small = Image.fromarray((row.reshape(8, 8) * (255 / 16)).round().astype(np.uint8))
        image[2:26, 2:26] = np.asarray(small.resize((24, 24), Image.Resampling.BICUBIC))[..., None]
    return images, labels.astype(np.int64)


def make_digits(plan: DigitsPlan) -> dict[str, DigitsSplit]:
    """Make the splits "train" (1,297 images) and "test" (500), stratified by class.

    Parameters
    ----------
    plan : DigitsPlan
        What to plant; the same plan gives the same bytes.
    """
    images, labels = clean_digits()
    in_test = np.zeros(len(labels), dtype=bool)
    in_test[draw(labels, N_TEST, plan.seed)] = True
    splits = {}
    for name, rows in (("train", np.flatnonzero(~in_test)), ("test", np.flatnonzero(in_test))):
        own = labels[rows]
        if name == "train":
            candidates = np.flatnonzero(own == plan.shortcut_class)
            chosen = candidates[draw(own[candidates], round(plan.shortcut_share * len(candidates)), plan.seed + 1)]
        else:
            chosen = draw(own, round(plan.test_share * len(rows)), plan.seed + 2)
        patched = np.zeros(len(rows), dtype=bool)
        patched[chosen] = True
        pictures = images[rows]
        pictures[patched] = with_patch(pictures[patched])
        splits[name] = DigitsSplit(pictures, own, patched, rows)
    return splits


def digits_truth(plan: DigitsPlan, splits: dict[str, DigitsSplit]) -> dict[str, Any]:
    """Return, JSON-able, all there is to find: class, position, colour and the rows that carry the square."""
    return {
        "kind": "digits",
        "seed": plan.seed,
        "shortcut_class": plan.shortcut_class,
        "shortcut_class_name": CLASS_NAMES[plan.shortcut_class],
        "shortcut_share": plan.shortcut_share,
        "test_share": plan.test_share,
        "patch_box": list(PATCH_BOX),
        "patch_colour": list(PATCH_COLOUR),
        "image_size": SIZE,
        "patched_rows": {name: np.flatnonzero(split.patched).tolist() for name, split in splits.items()},
        "group_names": group_names(),
    }


def digits_arrays(splits: dict[str, DigitsSplit]) -> dict[str, np.ndarray]:
    """Return the arrays of the ``.npz`` file that ``debugnet extract --data`` reads."""
    arrays = {"classes": np.array(CLASS_NAMES), "group_names": np.array(group_names()), "patch_mask": patch_mask()}
    for name, split in splits.items():
        arrays |= {f"x_{name}": split.images, f"y_{name}": split.labels, f"groups_{name}": split.groups}
    return arrays


def load(spec: DataSpec) -> DatasetSplits:
    """Load ``demo:digits``; options follow a question mark: ``demo:digits?shortcut_share=0.5&test_share=0.2``."""
    plan = demo_options(spec, replace(DigitsPlan(), seed=spec.seed))
    datasets = {
        name: Dataset(
            ArraySource(split.images),
            np.arange(len(split.labels)),
            [f"digits/{row}" for row in split.digit_rows],
            split.labels,
            groups=split.groups,
        )
        for name, split in make_digits(plan).items()
    }
    return DatasetSplits(datasets, list(CLASS_NAMES), "single-label", "image", spec, group_names())
