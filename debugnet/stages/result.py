"""What every stage gives back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """The outcome of a stage.

    Attributes
    ----------
    path : Path or None
        The artefact; None for a stage that only tells (list, inspect).
    summary : mapping
        What ``--json`` prints, beside ``path`` and ``reused``: JSON-able (numpy scalars and
        arrays are converted, NaN and infinities become null).
    reused : bool
        The artefact was there already, made from the same inputs with the same options.
    text : str
        What a person wants to read: a few lines or a table.  It goes to stderr, or to stdout
        where there is no path.
    """

    path: Path | None
    summary: Mapping[str, Any] = field(default_factory=dict)
    reused: bool = False
    text: str = ""

    def document(self) -> str:
        """Return the one JSON document of ``--json``: strict JSON, keys in order."""
        head = {"path": None if self.path is None else str(self.path), "reused": self.reused}
        return json.dumps(head | plain_data(self.summary), indent=2, allow_nan=False)


def describe_share(row: Mapping[str, Any]) -> str:
    """Write a record of `analysis.intervals.proportion`: "19.3% [16.6%, 22.3%] of 721"."""
    if not row["n"]:
        return "n/a"
    low, high = row["interval"]
    return f"{row['value']:.1%} [{low:.1%}, {high:.1%}] of {row['n']}"


def plain_data(value: Any) -> Any:
    """Turn mappings, sequences, paths, numpy scalars and arrays into what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(k): plain_data(v) for k, v in value.items()}
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_data(v) for v in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays, torch tensors
        return plain_data(value.tolist())
    return str(value)
