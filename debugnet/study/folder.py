"""Reading a study's folder: its tasks, and the key that annotators never see."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from debugnet.artifacts.bundle import read_json
from debugnet.artifacts.provenance import read_manifest
from debugnet.errors import InputError
from debugnet.study.tasks import Key, ShownFeature, Task

T = TypeVar("T")


@dataclass(frozen=True)
class Study:
    """A finished study folder.

    Attributes
    ----------
    id, kind : str
    tasks : tuple of Task
    keys : dict of str to Key
    about : dict
        ``study.json``.
    """

    id: str
    kind: str
    tasks: tuple[Task, ...]
    keys: dict[str, Key]
    about: dict[str, Any]


def load_study(path: Path) -> Study:
    """Read ``study/``.

    Raises
    ------
    InputError
        Missing, of another kind, or damaged.
    """
    kind = read_manifest(path)["provenance"]["kind"]
    if kind != "study":
        raise InputError(f"{path} is of kind {kind}, and a study is needed (debugnet study make)")
    about = read_json(path / "study.json")
    tasks = _read(path / "key" / "tasks.jsonl", _task)
    keys = _read(path / "key" / "key.jsonl", lambda record: Key(**record))
    return Study(about["study"], about["kind"], tuple(tasks), {key.id: key for key in keys}, about)


def _task(record: dict[str, Any]) -> Task:
    return Task(
        record["id"],
        record["kind"],
        tuple(ShownFeature(**feature) for feature in record["features"]),
        tuple(tuple(group) for group in record["samples"]),
        tuple(record["options"]),
    )


def _read(path: Path, make: Callable[[dict[str, Any]], T]) -> list[T]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [make(json.loads(line)) for line in file]
    except FileNotFoundError:
        raise InputError(f"{path} is missing: the study cannot be scored without its key") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): make the study again") from error
