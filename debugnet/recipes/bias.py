"""Options of ``debugnet bias``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option


@dataclass(frozen=True)
class Bias:
    """Measure how much of what the features hear comes from a list of words (identity terms, say).

    For every explained feature and side: the share of its word cloud that is in the list, features
    ranked by it; and pooled over the top features of each class, for the sparse and for the dense
    layer (Wong et al. 2021, appendix E.1).  Whether a cloud speaks for or against a class depends on
    the sign of the weight: both are reported.

    Examples
    --------
    debugnet bias runs/toxic/head --words identity_terms.txt
    debugnet bias runs/toxic/head --words identity_terms.txt --top-features 10 --top-words 30
    """

    produces: ClassVar[str] = "bias"

    head: Path = argument("The head folder, or - to read its path from stdin.")
    output: Path | None = option(
        None, "The folder to write (default: bias beside the head).", flags=("-o", "--output"), in_key=False
    )
    words: Path | None = option(None, "A text file with the words, one a line (needed).", in_key=False)
    top_features: int = option(5, "Features of each class that are pooled, by absolute weight.")
    top_words: int = option(30, "Words of each cloud that count.")
    explanations: Path | None = option(
        None, "The word clouds (default: explanations beside the head).", kind="explanations", in_key=False
    )
