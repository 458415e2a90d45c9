"""Lists of words that a user gives: one word a line."""

from __future__ import annotations

from pathlib import Path

from debugnet.errors import InputError


def read_words(path: Path) -> list[str]:
    """Read a list of words, each once, in the order of the file.

    Raises
    ------
    InputError
        The file cannot be read, is not UTF-8, or holds no word.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a text file with one word a line, UTF-8") from None
    words = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not words:
        raise InputError(f"{path} holds no word; write one a line")
    return words
