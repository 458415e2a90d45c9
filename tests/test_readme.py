"""What the README shows works as it stands, and every command is in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from debugnet.cli.command import spoken
from debugnet.registry import STAGES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHARED = ROOT.parent / "shared" / "data"
BLOCK = re.compile(r"^```(bash test[^\n]*|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with the project's configs in it, and the shared data beside it where there are any."""
    base = tmp_path_factory.mktemp("readme")
    (base / "project").mkdir()
    (base / "project" / "configs").symlink_to(ROOT / "configs")
    if SHARED.is_dir():
        (base / "shared").mkdir()
        (base / "shared" / "data").symlink_to(SHARED)
    return base / "project"


def blocks():
    for i, match in enumerate(BLOCK.finditer(README)):
        kind, text = match.groups()
        needs = kind.partition("needs ")[2]
        skip = pytest.mark.skipif(bool(needs) and not SHARED.is_dir(), reason=f"{needs} is not here")
        yield pytest.param(kind.split()[0], text, marks=skip, id=f"{kind.split()[0]}-{i}")


@pytest.mark.parametrize("language, text", list(blocks()))
def test_block(project, language, text):
    """The blocks run in their order, in one folder: later ones use what earlier ones made."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": beside, "PYTHONPATH": str(ROOT)}
    if language == "bash":
        words = ["bash", "-euo", "pipefail", "-c", f'debugnet() {{ {sys.executable} -m debugnet "$@"; }}\n{text}']
    else:
        words = [sys.executable, "-c", text]
    done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_is_in_the_table():
    listed = set(re.findall(r"^\| `([a-z -]+)` \|", README, re.MULTILINE))
    assert listed == {spoken(stage) for stage in STAGES}


def test_links_and_files_exist():
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    tree = README.partition("## Where things are")[2].partition("```\n")[2].partition("\n```")[0]
    for line in tree.splitlines():
        name = line.split()[0]
        folder = ROOT / "debugnet" if line.startswith("  ") else ROOT
        assert (folder / name).exists(), name
