"""Options of ``debugnet edit``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option

_CHANGE = "What to change"


@dataclass(frozen=True)
class Edit:
    """Change chosen weights of a head, and audit what that fixes and breaks.

    Features are named by index; CLASS/FEATURE names one weight.  Weights are those on standardized
    features, and a removed feature stands at its train mean for ever.  The audit counts on samples that
    did not choose the edit: the other half, or another split, than the one that edits.yaml names.
    The new folder is a head like any other, with edits.yaml (apply it again with --from) and audit.json.

    Examples
    --------
    debugnet edit runs/cifar/head --remove 12,907
    debugnet edit runs/cifar/head --scale cat/12=0.5 --set dog/40=-0.2
    debugnet edit runs/cifar/head --from runs/cifar/diagnosis/edits.yaml
    debugnet edit runs/cifar/head --from edits.yaml --refit
    """

    produces: ClassVar[str] = "head_edited"

    head: Path = argument("The head folder, or - to read its path from stdin.")
    output: Path | None = option(
        None, "The folder to write (default: head_edited beside the head).", flags=("-o", "--output"), in_key=False
    )
    remove: tuple[str, ...] = option((), "Features (12) or single weights (cat/12) to remove.", group=_CHANGE)
    scale: tuple[str, ...] = option((), "Weights to multiply (12=0.5, cat/12=0.5).", group=_CHANGE)
    set: tuple[str, ...] = option((), "Weights to replace (cat/12=0.1).", group=_CHANGE)
    from_: Path | None = option(
        None,
        "A file with edits (edits.yaml, from diagnose or by hand).",
        flags=("--from",),
        group=_CHANGE,
        in_key=False,
    )
    refit: bool = option(
        False, "Fit the layer again at the head's lambda without the removed features, instead of only dropping them.",
        group=_CHANGE,
    )  # fmt: skip
    note: str = option("", "Why; kept with the edits.", group=_CHANGE)
    audit: str | None = option(
        None, "Samples to audit on (default: what the edits were not chosen on; test, else val)."
    )
    allow_same: bool = option(False, "Audit on the very samples that chose the edits (and say so).")
    features: Path | None = option(
        None, "The feature file, if it is not where the head was made from it.", kind="features", in_key=False
    )
