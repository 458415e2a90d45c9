"""``debugnet list``: the registries."""

from __future__ import annotations

from debugnet import registry
from debugnet.recipes.list import List
from debugnet.stages.result import Result


def run(options: List, *, force: bool = False) -> Result:
    """Return the names of one registry with their summaries; nothing is imported or written."""
    names = {name: entry.summary for name, entry in getattr(registry, options.what.upper()).items()}
    width = max(map(len, names), default=0)
    lines = [f"{name:<{width}}  {summary}".rstrip() for name, summary in names.items()]
    return Result(None, {options.what: names}, text="\n".join(lines))
