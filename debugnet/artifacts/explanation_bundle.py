"""Reading ``explanations/``: what each feature reads, with its evidence and its pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from debugnet.artifacts.bundle import load_arrays, read_json, read_records
from debugnet.artifacts.provenance import read_manifest
from debugnet.errors import InputError
from debugnet.html_table import html_table

SIDES = ("positive", "negative")
METHODS = ("prototypes", "lime", "words", "visualization")
INDEX = "index.json"


def record_key(method: str, feature: int, side: str) -> str:
    """Key of the record of one method, feature and side."""
    return f"{method}:{feature}:{side}"


class ExplanationBundle:
    """A finished ``explanations/`` folder.

    Effects and activations are in standard deviations of the feature over the train rows;
    the positive side of a feature is what raises it, the negative side what lowers it.

    Attributes
    ----------
    path : Path
    index : dict
        ``index.json``: modality, methods, summary, and ``features`` with the classes
        that use each and its sides.
    """

    def __init__(self, path: Path, index: dict[str, Any]) -> None:
        self.path = path
        self.index = index

    def _repr_html_(self) -> str:
        rows = [
            (
                feature,
                ", ".join(f"{w:+.3g} {name}" for name, w in self._entry(feature)["classes"].items()),
                *self._cloud(feature),
            )
            for feature in self.features[:20]
        ]
        facts = {
            "modality": self.index["modality"],
            "features": len(self.features),
            "methods": ", ".join(self.index["methods"]),
        }
        return html_table("ExplanationBundle", facts, ("feature", "classes", "raised by", "lowered by"), rows)

    def _cloud(self, feature: int) -> list[str]:
        return [", ".join(self.words(feature, side)[:4]) for side in SIDES]

    @property
    def features(self) -> list[int]:
        """The explained features, ascending."""
        return sorted(int(feature) for feature in self.index["features"])

    def sides(self, feature: int) -> list[str]:
        """The explained sides of a feature."""
        return list(self._entry(feature)["sides"])

    @cached_property
    def _records(self) -> Mapping[str, Any]:
        return read_records(self.path)

    def _entry(self, feature: int) -> dict[str, Any]:
        try:
            entry: dict[str, Any] = self.index["features"][str(feature)]
        except KeyError:
            known = ", ".join(map(str, self.features[:20]))
            raise InputError(f"{self.path} does not explain feature {feature}: it has {known}") from None
        return entry

    def records(self, feature: int, side: str, method: str) -> list[dict[str, Any]]:
        """Return what a method found on one side of a feature, strongest first; empty where it has nothing.

        "prototypes": sample_id, row, activation, classes.  "lime": those, with ``effects`` and
        ``standard_errors`` per part, ``parts`` (words) or ``sample_key`` (see :meth:`segments`),
        r2, split_half, deletion check, ``flags`` and ``stable``.  "words": the rows of the cloud.
        "visualization": activation, percentile, ``failed``.

        Raises
        ------
        InputError
            The feature is not explained here.
        """
        self._entry(feature)
        found = self._records.get(record_key(method, feature, side))
        return list(found["records"]) if found else []

    def pictures(self, feature: int, side: str, method: str) -> list[Path]:
        """Return the picture files of a method, PNG and SVG."""
        self._entry(feature)
        found = self._records.get(record_key(method, feature, side))
        return [self.path / name for name in found["pictures"]] if found else []

    def word_table(self, feature: int) -> list[dict[str, Any]]:
        """Return all words that occur often enough, highest mean first: word, mean, shrunk, n, low, high."""
        self._entry(feature)
        file = self.path / "words" / f"f{feature:05d}.json"
        return list(read_json(file)["words"]) if file.exists() else []

    def words(self, feature: int, side: str) -> list[str]:
        """Return the words of one side's cloud, strongest first."""
        return [record["word"] for record in self.records(feature, side, "words")]

    def segments(self, record: Mapping[str, Any]) -> np.ndarray:
        """Return the superpixels (H, W), 0-based, behind the ``effects`` of an image's "lime" record."""
        return load_arrays(self.path, record["sample_key"])["segments"].astype(np.int32)


def load_explanations(path: str | os.PathLike[str]) -> ExplanationBundle:
    """Open ``explanations/``.

    Raises
    ------
    InputError
        Missing, unfinished, of another kind, or damaged.
    """
    path = Path(path)
    kind = read_manifest(path)["provenance"]["kind"]
    if kind != "explanations":
        raise InputError(f"{path} is a folder of kind {kind}, and explanations are needed (debugnet explain)")
    return ExplanationBundle(path, read_json(path / INDEX))
