"""The words of a text, in any script: what LIME switches off."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import compress

import numpy as np
import regex

# Scripts written without spaces: one character is a unit (a grapheme cluster in South-East Asia,
# where a vowel sign is nothing without its consonant); an emoji is a word too.
# Everything else is a run of letters, marks and digits, held together over apostrophes; \w alone would
# split Hindi at its vowel signs.
_WORD = regex.compile(
    r"(?=\p{Extended_Pictographic})\X|[\p{Han}\p{Hiragana}]|[\p{Katakana}ー]+|(?=[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])\X"
    r"|[[\w\p{M}]--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]]+"
    r"(?:['’][[\w\p{M}]--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]]+)*",
    flags=regex.VERSION1,
)
_LIME_SEPARATOR = re.compile(r"(\W+)|$")


def split_words(text: str) -> list[tuple[int, int]]:
    """Return the (start, stop) character spans of the words of ``text``, in order."""
    return [match.span() for match in _WORD.finditer(text)]


def split_words_as_lime(text: str) -> list[tuple[int, int]]:
    r"""Spans of the words as lime's ``\W+`` splits them: a CJK clause is one word, "can't" is two."""
    spans, start = [], 0
    for piece in _LIME_SEPARATOR.split(text):
        if piece:
            if not _LIME_SEPARATOR.match(piece):
                spans.append((start, start + len(piece)))
            start += len(piece)
    return spans


@dataclass(frozen=True)
class Words:
    """A text cut into words, each distinct word one part that is removed wherever it occurs.

    Attributes
    ----------
    text : str
    vocabulary : tuple of str
        The K distinct words, in order of first occurrence, case kept.
    spans : tuple of (int, int, int)
        (start, stop, index into the vocabulary) of every occurrence.
    """

    text: str
    vocabulary: tuple[str, ...]
    spans: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(cls, text: str, *, as_lime: bool = False) -> Words:
        """Cut ``text``; ``as_lime`` uses lime's ASCII-minded splitting."""
        index: dict[str, int] = {}
        spans = []
        for start, stop in split_words_as_lime(text) if as_lime else split_words(text):
            spans.append((start, stop, index.setdefault(text[start:stop], len(index))))
        return cls(text, tuple(index), tuple(spans))

    def perturbed(self, switches: np.ndarray, mask_token: str | None = None) -> list[str]:
        """Return the text once per row of ``switches`` (n, K), bool, without the words that are off.

        With ``mask_token`` an off word is replaced by it; otherwise it is deleted and what stood
        around it stays, as lime's bag-of-words mode does.
        """
        gap = mask_token or ""
        pieces: list[str] = []
        owners: list[int] = []
        position = 0
        for start, stop, word in self.spans:
            pieces += [self.text[position:start], self.text[start:stop]]
            owners += [-1, word]
            position = stop
        pieces.append(self.text[position:])
        owners.append(-1)
        always = np.ones((len(switches), 1), dtype=bool)  # separators have the owner -1, this last column
        kept = np.concatenate([switches, always], axis=1)[:, owners].tolist()
        if not gap:
            return ["".join(compress(pieces, row)) for row in kept]
        return ["".join([piece if on else gap for piece, on in zip(pieces, row, strict=True)]) for row in kept]
