"""The words of a text, in any script: what LIME switches off."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
        if mask_token is None:
            return self._deleted(switches)
        pieces: list[str] = []
        owners: list[int] = []
        position = 0
        for start, stop, word in self.spans:
            pieces += [self.text[position:start], self.text[start:stop]]
            owners += [-1, word]
            position = stop
        pieces.append(self.text[position:])
        owners.append(-1)
        kept = _with_separators(switches)[:, owners].tolist()
        return ["".join([piece if on else mask_token for piece, on in zip(pieces, row, strict=True)]) for row in kept]

    def _deleted(self, switches: np.ndarray) -> list[str]:
        """Cut the characters that stay out of one long text, which is far faster than joining words."""
        owner = np.full(len(self.text), -1)
        for start, stop, word in self.spans:
            owner[start:stop] = word
        characters = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), np.uint32)
        kept = _with_separators(switches)[:, owner]
        long = np.broadcast_to(characters, kept.shape)[kept].tobytes().decode("utf-32-le", "surrogatepass")
        ends = np.cumsum(kept.sum(axis=1)).tolist()
        return [long[start:stop] for start, stop in zip([0, *ends[:-1]], ends, strict=True)]


def _with_separators(switches: np.ndarray) -> np.ndarray:
    """Add a last column for what stands between the words, which has the index -1 and always stays."""
    return np.concatenate([switches, np.ones((len(switches), 1), dtype=bool)], axis=1)
