"""The pictures of the demonstrations: the digits with their shortcut, and what a network made of each word."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from debugnet.report.figures import BLUE, GREY, INK, VERMILION, drawing

_COLUMNS = 12


def draw_digits(folder: Path, splits: Mapping[str, Any], predictions: np.ndarray, shortcut_class: int) -> None:
    """Write ``contact_sheet.png`` and ``.svg``: train images with and without the square, and what becomes of test.

    Parameters
    ----------
    folder : Path
        Where to write.
    splits : mapping
        "train" and "test", each with images (n, 32, 32, 3) uint8, labels (n,) and patched (n,) bool.
    predictions : ndarray (n_test,), int64
        The network's classes for the test images.
    shortcut_class : int
        The class that the square goes with in train.
    """
    train, test = splits["train"], splits["test"]
    own = train.labels == shortcut_class
    wrong = predictions != test.labels
    strips = [
        (train, own & train.patched, f"train: {shortcut_class}s with the square ({(own & train.patched).sum()})"),
        (train, own & ~train.patched, f"train: {shortcut_class}s without it ({(own & ~train.patched).sum()})"),
        (train, ~own, f"train: other digits, never with the square ({(~own).sum()})"),
        (test, test.patched & ~wrong, f"test: with the square, recognized ({(test.patched & ~wrong).sum()})"),
        (test, test.patched & wrong, f"test: with the square, mistaken ({(test.patched & wrong).sum()})"),
        (test, ~test.patched & wrong, f"test: without the square, mistaken ({(~test.patched & wrong).sum()})"),
    ]
    with drawing(folder, "contact_sheet", 9.6, 1.22 * len(strips)) as figure:
        parts: Any = figure.subfigures(len(strips), 1)
        for part, (split, rows, title) in zip(parts, strips, strict=True):
            part.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold", color=INK)
            chosen = _spread(np.flatnonzero(rows), split.labels)
            for axes, i in zip(part.subplots(1, _COLUMNS), [*chosen, *[None] * (_COLUMNS - len(chosen))], strict=True):
                axes.set_axis_off()
                if i is None:
                    continue
                axes.imshow(split.images[i], interpolation="nearest")
                if split is test:
                    colour = VERMILION if wrong[i] else GREY
                    verdict = f"{test.labels[i]} → {predictions[i]}"
                    axes.set_title(verdict, color=colour, fontsize=9, loc="center", pad=2)


def _spread(rows: np.ndarray, labels: np.ndarray) -> list[int]:
    """Choose up to one strip of rows, from as many classes as there are, in the order of the classes."""
    turn = np.zeros(len(rows), dtype=int)
    for label in np.unique(labels[rows]):
        members = labels[rows] == label
        turn[members] = np.arange(members.sum())
    first = rows[np.argsort(turn, kind="stable")[:_COLUMNS]]
    return [int(i) for i in first[np.argsort(labels[first], kind="stable")]]


def draw_word_effects(
    folder: Path, effects: Mapping[str, float], sentiment: Mapping[str, float], shortcut_word: str
) -> None:
    """Write ``word_effects.png`` and ``.svg``: the grammar's value of each word against what it does to the network.

    Parameters
    ----------
    folder : Path
        Where to write.
    effects : mapping of str to float
        Change of P(positive) that a clause with the word makes.
    sentiment : mapping of str to float
        The grammar's value of each word.
    shortcut_word : str
        Its value is 0.
    """
    with drawing(folder, "word_effects", 7.2, 4.6) as figure:
        axes = figure.subplots()
        axes.axhline(0, color=GREY, linewidth=0.8)
        for value in sorted(set(sentiment.values())):
            words = sorted((w for w in sentiment if sentiment[w] == value), key=lambda w: effects[w])
            axes.plot([value] * len(words), [effects[w] for w in words], "o", color=BLUE, alpha=0.7, markersize=5)
            axes.annotate(
                words[-1] if value > 0 else words[0], (value, effects[words[-1 if value > 0 else 0]]),
                textcoords="offset points", xytext=(0, 8 if value > 0 else -14), ha="center", fontsize=9, color=INK,
            )  # fmt: skip
        axes.plot([0], [effects[shortcut_word]], "D", color=VERMILION, markersize=8)
        axes.annotate(
            f"“{shortcut_word}”, the shortcut", (0, effects[shortcut_word]), textcoords="offset points",
            xytext=(9, -3), fontsize=10, color=VERMILION,
        )  # fmt: skip
        axes.margins(x=0.12, y=0.12)
        axes.set_title("What each word means in the grammar, and what it does to the network")
        axes.set_xlabel("planted sentiment of the word")
        axes.set_ylabel("change of P(positive) by a clause with it")
