"""What an installation contains."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "debugnet"


def test_every_data_file_is_installed() -> None:
    section = (ROOT / "pyproject.toml").read_text().partition("[tool.setuptools.package-data]\n")[2]
    patterns = re.findall(r'"([^"]+)"', section.partition("\n\n")[0])
    installed = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    data = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in data if path.suffix not in (".py", ".pyc")} <= installed


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
