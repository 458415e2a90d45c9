"""From what a person typed to a recipe: one set of rules for the command line and for YAML.

Both hand over text; the annotation of the field (``Path``, ``str``, ``int``, ``float``, ``bool``,
a union of those, ``tuple[...]`` of one of them) and its ``parse`` function say what it becomes.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union

from debugnet.errors import UsageError

T = TypeVar("T")

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}


def field_types(recipe: type[Any]) -> dict[str, Any]:
    """Return the resolved annotation of every field of a recipe dataclass."""
    hints = typing.get_type_hints(recipe)
    return {f.name: hints[f.name] for f in dataclasses.fields(recipe)}


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the types a value may have: ``float | str | None`` gives ``(float, str)``."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return tuple(a for a in typing.get_args(annotation) if a is not type(None))
    return (annotation,)


def is_sequence(annotation: Any) -> bool:
    """Tell whether the field holds several values (``tuple[...]``)."""
    return any(typing.get_origin(a) is tuple for a in members(annotation))


def long_name(field: dataclasses.Field[Any]) -> str:
    """Return the name under which people know an option: ``fit-intercept``, ``output``."""
    for flag in field.metadata.get("flags", ()):
        if flag.startswith("--"):
            return str(flag[2:])
    return field.name.replace("_", "-")


def fields_by_name(recipe: type[Any]) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields under every name that may be written in YAML, dashes and underscores alike."""
    found = {}
    for field in dataclasses.fields(recipe):
        found[long_name(field).replace("_", "-")] = field
        found[field.name.replace("_", "-")] = field
    return found


def suggest(name: str, known: typing.Iterable[str]) -> str:
    """Return ", did you mean 'x'?" or the known names."""
    known = sorted(set(known))
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"


def convert(field: dataclasses.Field[Any], annotation: Any, given: str | Sequence[str] | None) -> Any:
    """Turn text (or a list of texts) into the field's value.

    Raises
    ------
    ValueError
        With a message that says what was expected.
    """
    if given is None:
        if type(None) in typing.get_args(annotation):
            return None
        raise ValueError("needs a value")
    parse = field.metadata.get("parse")
    if is_sequence(annotation):
        value: Any = _sequence(field, annotation, given, parse)
    elif isinstance(given, str):
        value = parse(given) if parse else _scalar(members(annotation), given)
    else:
        raise ValueError("takes one value, not a list")
    choices = field.metadata.get("choices")
    if choices:
        for item in value if isinstance(value, tuple) else (value,):
            if item is not None and item not in choices:
                raise ValueError(f"'{item}' is not one of {', '.join(map(str, choices))}{_closest(str(item), choices)}")
    return value


def _closest(name: str, known: Sequence[Any]) -> str:
    close = difflib.get_close_matches(name, map(str, known), n=1)
    return f", did you mean '{close[0]}'?" if close else ""


def _sequence(field: dataclasses.Field[Any], annotation: Any, given: str | Sequence[str], parse: Any) -> Any:
    if isinstance(given, str):
        if parse:
            return parse(given)
        given = [given] if field.metadata.get("multiple") else [part.strip() for part in given.split(",")]
    elif parse:
        return parse(",".join(given))
    inner = next(a for a in members(annotation) if typing.get_origin(a) is tuple)
    item = typing.get_args(inner)[0]
    return tuple(_scalar(members(item), text) for text in given)


def _scalar(allowed: Sequence[Any], text: str) -> Any:
    """Read ``text`` as the first of the ``allowed`` types that takes it."""
    expected = []
    for kind in allowed:
        try:
            return _read(kind, text)
        except ValueError as error:
            expected.append(str(error))
    raise ValueError(f"'{text}' is not {' or '.join(expected)}")


def _read(kind: Any, text: str) -> Any:
    if kind is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ValueError("true or false")
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise ValueError("a whole number") from None
    if kind is float:
        try:
            number = float(text)
        except ValueError:
            raise ValueError("a number") from None
        if not math.isfinite(number):
            raise ValueError("a finite number")
        return number
    if kind is Path:
        if not text:
            raise ValueError("a path")
        return Path(text).expanduser()
    if kind is str:
        return text
    raise TypeError(f"a recipe field cannot be of type {kind!r}; see debugnet/recipes/building.py")


def build(
    recipe: type[T], given: Mapping[str, str | Sequence[str] | None], place: typing.Callable[[str], str] = str
) -> tuple[T | None, list[str]]:
    """Make a recipe from texts, collecting every mistake instead of stopping at the first.

    Parameters
    ----------
    recipe : dataclass type
    given : mapping
        Field name -> text, list of texts, or None for "the default of a field that may be None".
    place : callable, optional
        Field name -> how the mistake's place is written ("--tol", "x.yaml:12: tol").

    Returns
    -------
    recipe or None
        None if there were mistakes.
    list of str
        The mistakes, one line each.
    """
    kinds = field_types(recipe)
    values, mistakes = {}, []
    for field in dataclasses.fields(recipe):  # type: ignore[arg-type]
        if field.name not in given:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                mistakes.append(f"{place(field.name)} is missing: {field.metadata.get('help', '')}".rstrip(": "))
            continue
        try:
            values[field.name] = convert(field, kinds[field.name], given[field.name])
        except ValueError as error:
            mistakes.append(f"{place(field.name)}: {error}")
    if mistakes:
        return None, mistakes
    try:
        return recipe(**values), []
    except (UsageError, ValueError) as error:  # what __post_init__ found
        return None, [str(error)]
