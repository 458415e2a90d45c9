"""Options of ``debugnet report``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option

_WHAT = "What goes in (default: whatever lies beside the head and belongs to it)"
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str) -> int:
    """Read "35MB" or "35000000" as bytes."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", text)
    if not found or found[2].upper() not in _UNITS:
        raise ValueError(f"'{text}' is no size: write 35MB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


@dataclass(frozen=True)
class Report:
    """Make the page people pass around: one HTML file that opens from disk, with no network and no server.

    It is made from artefacts only: the head, its features, and the analysis, diagnosis, pairs,
    explanations, counterfactuals and other heads found beside it.  What was not computed is not
    shown, or the page says which command computes it.  Pictures and texts come from the data the
    features were made from; where the data is gone, those kept in the explanations are shown.
    Above --max-size fewer examples are shown; --folder writes a folder without that limit.

    Examples
    --------
    debugnet report runs/cifar/head
    debugnet report runs/cifar/head --edited runs/cifar/head_edited --notes notes.yaml -o cifar.html
    debugnet report runs/imagenet/head --folder
    """

    produces: ClassVar[str] = "report.html"

    head: Path = argument("The head folder, or - to read its path from stdin.")
    output: Path | None = option(
        None, "The file to write (default: report.html beside the head; with --folder: report/).",
        flags=("-o", "--output"), in_key=False,
    )  # fmt: skip
    analysis: Path | None = option(None, "analysis/ of this head.", group=_WHAT, in_key=False, kind="analysis")
    diagnosis: Path | None = option(None, "diagnosis/ of this head.", group=_WHAT, in_key=False, kind="diagnosis")
    pairs: Path | None = option(None, "pairs/ of this head.", group=_WHAT, in_key=False, kind="pairs")
    explanations: Path | None = option(
        None, "explanations/ of this head.", group=_WHAT, in_key=False, kind="explanations"
    )
    stability: Path | None = option(None, "stability/ of this head.", group=_WHAT, in_key=False, kind="stability")
    bias: Path | None = option(None, "bias/ of this head.", group=_WHAT, in_key=False, kind="bias")
    counterfactuals: tuple[Path, ...] = option(
        (), "counterfactuals/ of this head; may be repeated.", group=_WHAT, in_key=False, multiple=True
    )
    edited: tuple[Path, ...] = option(
        (), "Other heads on the same features: compared, and their audits shown; may be repeated.", group=_WHAT,
        in_key=False, multiple=True,
    )  # fmt: skip
    split: str | None = option(None, "Samples to judge on: val, test, test/a (default: the diagnosis's, else test).")
    samples: int = option(120, "Samples with a page of their own: errors first, then right ones of every class.")
    prototypes: int = option(4, "Samples shown per tail of a feature.")
    notes: Path | None = option(
        None, "YAML with your remarks: report: TEXT, features: {12: TEXT}, classes: {cat: TEXT}.", in_key=False
    )
    title: str | None = option(None, "The page's title (default: the head's folder).")
    max_size: int = option(35_000_000, "Largest size of the file.", parse=parse_size, metavar="35MB")
    folder: bool = option(False, "Write a folder whose parts load as they are opened, whatever the size.")
    device: str = option("cpu", "Device on which the network is loaded, for its preprocessing only.", in_key=False)
    features: Path | None = option(
        None, "The feature file, if it is not where the head was made from it.", kind="features", in_key=False
    )
