"""The table that ends ``debugnet run``: what a recipe gave, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from debugnet.stages.result import Result

#: Metrics that are no fraction of something.
_PLAIN = ("r2", "loss")


class FinishedStage(Protocol):
    """What the table needs to know of a stage."""

    @property
    def stage(self) -> str:
        """Its name."""
        ...

    @property
    def result(self) -> Result:
        """What it gave back."""
        ...

    @property
    def seconds(self) -> float:
        """How long making the artefact took."""
        ...

    @property
    def peak_memory(self) -> int:
        """Bytes; 0 where it is not known."""
        ...


def final_table(finished: Sequence[FinishedStage]) -> str:
    """Return the layers with their accuracies, the stages with their cost, and the picture to look at.

    Parameters
    ----------
    finished : sequence of FinishedStage
        In the order of the recipe.
    """
    summaries = {stage.stage: stage.result.summary for stage in finished}
    blocks = []
    if "select" in summaries:
        features = summaries.get("extract", {}).get("n_features")
        blocks.append(_grid(_layers(summaries["select"], features)))
    blocks.append(_grid(_cost(finished)))
    pictures = [f"  picture  {path}" for stage in finished for path in _picture(stage.result.path)]
    return "\n" + "\n\n".join([*blocks, *pictures])


def _layers(select: Mapping[str, Any], n_features: int | None) -> Iterable[Sequence[str]]:
    metric, baselines = str(select["metric"]), select["baselines"]
    splits = [split for split in ("val", "test") if select["metrics"].get(split)]  # a store may have no test split
    network, size = select.get("network"), "kept" if "network" in select else "mean_features_per_class"
    yield [metric.replace("_", " "), *splits, f"{network['unit']} kept" if network else "features per class"]
    for name, layer in (
        ("the network's own", {"metrics": baselines.get("network_head"), size: n_features}),
        ("the network it began with", baselines.get("dense_network")),
        ("least regularized", baselines.get("dense")),
        ("best on the path", baselines.get("best")),
        ("selected", select),
    ):
        if layer and layer["metrics"]:
            shown = [_score(metric, (layer["metrics"].get(split) or {}).get(metric)) for split in splits]
            yield [name, *shown, _count(layer[size])]


def _score(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if metric in _PLAIN else f"{value:.1%}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _cost(finished: Sequence[FinishedStage]) -> Iterable[Sequence[str]]:
    yield ["stage", "seconds", "memory", ""]
    for stage in finished:
        memory = f"{stage.peak_memory / 2**20:.0f} MiB" if stage.peak_memory else "-"
        yield [stage.stage, f"{stage.seconds:.1f}", memory, "reused" if stage.result.reused else ""]
    new = sum(stage.seconds for stage in finished if not stage.result.reused)
    peak = max(stage.peak_memory for stage in finished)
    yield ["this run", f"{new:.1f}", f"{peak / 2**20:.0f} MiB" if peak else "-", ""]


def _grid(rows: Iterable[Sequence[str]]) -> str:
    """Align columns: the first to the left, numbers to the right."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(("  " + "   ".join(cells)).rstrip())
    return "\n".join([lines[0], "  " + "-" * (max(map(len, lines)) - 2), *lines[1:]])


def _picture(path: Path | None) -> list[Path]:
    """Return the picture of an artefact to look at first: its overview, or else its first one."""
    if path is None or not path.is_dir():
        return []
    pictures = sorted(path.glob("*.png"), key=lambda p: (p.stem != "overview", p.name))
    return pictures[:1]
