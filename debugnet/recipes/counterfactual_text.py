"""Options of ``debugnet counterfactual text``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from debugnet.recipes.fields import argument, option

_SEARCH = "Further tests"


@dataclass(frozen=True)
class CounterfactualText:
    """Swap one word that a feature hears for one of the opposite kind, and count how often the decision flips.

    Algorithm 3 of Wong et al. 2021, for the sparse and for the dense layer, each against a matched
    control: a random word as frequent as the new one, at the same place.  Words come from the word
    clouds of debugnet explain; a dense layer is tested on the features that have clouds (explain
    --features all gives them to every feature).  Writes rows.jsonl (one line per changed sentence: before,
    after, edit, feature, logits, flipped) and rates.json.

    Examples
    --------
    debugnet counterfactual text runs/sst2/head
    debugnet counterfactual text runs/sst2/head --search --to negative --max-substitutions 3
    debugnet counterfactual text runs/toxic/head --insert identity_words.txt
    """

    produces: ClassVar[str] = "counterfactuals"

    head: Path = argument("The head folder, or - to read its path from stdin.")
    output: Path | None = option(
        None, "The folder to write (default: counterfactuals beside the head).", flags=("-o", "--output"), in_key=False
    )
    explanations: Path | None = option(
        None, "The word clouds (default: explanations beside the head).", kind="explanations", in_key=False
    )
    split: str = option("val", "Sentences to change: val, test, or a half of one (test/a).")
    limit: int | None = option(None, "At most this many sentences, drawn at random.")
    words: int = option(30, "Words of each cloud that count.")
    search: bool = option(False, "Also look for the fewest substitutions that flip each sentence.", group=_SEARCH)
    to: str | None = option(None, "The class the search must reach (default: the runner-up).", group=_SEARCH)
    max_substitutions: int = option(3, "Most substitutions the search may make.", group=_SEARCH)
    insert: Path | None = option(
        None, "A file with words, one a line: put each into sentences and count the flips.", group=_SEARCH, in_key=False
    )
    seed: int = option(0, "Seed of all draws; each sentence's own seed derives from it.")
    device: str = option("auto", "auto, cpu, cuda or cuda:N.", in_key=False)
    batch_size: int | None = option(None, "Texts per batch (default: chosen).", in_key=False)
    features: Path | None = option(
        None, "The feature file, if it is not where the head was made from it.", kind="features", in_key=False
    )
