"""The options of every stage: one frozen dataclass per file, imported when it is asked for.

``debugnet.recipes.FitPath`` is ``debugnet.recipes.fit_path.FitPath``; the stage behind it is
``debugnet.stages.fit_path.run``.  Nothing here imports more than the standard library.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

from debugnet.registry import STAGES


def recipe_class(stage: str) -> type[Any]:
    """Return the options dataclass of a stage by the stage's name ("fit-path").

    The stage ``debugnet.stages.fit_path:run`` has the recipe ``debugnet.recipes.fit_path.FitPath``;
    a stage of another package, ``x.stages.y:run``, has ``x.recipes.y.Y``.

    Raises
    ------
    UsageError
        If there is no such stage; close names are suggested.
    """
    module = STAGES.target(stage).partition(":")[0].replace(".stages.", ".recipes.")
    class_name = "".join(part.capitalize() for part in module.rpartition(".")[2].split("_"))
    found: type[Any] = getattr(importlib.import_module(module), class_name)
    return found


def __getattr__(name: str) -> Any:
    if name[:1].isupper():
        module = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
        try:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{module}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
