"""Names a user can type, each resolved to its code only when it is used.

A registry maps a name to ``"module:Object"`` and one line of help, so that
``debugnet list`` and ``--help`` never import torch.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from debugnet.errors import UsageError


class Entry(NamedTuple):
    """One registered name."""

    target: str
    summary: str


class Registry:
    """A lazily resolved name table; registering a name twice raises.

    Parameters
    ----------
    kind : str
        What the names are, in the singular, for error messages ("solver").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, target: str, summary: str) -> None:
        """Register ``name`` for ``target`` ("package.module:Object")."""
        if name in self._entries:
            raise ValueError(f"{self.kind} '{name}' is registered twice: {self._entries[name].target} and {target}")
        self._entries[name] = Entry(target, summary)

    def target(self, name: str) -> str:
        """Return the "package.module:Object" behind ``name`` without importing it.

        Raises
        ------
        UsageError
            If the name is unknown; the message lists the close and the known names.
        """
        if name not in self._entries:
            close = difflib.get_close_matches(name, self._entries, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise UsageError(f"unknown {self.kind} '{name}': {hint}known: {', '.join(self._entries)}")
        return self._entries[name].target

    def load(self, name: str) -> Any:
        """Import and return the object behind ``name``; unknown names raise as in :meth:`target`."""
        module, _, attribute = self.target(name).partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Yield (name, entry) in the order of registration."""
        return iter(self._entries.items())


# One line per name a user can type.  Keep each block in the order users should meet it.
BACKBONES = Registry("backbone")
DATASETS = Registry("dataset")
DATASETS.add("image-folder", "debugnet.data.image_folder:load", "one folder per class, in train/ val/ test/ or alone")
DATASETS.add("image-zip", "debugnet.data.image_zip:load", "a zip file of that layout, streamed")
DATASETS.add("npz", "debugnet.data.arrays:load", "arrays x_train, y_train, x_test, y_test, or images, labels")
DATASETS.add("table", "debugnet.data.tables:load", "text in CSV, TSV, JSON Lines or Parquet, by named columns")
DATASETS.add("torchvision", "debugnet.data.torchvision_sets:load", "torchvision:NAME, a torchvision data set by its name")
DATASETS.add("demo-digits", "debugnet.data.demo_digits:load", "demo:digits, handwritten digits with a planted shortcut")
DATASETS.add("demo-reviews", "debugnet.data.demo_reviews:load", "demo:reviews, generated reviews with a planted word")
PENALTIES = Registry("penalty")
SOLVERS = Registry("solver")
EXPLAINERS = Registry("explainer")
STAGES = Registry("stage")

STAGES.add("list", "debugnet.stages.list:run", "List backbones, datasets, penalties, solvers or explainers.")
