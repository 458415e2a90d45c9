"""Options of ``debugnet extract``."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.errors import UsageError
from debugnet.recipes.fields import option

_NETWORK = "The network"
_DATA = "The data"


def _fraction(text: str) -> float:
    """Read "0.1%" or "0.001"."""
    value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"'{text}' is not between 0 and 1 (or 0% and 100%)")
    return value


@dataclass(frozen=True)
class Extract:
    """Run a network over a data set and store the deep feature of every row.

    The feature is the input of the network's last Linear layer, checked to give its logits, unless --layer
    or --pool choose another. Images and texts go through the network's own preprocessing, without augmentation.

    A row that cannot be read keeps its place and gets a status. A run that was stopped goes on where it was when
    the same command is given again.

    Examples
    --------
    debugnet extract --backbone resnet50 --data photos/ -o runs/photos/features.h5
    debugnet extract --backbone cifar_resnet56 --weights cifar10_resnet56.th --data cifar10.npz
    debugnet extract --backbone ./my-bert --data reviews.tsv --text-column sentence --label-column label
    debugnet extract --backbone python:mynets.vision:make --weights mine.safetensors --data photos.zip
    """

    produces: ClassVar[str] = "features.h5"

    backbone: str = option(
        MISSING,
        "A torchvision name (resnet50), cifar_resnet20 … 110, a Hugging Face folder or id, "
        "python:package.module:factory, or a debugnet network folder; see debugnet list backbones.",
        in_key=False,
        kind="demo",
    )
    data: str = option(
        MISSING,
        "A folder or zip of train/CLASS/image, an .npz, a CSV/TSV/JSONL/Parquet table, torchvision:NAME, demo:NAME.",
        in_key=False,
        kind="demo",
    )
    output: Path | None = option(
        None,
        "The feature store to write (default: runs/BACKBONE-DATA/features.h5).",
        flags=("-o", "--output"),
        in_key=False,
    )

    weights: str | None = option(
        None,
        "A weights file, or a torchvision enum member such as IMAGENET1K_V2 (default: DEFAULT).",
        in_key=False,
        group=_NETWORK,
    )
    layer: str | None = option(
        None, "Module whose output is the feature (default: the input of the last Linear).", group=_NETWORK
    )
    pool: str | None = option(
        None,
        "One vector per sample: avg, max or flatten for maps; cls, mean, last or pooler for tokens.",
        choices=("avg", "max", "flatten", "cls", "mean", "last", "pooler"),
        metavar="NAME",
        group=_NETWORK,
    )
    preprocessing: str | None = option(
        None, "torchvision enum member whose preprocessing a weights file needs (default: V1).", group=_NETWORK
    )
    image_size: int | None = option(None, "Side of the image the network sees, in pixels.", group=_NETWORK)
    max_length: int | None = option(None, "Longest text in tokens (default: the network's limit).", group=_NETWORK)
    amp: str = option("off", "Mixed precision.", choices=("off", "bf16", "fp16"), group=_NETWORK)
    online: bool = option(False, "Allow downloads of weights and data.", in_key=False, group=_NETWORK)

    val: str | None = option(None, "Validation data, of the same kind as --data.", in_key=False, group=_DATA)
    test: str | None = option(None, "Test data, of the same kind as --data.", in_key=False, group=_DATA)
    text_column: tuple[str, ...] = option(
        (), "Text column(s) of a table, joined by a newline (default: found by name).", group=_DATA
    )
    label_column: str | None = option(None, "Label column of a table (default: found by name).", group=_DATA)
    label_columns: tuple[str, ...] = option((), "Several 0/1 label columns: multi-label.", group=_DATA)
    class_names: tuple[str, ...] = option((), "Names of the classes 0, 1, ... of a table or array.", group=_DATA)
    id_column: str | None = option(None, "Column with row ids (default: file name and row number).", group=_DATA)
    data_root: str = option(
        "data", "Folder of torchvision data sets (--data torchvision:NAME).", in_key=False, group=_DATA
    )
    group_column: str | None = option(None, "Column with group names, for worst-group accuracy.", group=_DATA)
    task: str = option(
        "auto",
        "What the labels are.",
        choices=("auto", "single-label", "multi-label", "regression"),
        metavar="NAME",
        group=_DATA,
    )
    val_fraction: float = option(
        0.1, "Share of train that becomes val, stratified, where there is none.", parse=_fraction, group=_DATA
    )
    seed: int = option(0, "Seed of the validation split and of --limit.", group=_DATA)
    limit: int | None = option(None, "At most so many rows per split, drawn stratified.", group=_DATA)
    class_map: Path | None = option(
        None,
        "JSON file, class of the data -> output of the network, for the network's own accuracy.",
        in_key=False,
        group=_DATA,
    )
    max_bad: float = option(
        0.001,
        "Share of unusable rows above which the file stays .partial (exit 5).",
        parse=_fraction,
        in_key=False,
        group=_DATA,
    )

    dtype: str = option("float32", "Type of the stored features.", choices=("float32", "float16"))
    batch_size: int | None = option(
        None, "Samples per batch (default: chosen; made smaller when GPU memory runs out).", in_key=False
    )
    workers: int | None = option(None, "Processes that decode images (default: chosen by the CPUs).", in_key=False)
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps.", in_key=False)

    def __post_init__(self) -> None:
        for name, smallest in (("batch_size", 1), ("workers", 0), ("limit", 1), ("image_size", 1), ("max_length", 1)):
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise UsageError(f"--{name.replace('_', '-')} {value}: must be at least {smallest}")
        if self.label_column is not None and self.label_columns:
            raise UsageError("--label-column and --label-columns: give one of them")
