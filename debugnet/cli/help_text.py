"""What ``--help`` of a command shows, made from its recipe's docstring and fields."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from debugnet.recipes.building import field_types, is_sequence, long_name, members

#: Options that every command has: (flag, help).
COMMON_FLAGS = {
    "json": ("--json", "Print one JSON document on stdout instead of the path."),
    "force": ("--force", "Do it again, and replace an output made with other options."),
    "quiet": ("--quiet", "Nothing on stderr but errors."),
    "log_json": ("--log-json", "Progress and messages on stderr as one JSON object per line."),
    "debug": ("--debug", "Show the traceback of an error."),
}


def is_positional(field: dataclasses.Field[Any]) -> bool:
    """Tell whether a recipe field is written without a flag."""
    return bool(field.metadata.get("positional"))


def metavar(field: dataclasses.Field[Any], annotation: Any) -> str:
    """Return the placeholder for a field's value."""
    if is_positional(field):
        name = field.metadata.get("metavar") or long_name(field).upper()
        return name + ("..." if is_sequence(annotation) else "")
    if field.metadata.get("metavar"):
        return str(field.metadata["metavar"])
    choices = "|".join(map(str, field.metadata.get("choices", ())))
    if choices and len(choices) <= 40:
        return choices
    if choices or is_sequence(annotation):
        return "NAME" if choices else "A,B,..."
    names = {Path: "PATH", int: "N", float: "X", str: "TEXT"}
    return names.get(members(annotation)[0], "VALUE")


def inputs(recipe: type[Any]) -> list[str]:
    """Return the words of the usage line: required options, ``FEATURES``, ``[HEAD]`` where it may be left out."""
    kinds = field_types(recipe)
    words = []
    for field in dataclasses.fields(recipe):
        word = metavar(field, kinds[field.name])
        required = field.default is dataclasses.MISSING
        if is_positional(field):
            words.append(word if required else f"[{word}]")
        elif required:
            words.append(f"{flags(field)[-1]} {word}")
    return words


def flags(field: dataclasses.Field[Any]) -> list[str]:
    """Return the flags of an option, short ones first."""
    given = list(field.metadata.get("flags", ()))
    if not any(f.startswith("--") for f in given):
        given.append(f"--{long_name(field)}")
    return sorted(given, key=lambda f: f.startswith("--"))


def show_default(value: Any) -> str:
    """Return how a default is written on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(show_default, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe(field: dataclasses.Field[Any], annotation: Any) -> tuple[str, str]:
    """Return the two columns of an option's line."""
    left = ", ".join(flags(field))
    text = str(field.metadata.get("help", ""))
    default = field.default
    if annotation is bool:
        return (left.replace("--", "--no-", 1), text) if default is True else (left, text)
    left += f" {metavar(field, annotation)}"
    choices = "|".join(map(str, field.metadata.get("choices", ())))
    if len(choices) > 40 and field.metadata.get("metavar") is None:
        text += f" One of {choices.replace('|', ', ')}."
    if default is dataclasses.MISSING:
        return left, f"{text} [required]"
    shown = default is not None and default != ()
    return left, f"{text} [{show_default(default)}]" if shown and default != "" else text


def sections(recipe: type[Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return (heading, lines) for inputs, then each group of options, then the common ones."""
    kinds = field_types(recipe)
    grouped: dict[str, list[tuple[str, str]]] = {}
    for field in dataclasses.fields(recipe):
        if is_positional(field):
            line = (metavar(field, kinds[field.name]), str(field.metadata.get("help", "")))
            grouped.setdefault("Inputs", []).append(line)
        else:
            heading = field.metadata.get("group", "Options")
            grouped.setdefault(heading, []).append(describe(field, kinds[field.name]))
    common = [line for name, line in COMMON_FLAGS.items() if name != "force" or "output" in kinds]
    ordered = sorted(grouped.items(), key=lambda item: item[0] != "Inputs")
    return [*ordered, ("Common", [*common, ("--help", "Show this and exit.")])]


def split_docstring(recipe: type[Any]) -> tuple[str, str]:
    """Return (prose, examples) of a numpydoc docstring; its other sections are for notebooks."""
    lines = inspect.cleandoc(recipe.__doc__ or "").splitlines()
    parts: dict[str, list[str]] = {"": []}
    current = ""
    for i, line in enumerate(lines):
        following = lines[i + 1] if i + 1 < len(lines) else ""
        if line.strip() and re.fullmatch(r"-{3,}", following):
            current = line.strip()
            parts[current] = []
        elif not re.fullmatch(r"-{3,}", line):
            parts[current].append(line)
    prose = "\n".join(parts[""]).strip().replace("``", "")
    return prose, "\n".join(parts.get("Examples", [])).strip("\n")
