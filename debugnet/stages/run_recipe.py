"""``debugnet run``: all stages of a recipe into one folder."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from debugnet import progress
from debugnet.errors import InputError, OutputExists, UsageError
from debugnet.recipes.building import suggest
from debugnet.recipes.reading import Section, read_recipe
from debugnet.recipes.run_recipe import RunRecipe
from debugnet.registry import STAGES
from debugnet.stages.result import Result, plain_data
from debugnet.stages.run_table import final_table

#: The file in a run folder that says what made it and what came out.
RECORD = "run.json"


@dataclass(frozen=True)
class Finished:
    """A stage that has its artefact: how long it took when it was made, and what it told."""

    stage: str
    result: Result
    seconds: float
    peak_memory: int


def run(options: RunRecipe, *, force: bool = False) -> Result:
    """Run a recipe's stages in order; every stage decides itself whether its artefact is current.

    Raises
    ------
    OutputExists
        If the folder holds the run of another recipe, and ``force`` is false.
    UsageError
        If anything in the recipe is wrong; nothing has run then.
    """
    folder = options.output or Path("runs") / options.recipe.stem
    sections = _wanted(read_recipe(options.recipe, folder, options.overrides), options.until)
    if options.check:
        return _plan(folder, sections)
    from debugnet.artifacts.atomic import atomic_file, lock

    with lock(folder):
        _refuse_another_recipe(folder, options.recipe, force)
        finished: list[Finished] = []
        for i, section in enumerate(sections, 1):
            progress.log(f"[{i}/{len(sections)}] {section.stage}")
            finished.append(_run_section(section, folder, force))
            record = _record(options.recipe, finished)
            with atomic_file(folder / RECORD) as temporary:
                temporary.write_text(json.dumps(record, indent=2) + "\n")
    return Result(folder, record, all(f.result.reused for f in finished), final_table(finished))


def _wanted(sections: list[Section], until: str | None) -> list[Section]:
    if until is None:
        return sections
    names = [s.stage for s in sections]
    if until not in names:
        raise UsageError(f"--until {until}: the recipe has no such stage{suggest(until, names)}")
    return sections[: names.index(until) + 1]


def _plan(folder: Path, sections: Sequence[Section]) -> Result:
    width = max(len(s.stage) for s in sections)
    lines = [f"{s.stage:<{width}}  -> {s.output}" for s in sections]
    stages = [{"stage": s.stage, "output": s.output, "options": vars(s.options)} for s in sections]
    return Result(None, {"folder": folder, "stages": stages}, text="\n".join(["the recipe is in order:", *lines]))


def _refuse_another_recipe(folder: Path, recipe: Path, force: bool) -> None:
    """Keep a run folder for the recipe that made it: another one would replace it stage by stage."""
    try:
        found = json.loads((folder / RECORD).read_text())["recipe"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{folder / RECORD} is damaged: remove it to go on in this folder") from None
    if Path(found).name != recipe.name and not force:
        raise OutputExists(f"{folder} holds a run of {found}; choose another -o, or --force to replace it")


def _run_section(section: Section, folder: Path, force: bool) -> Finished:
    stage = STAGES.load(section.stage)
    start = time.perf_counter()
    try:
        result = stage(section.options, force=force)
    except OutputExists as changed:
        # In its own folder a recipe may replace what it made before; elsewhere the user decides.
        if folder not in section.output.parents:
            raise
        progress.log(f"      {changed.args[0].partition(';')[0]}: making it again")
        result = stage(section.options, force=True)
    seconds, peak = time.perf_counter() - start, 0
    if result.path is not None:
        from debugnet.artifacts.provenance import read_provenance

        try:
            provenance = read_provenance(result.path)
            seconds, peak = provenance.seconds if result.reused else seconds, provenance.peak_memory
        except InputError:  # a stage may write a plain file (JSON Lines) that carries no provenance
            pass
    progress.log(f"      {'reused' if result.reused else f'done in {progress.duration(seconds)}'}: {result.path}")
    return Finished(section.stage, result, seconds, peak)


def _record(recipe: Path, finished: Sequence[Finished]) -> dict[str, Any]:
    stages = [
        {"stage": f.stage, "path": f.result.path, "reused": f.result.reused, "seconds": round(f.seconds, 2)}
        | {"peak_memory": f.peak_memory, "summary": f.result.summary}
        for f in finished
    ]
    record: dict[str, Any] = plain_data({"recipe": recipe, "stages": stages})
    return record
