"""Word LIME: against the lime package, and on bag-of-words models whose truth is known."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch

from debugnet.explain.forward import NotExplainable, Probe
from debugnet.explain.lime_text import explain_texts
from debugnet.explain.tokenization import Words, split_words
from debugnet.explain.word_subsets import draw_subsets_as_lime

SENTENCE = "the quick brown fox can't jump over the lazy dog, and then it finds its way home to sleep; poor thing"


def bag_of_words(weights: dict[str, list[float]]):
    """Features that are sums over the words present: LIME must return the weights themselves."""

    def features(texts: list[str]) -> torch.Tensor:
        rows = []
        for text in texts:
            words = {text[a:b] for a, b in split_words(text)}
            rows.append(np.sum([np.array(w) for word, w in weights.items() if word in words], axis=0) * np.ones(2))
        return torch.from_numpy(np.array(rows)).float()

    return features


def twisted(texts: list[str]) -> torch.Tensor:
    """A smooth function of hashed words that no linear model fits."""
    table = np.random.RandomState(1).randn(997, 12)
    sums = [sum((table[zlib.crc32(w.encode()) % 997] for w in text.split()), np.zeros(12)) for text in texts]
    return torch.from_numpy(np.tanh(0.3 * np.array(sums))).float()


def test_lime_compat_equals_lime_with_its_random_stream():
    lime_text = pytest.importorskip("lime.lime_text")
    explained = explain_texts([SENTENCE], Probe(twisted), [7], n_samples=400, lime_compat=True)[0]
    ours = explained.fit()
    theirs = lime_text.LimeTextExplainer(random_state=7).explain_instance(
        SENTENCE, lambda t: twisted(t).numpy(), labels=range(12), num_features=10, num_samples=400
    )
    expected = np.full(ours.effect.shape, np.nan)
    for j in range(12):
        for word, effect in theirs.local_exp[j]:
            expected[word, j] = effect
    assert (~np.isnan(expected)).sum() == 120
    np.testing.assert_allclose(ours.effect, expected, atol=1e-6)
    assert ours.r2[11] == pytest.approx(theirs.score, abs=1e-6)


def test_merging_repeated_texts_changes_nothing():
    calls = []

    def features(texts: list[str]) -> torch.Tensor:
        calls.extend(texts)
        return twisted(texts)

    near = draw_subsets_as_lime(4, 500, seed=3)
    assert len(near.switches) <= 16 and near.counts.sum() == 500
    explained = explain_texts(["one two three four"], Probe(features), [3], n_samples=500, lime_compat=True)[0]
    assert len(calls) == len(set(calls)) == len(near.switches)
    rows = np.repeat(np.arange(len(near.switches)), near.counts.sum(axis=0).astype(int))
    from sklearn.linear_model import Ridge

    from debugnet.explain.surrogate import kernel_weights

    words = Words.of("one two three four")
    Z, y = near.switches[rows], twisted(words.perturbed(near.switches[rows])).numpy()
    model = Ridge(alpha=1).fit(Z, y, sample_weight=kernel_weights(Z, 25, 100))
    np.testing.assert_allclose(explained.fit().effect, model.coef_.T, atol=1e-6)


def test_short_texts_are_enumerated_without_bias():
    """lime gives the neutral word of 'wonderful film' an effect of -1.56; it has none."""
    features = bag_of_words({"wonderful": [5.0, -5.0]})
    explained = explain_texts(["wonderful film", "wonderful"], Probe(features), [1, 2])
    two, one = (e.fit() for e in explained)
    np.testing.assert_allclose(two.effect, [[5, -5], [0, 0]], atol=1e-5)
    np.testing.assert_allclose(one.effect, [[5, -5]], atol=1e-4)
    assert (two.standard_error == 0).all() and (two.r2 > 0.999).all()


def test_long_sentence_returns_the_planted_weights():
    truth = {"lazy": [-2.0, 1.0], "home": [1.0, 0.0], "sleep": [0.5, 3.0]}
    explained = explain_texts([SENTENCE], Probe(bag_of_words(truth)), [0], n_samples=1000)[0]
    surrogate = explained.fit()
    index = {word: i for i, word in enumerate(explained.words.vocabulary)}
    for word, weights in truth.items():
        np.testing.assert_allclose(surrogate.effect[index[word]], weights, atol=0.05)
    neutral = [i for word, i in index.items() if word not in truth]
    assert np.abs(surrogate.effect[neutral]).max() < 0.05


def test_many_sentences_share_batches_and_equal_each_alone():
    texts = ["good film", SENTENCE, "a film so good that one forgets how long it is and how late the hour"]
    alone = [explain_texts([t], Probe(twisted), [i])[0].fit().effect for i, t in enumerate(texts)]
    lengths: list[int] = []

    def features(batch: list[str]) -> torch.Tensor:
        lengths.extend(len(t) for t in batch)
        return twisted(batch)

    together = explain_texts(texts, Probe(features, 50), [0, 1, 2])
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_allclose(many.fit().effect, one, atol=1e-6)
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("text", ["", "   ", " ... ", "!?"])
def test_texts_without_words_are_skipped_with_the_reason(text):
    results = explain_texts([text, "good film"], Probe(twisted), [0, 1])
    assert isinstance(results[0], NotExplainable) and "no words" in str(results[0])
    assert not isinstance(results[1], NotExplainable)


def test_one_text_with_nan_does_not_cost_the_others():
    def features(texts: list[str]) -> torch.Tensor:
        return torch.tensor([[float("nan") if "bad" in t else 1.0] for t in texts])

    results = explain_texts(["bad luck", "good luck"], Probe(features), [0, 1])
    assert isinstance(results[0], NotExplainable) and "not finite" in str(results[0])
    assert results[1].fit().effect.shape == (2, 1)


def test_mask_token_replaces_and_delete_removes():
    words = Words.of("Good, good film!")
    assert words.vocabulary == ("Good", "good", "film")
    off = np.array([[True, False, True]])
    assert words.perturbed(off) == ["Good,  film!"]
    assert words.perturbed(off, "[MASK]") == ["Good, [MASK] film!"]
    assert Words.of("good film good").perturbed(np.array([[False, True]])) == [" film "]
    assert Words.of("a \ud800 b").perturbed(np.eye(2, dtype=bool)) == ["a \ud800 ", " \ud800 b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("can't won’t", ["can't", "won’t"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("我喜欢电影", ["我", "喜", "欢", "电", "影"]),
        ("カタカナーと", ["カタカナー", "と"]),
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("영화가 좋다", ["영화가", "좋다"]),
        ("ดีมาก", ["ดี", "ม", "า", "ก"]),
        ("great 🎬👍🏽!", ["great", "🎬", "👍🏽"]),
    ],
)
def test_words_of_any_script(text, words):
    assert [text[a:b] for a, b in split_words(text)] == words
