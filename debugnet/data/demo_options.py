"""Options inside a demo's name: ``demo:digits?shortcut_share=0.5``."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from debugnet.data.spec import DataSpec
from debugnet.errors import UsageError

Plan = TypeVar("Plan")


def demo_options(spec: DataSpec, plan: Plan) -> Plan:
    """Return ``plan`` (a dataclass of numbers and strings) with the options of ``spec.path`` put in.

    Raises
    ------
    UsageError
        If an option is unknown or its value is not of the field's type.
    """
    kinds = {field.name: type(getattr(plan, field.name)) for field in dataclasses.fields(plan)}  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for name, text in parse_qsl(spec.path.partition("?")[2], keep_blank_values=True):
        if name not in kinds:
            raise UsageError(f"'{spec.path}': unknown option '{name}'; known: {', '.join(kinds)}")
        try:
            changes[name] = kinds[name](text)
        except ValueError:
            raise UsageError(f"'{spec.path}': {name} is '{text}', not a {kinds[name].__name__}") from None
    return dataclasses.replace(plan, **changes)  # type: ignore[type-var]
