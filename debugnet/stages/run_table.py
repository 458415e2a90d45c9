"""The table that ends ``debugnet run``: what a recipe gave, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from debugnet.progress import duration
from debugnet.stages.result import Result


class FinishedStage(Protocol):
    """What the table needs to know of a stage."""

    stage: str
    result: Result
    seconds: float
    peak_memory: int


def final_table(finished: Sequence[Any]) -> str:
    """Return the figures of a run, the time and memory of its stages, and its pictures.

    Parameters
    ----------
    finished : sequence of FinishedStage
        In the order of the recipe.
    """
    summary: dict[str, Any] = {}
    for stage in finished:
        summary |= stage.result.summary
    figures = [(name, text) for name, text in _figures(summary) if text]
    width = max((len(name) for name, _ in figures), default=0)
    lines = ["", *(f"  {name:<{width}}  {text}" for name, text in figures), ""]
    lines.append(f"  {'stage':<16} {'seconds':>9}  {'memory':>9}  artefact")
    for stage in finished:
        memory = f"{stage.peak_memory / 2**30:.2f} GiB" if stage.peak_memory else "-"
        reused = "  (reused)" if stage.result.reused else ""
        lines.append(f"  {stage.stage:<16} {stage.seconds:>9.1f}  {memory:>9}  {stage.result.path}{reused}")
    new = sum(stage.seconds for stage in finished if not stage.result.reused)
    lines.append(f"  {'this run':<16} {new:>9.1f}")
    pictures = list(_pictures(finished))
    if pictures:
        lines += ["", *(f"  picture: {p}" for p in pictures)]
    return "\n".join(lines)


def _pictures(finished: Iterable[Any]) -> Iterable[str]:
    for stage in finished:
        path = stage.result.path
        if path is not None and path.is_dir():
            yield from (str(p) for p in sorted(path.glob("*.png"))[:2])


def _figures(summary: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield "dense accuracy", _percent(summary.get("dense_accuracy"))
    yield "best on the path", _percent(summary.get("best_accuracy"))
    yield "selected accuracy", _percent(summary.get("selected_accuracy"))
    yield "features per class", _number(summary.get("features_per_class"))


def _percent(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, float) else ""


def _number(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else ""


__all__ = ["FinishedStage", "duration", "final_table"]
