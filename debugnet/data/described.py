"""Folders that say themselves what data they hold: ``debugnet_data.json``, a :class:`DataSpec` with relative paths.

The demonstrations write such folders, so that ``--data FOLDER`` is all that is needed; so may anybody.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from debugnet.data.dataset import DatasetSplits
from debugnet.data.spec import DATA_FILE, DataSpec
from debugnet.errors import InputError, UsageError
from debugnet.registry import DATASETS

#: What the file may say; the rest (seed, limit, ...) is the user's.
FIELDS = (
    "path", "val", "test", "text_columns", "label_columns", "id_column", "group_column", "task", "class_names",
)  # fmt: skip


def write_description(folder: Path, **fields: Any) -> None:
    """Write ``debugnet_data.json``; paths are relative to ``folder``."""
    assert set(fields) <= set(FIELDS)
    (folder / DATA_FILE).write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(spec: DataSpec) -> DatasetSplits:
    """Load the data that ``spec.path``'s ``debugnet_data.json`` describes; options that the user set win.

    Raises
    ------
    InputError
        If the description is damaged or points out of its folder.
    """
    folder = Path(spec.path).expanduser()
    place = folder / DATA_FILE
    try:
        described = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"'{place}' cannot be read: {error}") from None
    if not isinstance(described, dict) or "path" not in described or not set(described) <= set(FIELDS):
        raise InputError(f"'{place}' must be an object with path and, if needed, {', '.join(FIELDS[1:])}")
    for name in ("path", "val", "test"):
        if described.get(name) is not None:
            described[name] = _inside(folder, described[name], place)
    defaults = {field.name: field.default for field in dataclasses.fields(DataSpec)}
    own = {name: value for name, value in vars(spec).items() if name != "path" and value != defaults[name]}
    try:
        inner = DataSpec.from_json(described | own)
    except (UsageError, TypeError) as error:
        raise InputError(f"'{place}': {error}") from None
    loaded: DatasetSplits = DATASETS.load(dataclasses.replace(inner, kind="auto").resolved_kind())(inner)
    loaded.spec = spec
    return loaded


def _inside(folder: Path, name: Any, place: Path) -> str:
    path = (folder / str(name)).resolve()
    if not path.is_relative_to(folder.resolve()) or path == folder.resolve():
        raise InputError(f"'{place}': '{name}' lies outside the folder; refused")
    return str(path)
