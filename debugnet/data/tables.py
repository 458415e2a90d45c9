"""Text in CSV, TSV, JSON Lines and Parquet files, by named columns.

CSV follows RFC 4180 quoting; TSV has no quoting (a quote is a character, as in the GLUE files); both start with a
header line.  Row i of the file is row i of the split, and its id is ``<file>:<i>`` unless an id column is named.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from debugnet.data.dataset import BadSample, Dataset, DatasetSplits, Status
from debugnet.data.labels import EncodedLabels, encode_multi, encode_single
from debugnet.data.spec import DataSpec
from debugnet.errors import InputError

TEXT_NAMES = ("text", "sentence", "comment_text", "review", "content")
LABEL_NAMES = ("label", "labels", "class", "target", "sentiment")
MAX_CELL = 2**26


class TextSource:
    """Texts in memory.  Empty and white ones are bad samples."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = list(texts)

    def read(self, row: int) -> str:
        """Return text ``row``."""
        text = self.texts[row]
        if not text.strip():
            raise BadSample(Status.EMPTY_TEXT, "empty text")
        return text

    def identity(self, rows: np.ndarray) -> bytes:
        """Digest of the texts themselves."""
        digest = hashlib.sha256()
        for i in rows:
            text = self.texts[i].encode()
            digest.update(len(text).to_bytes(8, "little"))
            digest.update(text)
        return digest.digest()

    def content_keys(self, rows: np.ndarray) -> list[bytes] | None:
        """The texts, without white space at the ends."""
        return [text.encode() for i in rows if (text := self.texts[i].strip())]


class Table:
    """Columns of one file: ``columns[name]`` is a list of cells; ``replaced`` counts cells with invalid UTF-8."""

    def __init__(self, path: Path, names: Sequence[str], rows: list[Sequence[Any]], replaced: int = 0) -> None:
        self.path = path
        self.columns = {name: [row[k] for row in rows] for k, name in enumerate(names)}
        self.n_rows = len(rows)
        self.replaced = replaced

    def column(self, name: str) -> list[Any]:
        """Return a column; an unknown name raises :class:`InputError` with the names there are."""
        if name not in self.columns:
            raise InputError(f"'{self.path}' has no column '{name}'; it has {', '.join(self.columns)}")
        return self.columns[name]


def read_table(path: Path) -> Table:
    """Read a table by its suffix.

    Raises
    ------
    InputError
        Missing, empty, malformed or ragged file (with the line number).
    """
    if not path.is_file():
        raise InputError(f"no table at '{path}'")
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        table = _read_parquet(path)
    elif suffix in (".jsonl", ".ndjson"):
        table = _read_json_lines(path)
    elif suffix in (".csv", ".tsv"):
        table = _read_separated(path, "\t" if suffix == ".tsv" else ",")
    else:
        raise InputError(f"'{path}': unknown table type '{suffix}'; debugnet reads .csv, .tsv, .jsonl and .parquet")
    if table.n_rows == 0:
        raise InputError(f"'{path}' is empty: it has no rows")
    return table


def _lines(path: Path) -> Iterator[str]:
    # surrogateescape keeps invalid bytes apart until the text column is known, and counts them there
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        for line in stream:
            yield line.replace("\0", "\ufffd")


def _read_separated(path: Path, delimiter: str) -> Table:
    limit = csv.field_size_limit(MAX_CELL)
    try:
        style: Any = {"quoting": csv.QUOTE_NONE} if delimiter == "\t" else {"strict": True}
        reader = csv.reader(_lines(path), delimiter=delimiter, **style)
        names = [_clean(name)[0].strip() for name in next(reader, [])]
        if len(set(names)) < len(names):
            raise InputError(f"'{path}' names a column twice: {', '.join(names)}")
        rows: list[Sequence[Any]] = []
        replaced = 0
        for cells in reader:
            if not cells and len(names) != 1:
                continue  # a blank line between or after the records
            if len(cells) != len(names):
                raise InputError(f"'{path}' line {reader.line_num}: {len(cells)} cells under {len(names)} column names")
            cleaned = [_clean(cell) for cell in cells]
            replaced += any(bad for _, bad in cleaned)
            rows.append([cell for cell, _ in cleaned])
    except csv.Error as error:
        raise InputError(f"'{path}' line {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(limit)
    return Table(path, names, rows, replaced)


def _clean(cell: str) -> tuple[str, bool]:
    """Replace bytes that were no UTF-8, and say whether there were any."""
    if cell.isascii():
        return cell, False
    try:
        cell.encode()
    except UnicodeEncodeError:
        return cell.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), True
    return cell, False


def _read_json_lines(path: Path) -> Table:
    records, replaced = [], 0
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        text, bad = _clean(line)
        replaced += bad
        try:
            record = json.loads(text)
        except ValueError as error:
            raise InputError(f"'{path}' line {number}: no JSON: {error}") from None
        if not isinstance(record, dict):
            raise InputError(f"'{path}' line {number}: expected an object with named fields, not {text.strip()[:40]!r}")
        records.append(record)
    names = list(dict.fromkeys(name for record in records for name in record))
    return Table(path, names, [[record.get(name) for name in names] for record in records], replaced)


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"'{path}': reading Parquet needs pyarrow; pip install 'debugnet[parquet]'") from None
    try:
        columns = pyarrow.parquet.read_table(path).to_pydict()
    except Exception as error:  # pyarrow raises several kinds on damaged files
        raise InputError(f"'{path}' is not a readable Parquet file: {str(error).splitlines()[0]}") from None
    return Table(path, list(columns), list(zip(*columns.values(), strict=True)))


def _by_name(table: Table, wanted: Sequence[str], usual: Sequence[str], what: str) -> tuple[str, ...]:
    """The columns asked for, or the only one with a usual name."""
    if wanted:
        return tuple(wanted)
    found = [name for name in usual if name in table.columns]
    if len(found) != 1:
        raise InputError(
            f"'{table.path}': which column holds the {what}? Say --{what}-column NAME; "
            f"it has {', '.join(table.columns)}"
        )
    return (found[0],)


def _texts(table: Table, columns: Sequence[str]) -> list[str]:
    cells = [table.column(name) for name in columns]
    return ["\n".join("" if cell is None else str(cell) for cell in row) for row in zip(*cells, strict=True)]


def _encode(tables: dict[str, Table], ids: dict[str, list[str]], spec: DataSpec) -> EncodedLabels:
    names = _by_name(tables["train"], spec.label_columns, LABEL_NAMES, "label")
    cells = {name: {split: table.column(name) for split, table in tables.items()} for name in names}
    if len(names) > 1 or spec.task == "multi-label":
        if spec.task not in ("auto", "multi-label"):
            raise InputError(f"task {spec.task} takes one label column, not {', '.join(names)}")
        return encode_multi(cells, ids)
    return encode_single(cells[names[0]], ids, names[0], spec.task, spec.class_names)


def _groups(tables: dict[str, Table], column: str | None) -> tuple[dict[str, np.ndarray], list[str]]:
    if column is None:
        return {}, []
    cells = {s: [None if c in (None, "") else str(c) for c in table.column(column)] for s, table in tables.items()}
    names = sorted({name for values in cells.values() for name in values if name is not None})
    index: dict[str | None, int] = {name: g for g, name in enumerate(names)} | {None: -1}
    return {split: np.array([index[name] for name in values], dtype=np.int64) for split, values in cells.items()}, names


def load(spec: DataSpec) -> DatasetSplits:
    """Load train from ``spec.path``, val and test from the files of their own."""
    files = {split: name for split, name in (("train", spec.path), ("val", spec.val), ("test", spec.test)) if name}
    tables = {split: read_table(Path(name).expanduser()) for split, name in files.items()}
    text_columns = _by_name(tables["train"], spec.text_columns, TEXT_NAMES, "text")
    texts = {split: _texts(table, text_columns) for split, table in tables.items()}
    ids = {
        split: [str(cell) for cell in table.column(spec.id_column)]
        if spec.id_column
        else [f"{table.path.name}:{row}" for row in range(table.n_rows)]
        for split, table in tables.items()
    }
    if spec.labeled:
        encoded = _encode(tables, ids, spec)
    else:
        unknown = {split: np.full(table.n_rows, -1) for split, table in tables.items()}
        missing = {split: np.zeros(table.n_rows, dtype=bool) for split, table in tables.items()}
        encoded = EncodedLabels(unknown, missing, list(spec.class_names), "single-label")
    groups, group_names = _groups(tables, spec.group_column)
    datasets = {}
    for split in tables:
        status = np.where(encoded.missing[split], Status.LABEL_MISSING, Status.GOOD).astype(np.uint8)
        source, rows = TextSource(texts[split]), np.arange(len(ids[split]))
        datasets[split] = Dataset(source, rows, ids[split], encoded.values[split], status, groups.get(split))
    notes = [
        f"{split}: {table.replaced} rows had bytes that are not UTF-8; replaced by U+FFFD"
        for split, table in tables.items()
        if table.replaced
    ]
    return DatasetSplits(datasets, encoded.class_names, encoded.task, "text", spec, group_names, notes)
