"""Options of ``debugnet list``."""

from __future__ import annotations

from dataclasses import dataclass

from debugnet.recipes.fields import argument

#: What can be listed.
REGISTRIES = ("backbones", "datasets", "penalties", "solvers", "explainers", "stages")


@dataclass(frozen=True)
class List:
    """List the names that can be typed: one line each, with what it is.

    Examples
    --------
    debugnet list backbones
    debugnet list solvers --json
    """

    what: str = argument("One of backbones, datasets, penalties, solvers, explainers, stages.", choices=REGISTRIES)
