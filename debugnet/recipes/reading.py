"""Strict YAML recipes: the stages of an experiment in their order, with their options.

::

    extract:
      backbone: resnet50
      data: ${DEBUGNET_DATA:-../shared/data}/vision/imagenette160_subset.zip
    fit-path:
      tol: 1e-6
    select:
      drop: 5%

A key is a stage or one of its options, spelled as on the command line.  Values are read by the
same rules as there, so ``1e-6``, ``5%`` and ``no`` mean what they mean in the shell.  ``${NAME}``
is an environment variable, ``${NAME:-default}`` one that may be missing.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from debugnet.errors import InputError, UsageError
from debugnet.recipes import recipe_class
from debugnet.recipes.building import build, fields_by_name, long_name, suggest
from debugnet.registry import STAGES

#: Stages that make no artefact of a chain, so they are no sections of a recipe.
NOT_SECTIONS = ("run", "list", "inspect")

_LIMIT = 1 << 20
_TAGS = ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}")

Text = str | list[str] | None


@dataclass(frozen=True)
class Section:
    """One stage of a recipe: its name, its options, and the artefact it will make."""

    stage: str
    options: Any

    @property
    def output(self) -> Path:
        """Where its artefact goes."""
        return Path(self.options.output)


@dataclass
class _Given:
    """A value as it was written, and where."""

    text: Text
    place: str


def read_recipe(
    path: Path, folder: Path, overrides: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> list[Section]:
    """Read a recipe and wire its stages together.

    Parameters
    ----------
    path : Path
        The YAML file.
    folder : Path
        The run folder: an output that the recipe does not name goes there.
    overrides : sequence of str
        ``"fit-path.tol=1e-7"``: replace or add one option.
    environment : mapping, optional
        Where ``${NAME}`` is looked up; default ``os.environ``.

    Returns
    -------
    list of Section
        In the order of the file.  An input that is not given is the artefact of its kind that
        the nearest stage above makes.

    Raises
    ------
    InputError
        If the file is missing or no YAML.
    UsageError
        If a stage, an option or a value is wrong or an input is missing.  All mistakes are
        reported together, each with its line.
    """
    mistakes: list[str] = []
    written = _parse(path, mistakes)
    _override(written, overrides, mistakes)
    variables = os.environ if environment is None else environment
    sections: list[Section] = []
    made: dict[str, Path] = {}
    for stage, given in written.items():
        for value in given.values():
            value.text = _expand(value, variables, mistakes)
        section = _section(stage, given, folder, made, f"{path}: {stage}", mistakes)
        recipe = recipe_class(stage)
        produces = getattr(recipe, "produces", stage)
        made[produces.partition(".")[0]] = section.output if section else folder / produces
        if section:
            sections.append(section)
    if mistakes:
        raise UsageError(_together(path, mistakes))
    return sections


def _together(path: Path, mistakes: Sequence[str]) -> str:
    if len(mistakes) == 1:
        return mistakes[0]
    return f"{path} has {len(mistakes)} mistakes:\n  " + "\n  ".join(mistakes)


def _parse(path: Path, mistakes: list[str]) -> dict[str, dict[str, _Given]]:
    """Return {stage: {field: value}}, with lines of unknown or repeated keys among the mistakes."""
    import yaml

    try:
        raw = path.read_bytes()[: _LIMIT + 1]
        if len(raw) > _LIMIT:
            raise InputError(f"{path} is larger than {_LIMIT >> 20} MiB: that is no recipe")
        root = yaml.compose(raw.decode("utf-8"), yaml.SafeLoader)
    except FileNotFoundError:
        raise InputError(f"there is no recipe '{path}'") from None
    except IsADirectoryError:
        raise InputError(f"'{path}' is a folder, not a recipe file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise InputError(f"{path} holds no stages: expected 'extract:' and the like at the left margin")
    found: dict[str, dict[str, _Given]] = {}
    for key, node in root.value:
        place, stage = f"{path}:{key.start_mark.line + 1}", str(key.value)
        if stage not in STAGES or stage in NOT_SECTIONS:
            mistakes.append(f"{place}: there is no stage '{stage}'{suggest(stage, _stages())}")
        elif stage in found:
            mistakes.append(f"{place}: the stage '{stage}' stands twice")
        elif isinstance(node, yaml.MappingNode):
            found[stage] = _options(path, stage, node, mistakes)
        elif node.tag.endswith(":null"):
            found[stage] = {}
        else:
            mistakes.append(f"{place}: '{stage}' needs options as 'name: value' lines below it, or nothing")
    return found


def _stages() -> list[str]:
    return [name for name in STAGES if name not in NOT_SECTIONS]


def _options(path: Path, stage: str, node: Any, mistakes: list[str]) -> dict[str, _Given]:
    known = fields_by_name(recipe_class(stage))
    found: dict[str, _Given] = {}
    for key, value in node.value:
        name = str(key.value)
        place = f"{path}:{key.start_mark.line + 1}: {stage}.{name}"
        field = known.get(name.replace("_", "-"))
        if field is None:
            mistakes.append(f"{place}: there is no such option{suggest(name, _spellings(known))}")
        elif field.name in found:
            mistakes.append(f"{place}: stands twice")
        else:
            try:
                found[field.name] = _Given(_text(value), place)
            except ValueError as error:
                mistakes.append(f"{place}: {error}")
    return found


def _spellings(known: Mapping[str, dataclasses.Field[Any]]) -> Iterable[str]:
    return {long_name(field) for field in known.values()}


def _text(node: Any) -> Text:
    """Return a scalar as it is written, a list of them, or None for YAML's null."""
    import yaml

    if node.tag.rpartition(":")[2] not in _TAGS:
        raise ValueError(f"the tag {node.tag} has no meaning here")
    if isinstance(node, yaml.ScalarNode):
        plain_null = node.tag.endswith(":null") and node.style is None
        return None if plain_null else str(node.value)
    if isinstance(node, yaml.SequenceNode) and all(isinstance(n, yaml.ScalarNode) for n in node.value):
        return [str(n.value) for n in node.value]
    raise ValueError("expected one value or a list of values")


def _override(written: dict[str, dict[str, _Given]], overrides: Sequence[str], mistakes: list[str]) -> None:
    for override in overrides:
        name, equals, text = override.partition("=")
        stage, dot, option = name.strip().partition(".")
        place = f"--set {override}"
        if not (equals and dot):
            mistakes.append(f"{place}: expected STAGE.OPTION=VALUE, like fit-path.tol=1e-7")
        elif stage not in written:
            mistakes.append(f"{place}: the recipe has no stage '{stage}'{suggest(stage, written)}")
        else:
            known = fields_by_name(recipe_class(stage))
            field = known.get(option.replace("_", "-"))
            if field is None:
                mistakes.append(f"{place}: there is no such option{suggest(option, _spellings(known))}")
            else:
                written[stage][field.name] = _Given(None if text in ("null", "~") else text, place)


def _expand(value: _Given, variables: Mapping[str, str], mistakes: list[str]) -> Text:
    def replace(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(3)
        found = variables.get(name) or default
        if found is None:
            mistakes.append(f"{value.place}: the environment variable {name} is not set")
            return ""
        return found

    if isinstance(value.text, list):
        return [_VARIABLE.sub(replace, item) for item in value.text]
    return None if value.text is None else _VARIABLE.sub(replace, value.text)


def _section(
    stage: str, given: dict[str, _Given], folder: Path, made: Mapping[str, Path], place: str, mistakes: list[str]
) -> Section | None:
    """Build one stage's options, its missing inputs and output filled in."""
    recipe = recipe_class(stage)
    fields = {f.name: f for f in dataclasses.fields(recipe)}
    texts: dict[str, Text] = {name: value.text for name, value in given.items()}
    for name, field in fields.items():
        kinds = (field.metadata.get("kind") or name).split("|")
        wired = field.metadata.get("positional") or field.metadata.get("kind")
        fitting = [place for kind, place in made.items() if kind in kinds]
        if name not in texts and wired and fitting:
            texts[name] = str(fitting[-1])
    if "output" in fields and "output" not in texts:
        texts["output"] = str(folder / getattr(recipe, "produces", stage))

    def where(name: str) -> str:
        return given[name].place if name in given else f"{place}.{long_name(fields[name])}"

    try:
        options, wrong = build(recipe, texts, where)
    except UsageError as error:
        options, wrong = None, [f"{place}: {error}"]
    mistakes += [m if m.startswith(("--set", str(place.partition(": ")[0]))) else f"{place}: {m}" for m in wrong]
    return Section(stage, options) if options is not None else None
