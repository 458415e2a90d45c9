"""Answer sheets: what the pages export and crowd platforms give, read strictly."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from debugnet.errors import InputError
from debugnet.study.aggregation import Answer

#: Fields of a page's form, in the order of the CSV.
FIELDS = ("task", "worker", "choice", "confidence", "description", "part_1", "part_2")
_WORKER = ("worker", "WorkerId", "workerId", "PROLIFIC_PID", "Participant id")
_PARTS = ("", "object", "surroundings")


def read_answers(path: Path, options: Mapping[str, Sequence[str]], study: str) -> list[Answer]:
    """Read one file of answers.

    Parameters
    ----------
    path : Path
        ``.json`` as the pages export it, else CSV.
    options : mapping
        Task id -> the choices it has.
    study : str
        Id of the study; a sheet that names another is refused.

    Raises
    ------
    InputError
        Unreadable, of another study, or an answer to no task or with no such choice; with its place.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); give CSV or JSON") from None
    records = _from_json(path, text, study) if path.suffix.lower() == ".json" else _from_csv(path, text)
    return [_answer(record, f"{path}, answer {number}", options) for number, record in enumerate(records, start=1)]


def _from_json(path: Path, text: str, study: str) -> list[dict[str, Any]]:
    try:
        document = json.loads(text)
        sheets = document if isinstance(document, list) else [document]
        records = []
        for sheet in sheets:
            if sheet.get("study") not in (None, study):
                raise InputError(f"{path} holds answers to study {sheet['study']}, and this is {study}")
            records += [{"worker": sheet.get("worker", "")} | answer for answer in sheet["answers"]]
        return records
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no answer sheet ({error}): export it from the study's index page") from None


def _from_csv(path: Path, text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text))
    names = [str(name).removeprefix("Answer.") for name in reader.fieldnames or ()]
    worker = next((name for name in _WORKER if name in names), None)
    if worker is None or "choice" not in names or "task" not in names:
        raise InputError(f"{path} has the columns {', '.join(names) or 'none'}; task, worker and choice are needed")
    reader.fieldnames = names
    return [row | {"worker": row[worker]} for row in reader]


def _answer(record: Mapping[str, Any], place: str, options: Mapping[str, Sequence[str]]) -> Answer:
    task, worker = str(record.get("task") or ""), str(record.get("worker") or "").strip()
    choice = str(record.get("choice") or "").strip()
    if task not in options:
        raise InputError(f"{place}: '{task[:60]}' is no task of this study")
    if not worker:
        raise InputError(f"{place}: no worker is named")
    if choice and choice not in options[task]:
        raise InputError(f"{place}: '{choice[:60]}' is not one of {', '.join(options[task])}")
    confidence = str(record.get("confidence") or 0).strip()
    if confidence not in ("0", "1", "2", "3"):
        raise InputError(f"{place}: confidence '{confidence[:60]}' is not 0, 1, 2 or 3")
    parts = tuple(str(record.get(name) or "") for name in ("part_1", "part_2"))
    if any(part not in _PARTS for part in parts):
        raise InputError(f"{place}: a part is neither object nor surroundings")
    description = " ".join(str(record.get("description") or "").split())[:200]
    return Answer(task, worker, choice, int(confidence), description, parts if any(parts) else ())


def write_answers(answers: Iterable[Answer]) -> str:
    """Write answers as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for a in answers:
        parts = (*a.parts, "", "")[:2]
        writer.writerow((a.task, a.worker, a.choice, a.confidence, a.description, *parts))
    return text.getvalue()
