"""One command from one recipe: its parameters, its help, and the call that they make."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from debugnet.cli import help_text
from debugnet.errors import UsageError
from debugnet.recipes import recipe_class
from debugnet.recipes.building import build, field_types, is_sequence, long_name, members


@dataclass(frozen=True)
class Call:
    """What the command line asked for: a stage, its options and the common flags."""

    stage: str
    options: Any
    force: bool = False
    json: bool = False
    quiet: bool = False
    log_json: bool = False
    debug: bool = False


class RecipeCommand(TyperCommand):
    """A typer command whose help is written from its recipe."""

    recipe: type[Any]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, prose, the options by group with their defaults, and the examples."""
        prose, examples = help_text.split_docstring(self.recipe)
        formatter.write_usage(ctx.command_path, " ".join(["[OPTIONS]", *help_text.inputs(self.recipe)]))
        for paragraph in prose.split("\n\n"):
            formatter.write_paragraph()
            formatter.write_text(" ".join(paragraph.split()))
        for heading, lines in help_text.sections(self.recipe):
            with formatter.section(heading):
                formatter.write_dl(lines, col_max=34)
        if examples:
            with formatter.section("Examples"):
                for line in examples.splitlines():
                    formatter.write(f"  {line}\n" if line else "\n")


def make_command(stage: str, command_name: str) -> Any:
    """Derive the command of a stage.

    Parameters
    ----------
    stage : str
        Its name in the registry ("counterfactual-text").
    command_name : str
        Its last word on the command line ("text").

    Returns
    -------
    click.Command
        Invoking it returns the :class:`Call`; nothing is run.
    """
    recipe = recipe_class(stage)
    if not dataclasses.is_dataclass(recipe):
        raise TypeError(f"{recipe} is no dataclass; see debugnet/recipes/fields.py")
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(
        name=command_name,
        cls=RecipeCommand,
        context_settings={"max_content_width": 120, "help_option_names": ["--help", "-h"]},
    )(_callback(stage, recipe))
    command = typer.main.get_command(app)
    command.recipe = recipe  # type: ignore[attr-defined]
    return command


def _callback(stage: str, recipe: type[Any]) -> Callable[..., Call]:
    fields = {f.name: f for f in dataclasses.fields(recipe)}
    kinds = field_types(recipe)
    parameters = [_parameter(f, kinds[f.name]) for f in sorted(fields.values(), key=_inputs_first)]
    for name, (flag, text) in help_text.COMMON_FLAGS.items():
        if name != "force" or "output" in fields:
            parameters.append(_keyword(f"common_{name}", bool, typer.Option(flag, help=text), False))

    def callback(**given: Any) -> Call:
        common = {name: given.pop(f"common_{name}", False) for name in help_text.COMMON_FLAGS}
        texts = {name: _as_text(value) for name, value in given.items() if value is not None and value != []}
        options, mistakes = build(recipe, texts, place=lambda name: _place(fields[name], kinds[name]))
        if mistakes:
            raise UsageError("; ".join(mistakes) + f" (see debugnet {spoken(stage)} --help)")
        return Call(stage, options, **common)

    callback.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    callback.__doc__ = recipe.__doc__
    return callback


def spoken(stage: str, groups: Sequence[str] = ("counterfactual", "study")) -> str:
    """Return the words that call a stage: ``counterfactual-text`` is typed ``counterfactual text``."""
    first, _, rest = stage.partition("-")
    return f"{first} {rest}" if rest and first in groups else stage


def _inputs_first(field: dataclasses.Field[Any]) -> bool:
    return not help_text.is_positional(field)


def _place(field: dataclasses.Field[Any], annotation: Any) -> str:
    return help_text.metavar(field, annotation) if help_text.is_positional(field) else f"--{long_name(field)}"


def _as_text(value: Any) -> str | list[str]:
    if isinstance(value, list | tuple):
        return [str(v) for v in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parameter(field: dataclasses.Field[Any], annotation: Any) -> inspect.Parameter:
    """Declare a field to typer as text (paths as paths, for the shell's completion)."""
    several = is_sequence(annotation)
    base: Any = Path if Path in members(annotation) else str
    choices = [str(c) for c in field.metadata.get("choices", ())]
    completion: Mapping[str, Any] = {"autocompletion": lambda: choices} if choices else {}
    if help_text.is_positional(field):
        declared = typer.Argument(metavar=help_text.metavar(field, annotation), **completion)
        return _keyword(field.name, list[base] if several else base, declared, None)
    names = help_text.flags(field)
    if annotation is bool:
        # A switch that is on by default is only ever switched off.
        declared = typer.Option(*([f"--{long_name(field)}/--no-{long_name(field)}"] if field.default else names))
        return _keyword(field.name, bool, declared, None)
    declared = typer.Option(*names, metavar=help_text.metavar(field, annotation), **completion)
    return _keyword(field.name, list[base] if field.metadata.get("multiple") else base, declared, None)


def _keyword(name: str, annotation: Any, declared: Any, default: Any) -> inspect.Parameter:
    if default is None:
        annotation = Optional[annotation]  # noqa: UP045 (built at run time, for typer)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, declared]
    )
