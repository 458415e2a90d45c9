"""--help is complete, readable and cheap for every command."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from debugnet.cli.command import spoken
from debugnet.cli.help_text import flags, is_positional
from debugnet.recipes import recipe_class
from debugnet.registry import STAGES

HEAVY = ("numpy", "torch", "h5py", "scipy", "matplotlib", "sklearn", "transformers", "lime", "yaml", "rich")
CHEAP = f"""
import io, sys
from contextlib import redirect_stdout
from debugnet.cli.app import main
with redirect_stdout(io.StringIO()) as out:
    code = main(sys.argv[1:])
print(code, len(out.getvalue()), *[name for name in {HEAVY!r} if name in sys.modules])
"""


def test_probe_help(shell):
    text = shell("debugnet probe --help").stdout
    assert (
        text
        == """\
Usage: debugnet probe [OPTIONS] SOURCE

Do what the test asks for.

A second paragraph.

Inputs:
  SOURCE  Any file.

Options:
  -o, --output PATH  Where to write.
  --do NAME          What to do. [write]
  --size N           How many lines. [3]
  --mode fast|right  How. [fast]
  --names A,B,...    Some names.
  --tag A,B,...      Whole tags.
  --strict           Be strict.
  --no-bias          Have a bias.

Amounts:
  --share 5%  Part of it. [0.5]
  --rate X    A rate.

Common:
  --json      Print one JSON document on stdout instead of the path.
  --force     Do it again, and replace an output made with other options.
  --quiet     Nothing on stderr but errors.
  --log-json  Progress and messages on stderr as one JSON object per line.
  --debug     Show the traceback of an error.
  --help      Show this and exit.

Examples:
  debugnet probe file --size 3
"""
    )


@pytest.mark.parametrize("stage", [None, *STAGES])
def test_help_imports_nothing_heavy(stage):
    words = [*spoken(stage).split(), "--help"] if stage else ["--help"]
    done = subprocess.run([sys.executable, "-c", CHEAP, *words], capture_output=True, text=True, check=True)
    code, length, *heavy = done.stdout.split()
    assert code == "0" and int(length) > 200 and heavy == []


@pytest.mark.parametrize("stage", list(STAGES))
def test_every_option_is_explained(stage):
    recipe = recipe_class(stage)
    taken: dict[str, str] = {}
    for field in dataclasses.fields(recipe):
        assert field.metadata.get("help", "").strip(), f"{stage}: {field.name} has no help"
        for flag in () if is_positional(field) else flags(field):
            assert taken.setdefault(flag, field.name) == field.name, f"{stage}: {flag} is two options"
    assert recipe.__doc__ and "Examples" in recipe.__doc__, f"{stage}: its docstring has no Examples"


@pytest.mark.parametrize("stage", list(STAGES))
def test_every_stage_loads(stage):
    assert callable(STAGES.load(stage))
