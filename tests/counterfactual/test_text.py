"""Algorithm 3 against its definition; searches and controls on a planted bag of words."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from debugnet.counterfactual.text import (
    Clouds,
    candidate_words,
    draw_control,
    draw_substitution,
    frequency_bands,
    insert_word,
    search_flip,
    substitute,
)

CLOUDS = Clouds(positive={0: ("good", "fine"), 1: ("loud",)}, negative={0: ("bad",), 1: ("quiet", "calm")})
SCORES = {"good": 1.0, "fine": 0.6, "bad": -1.0, "loud": 0.5, "quiet": -0.5, "calm": -0.4}


def tokenize(text: str) -> tuple[list[str], list[int]]:
    pieces = re.split(r"(\w+)", text)
    return pieces, list(range(1, len(pieces), 2))


def test_candidates_are_z_plus_and_z_minus():
    words = ["a", "good", "quiet", "bad", "film"]
    positive, negative = candidate_words(words, np.array([2.0, -1.0]), CLOUDS)
    assert positive == [(1, 0)] and negative == [(2, 1)]
    positive, negative = candidate_words(words, np.array([-2.0, 0.0]), CLOUDS)
    assert positive == [] and negative == [(3, 0)]


def test_draws_are_uniform_over_pairs_and_opposite_words():
    words = ["good", "quiet", "film"]
    rng = np.random.default_rng(0)
    drawn = Counter()
    for _ in range(4000):
        edit = draw_substitution(words, np.array([1.0, -1.0]), CLOUDS, rng)
        drawn[edit.before, edit.after, edit.feature] += 1
    assert set(drawn) == {("good", "bad", 0), ("quiet", "loud", 1)}
    assert abs(drawn["good", "bad", 0] / 4000 - 0.5) < 0.04


def test_no_counterfactual_where_no_word_supports_the_prediction():
    rng = np.random.default_rng(0)
    assert draw_substitution(["a", "film"], np.ones(2), CLOUDS, rng) is None
    lonely = Clouds(positive={0: ("good",)}, negative={})
    assert draw_substitution(["good"], np.ones(2), lonely, rng) is None


def test_substitution_keeps_the_rest_and_the_capitals():
    edit = draw_substitution(["good"], np.array([1.0, 0.0]), CLOUDS, np.random.default_rng(0))
    assert substitute("Good, isn't it?", edit, tokenize) == "Bad, isn't it?"
    assert substitute("GOOD!", edit, tokenize) == "BAD!"


def test_bands_and_control():
    counts = {"the": 100, "film": 30, "good": 10, "bad": 10, "odd": 1, "rare": 1}
    bands = frequency_bands(counts, 4)
    assert sorted(w for b in bands for w in b) == sorted(counts) and bands[0] == ["the"]
    edit = draw_substitution(["good"], np.array([1.0, 0.0]), CLOUDS, np.random.default_rng(0))
    band = next(b for b in bands if "bad" in b)
    for seed in range(20):
        control = draw_control(["good"], edit, bands, np.random.default_rng(seed))
        assert control.position == edit.position and control.feature == -1
        assert control.after in band and control.after not in ("good", "bad")


def decide(target_sign: float):
    def gap(texts):
        return np.array([target_sign * sum(SCORES.get(w, 0.0) for w in re.findall(r"\w+", t.lower())) for t in texts])

    return gap


def test_search_finds_the_fewest_substitutions():
    weight_gap = np.array([-1.0, -0.5])  # the target wants both features low
    one = search_flip("a good film", tokenize, str.lower, decide(-1), CLOUDS, weight_gap)
    assert one.reached and one.text == "a bad film" and len(one.substitutions) == 1
    two = search_flip("good fine film and good", tokenize, str.lower, decide(-1), CLOUDS, weight_gap)
    assert two.reached and len(two.substitutions) == 2
    none = search_flip("a film", tokenize, str.lower, decide(-1), CLOUDS, weight_gap)
    assert not none.reached and none.substitutions == ()


@pytest.mark.parametrize("text", ["a good film!", "", "..."])
def test_inserted_word_is_there_once(text):
    for seed in range(5):
        out = insert_word(text, "zebra", tokenize, np.random.default_rng(seed))
        assert re.findall(r"\w+", out).count("zebra") == 1
        assert [w for w in re.findall(r"\w+", out) if w != "zebra"] == re.findall(r"\w+", text)
