"""``debugnet list``: the registries."""

from __future__ import annotations

from debugnet import recipes, registry
from debugnet.errors import UsageError
from debugnet.recipes.building import suggest
from debugnet.recipes.list import REGISTRIES
from debugnet.stages.result import Result


def run(options: recipes.List, *, force: bool = False) -> Result:
    """Return the names of one registry with their summaries; nothing is imported or written.

    Raises
    ------
    UsageError
        If there is no such registry.
    """
    if options.what not in REGISTRIES:
        raise UsageError(f"cannot list '{options.what}'{suggest(options.what, REGISTRIES)}")
    names = {name: entry.summary for name, entry in getattr(registry, options.what.upper()).items()}
    width = max(map(len, names), default=0)
    lines = [f"{name:<{width}}  {summary}".rstrip() for name, summary in names.items()]
    return Result(None, {options.what: names}, text="\n".join(lines))
