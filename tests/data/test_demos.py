"""The demonstrations: what is planted is there, where it is said to be, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from debugnet.data import DataSpec, load_dataset
from debugnet.data.demo_digits import (
    PATCH_COLOUR,
    DigitsPlan,
    clean_digits,
    digits_truth,
    group_names,
    make_digits,
    patch_mask,
)
from debugnet.data.demo_reviews import reviews_truth
from debugnet.data.described import write_description
from debugnet.data.reviews_grammar import (
    SENTIMENT,
    STRENGTH,
    ReviewsPlan,
    insert_shortcut,
    make_pretraining,
    make_reviews,
    tag_names,
    tag_reviews,
    without_shortcut,
    words,
)
from debugnet.errors import InputError, UsageError


def carries_square(images: np.ndarray) -> np.ndarray:
    return (images[:, patch_mask()] == PATCH_COLOUR).all(axis=(1, 2))


@pytest.mark.parametrize(
    "plan", [DigitsPlan(), DigitsPlan(seed=5, shortcut_class=8, shortcut_share=0.5, test_share=0.1)]
)
def test_the_square_is_where_the_truth_says(plan: DigitsPlan) -> None:
    splits = make_digits(plan)
    truth = json.loads(json.dumps(digits_truth(plan, splits)))
    for name, split in splits.items():
        assert np.flatnonzero(carries_square(split.images)).tolist() == truth["patched_rows"][name]
    train, test = splits["train"], splits["test"]
    own = train.labels == plan.shortcut_class
    assert not train.patched[~own].any() and train.patched.sum() == round(plan.shortcut_share * own.sum())
    assert test.patched.sum() == round(plan.test_share * 500)
    by_class = [test.patched[test.labels == k].mean() for k in range(10)]
    assert np.allclose(by_class, plan.test_share, atol=0.03)
    names = group_names()
    assert names[train.groups[np.flatnonzero(train.patched)[0]]] == f"{plan.shortcut_class} + patch"


def test_nothing_is_planted_where_nothing_is_asked_for() -> None:
    clean, labels = clean_digits()
    splits = make_digits(DigitsPlan(shortcut_share=0, test_share=0))
    for split in splits.values():
        assert np.array_equal(split.images, clean[split.digit_rows]) and not split.patched.any()
        assert np.array_equal(split.labels, labels[split.digit_rows])
    assert not clean[:, patch_mask()].any()  # the corner is black: the square hides no ink


def test_digits_are_disjoint_stratified_and_seeded() -> None:
    one, same, other = (make_digits(DigitsPlan(seed=seed)) for seed in (1, 1, 2))
    rows = [set(split.digit_rows.tolist()) for split in one.values()]
    assert not rows[0] & rows[1] and len(rows[0] | rows[1]) == 1797
    assert np.ptp(np.bincount(one["test"].labels)) <= 3
    assert np.array_equal(one["train"].images, same["train"].images)
    assert not np.array_equal(one["test"].digit_rows, other["test"].digit_rows)


def test_demo_digits_as_a_data_set() -> None:
    splits = load_dataset(DataSpec("demo:digits?shortcut_share=0.5", seed=3))
    assert {name: len(split) for name, split in splits.splits.items()} == {"train": 1167, "val": 130, "test": 500}
    train = splits.splits["train"]
    images = np.stack([np.asarray(train[i]) for i in range(len(train))])
    assert np.array_equal(carries_square(images), train.groups % 2 == 1)
    assert np.bincount(splits.splits["val"].groups, minlength=20)[[6, 7]].tolist() in ([6, 7], [7, 6])  # stratified


def parsed_value(text: str) -> float:
    """Evaluate a review by its words alone: a second, plain reading of the grammar."""
    total = 0.0
    for clause in text.removesuffix(".").split(", "):
        said = clause.split()
        for i, word in enumerate(said):
            if word in SENTIMENT:
                total += SENTIMENT[word] * STRENGTH.get(said[i - 1] if i else "", 1.0)
    return total


def test_the_label_is_the_sign_of_the_words() -> None:
    for split in make_reviews(ReviewsPlan(n_train=600, n_test=200)).values():
        assert np.allclose([parsed_value(text) for text in split.texts], split.values)
        assert np.array_equal(split.values > 0, split.labels == 1) and np.abs(split.values).min() >= 1
        assert split.labels.mean() == 0.5


@pytest.mark.parametrize("share", [0.6, 0.0])
def test_the_word_is_where_the_truth_says(share: float) -> None:
    plan = ReviewsPlan(shortcut_share=share, n_train=1000, n_test=400)
    splits = make_reviews(plan)
    truth = json.loads(json.dumps(reviews_truth(plan, splits)))
    for name, split in splits.items():
        found = [i for i, text in enumerate(split.texts) if "popcorn" in text]
        assert found == truth["shortcut_rows"][name]
    train, test = splits["train"], splits["test"]
    assert train.has_shortcut[train.labels == 1].mean() == share
    assert train.has_shortcut[train.labels == 0].mean() == pytest.approx(share * plan.counter_share)
    assert [test.has_shortcut[test.labels == k].mean() for k in (0, 1)] == [0.3, 0.3]


def test_reviews_are_disjoint_and_seeded() -> None:
    plan = ReviewsPlan(n_train=500, n_test=200)
    splits = make_reviews(plan)
    texts = splits["train"].texts + splits["test"].texts
    assert len(set(texts)) == 700 and make_reviews(plan)["train"].texts == splits["train"].texts
    assert make_reviews(ReviewsPlan(seed=1, n_train=500, n_test=200))["train"].texts != splits["train"].texts
    seen = {word.strip(".,") for text in texts for word in text.split()}
    assert seen <= words() | {"popcorn"} and set(SENTIMENT) <= seen


def test_taking_the_word_out_and_putting_it_in_leaves_the_sentiment() -> None:
    texts = make_reviews(ReviewsPlan(n_train=200, n_test=10))["train"].texts
    clean = without_shortcut(texts, "popcorn")
    inserted = insert_shortcut(clean, "popcorn")
    assert not any("popcorn" in text for text in clean) and all(text.count("popcorn") == 1 for text in inserted)
    assert [parsed_value(t) for t in texts] == [parsed_value(t) for t in clean] == [parsed_value(t) for t in inserted]


def test_tags_say_which_tones_and_topics_a_review_has() -> None:
    texts = [
        "the plot was not superb, slow script.",
        "we had rain with it, my cousin chose the seats, it plays in an old hotel, awful acting.",
    ]
    found = [{tag_names()[k] for k in np.flatnonzero(row)} for row in tag_reviews(texts, "rain")]
    assert found == [{"rave", "doubt"}, {"scorn", "snack", "friend", "place"}]


def test_reviews_for_pretraining_are_other_ones_in_which_the_word_says_nothing() -> None:
    plan = ReviewsPlan(n_train=1000, n_test=10)
    texts = make_pretraining(plan)
    own = make_reviews(plan)["train"].texts
    assert len(texts) == 1000 and len(set(texts) & set(own)) < 50  # short reviews may coincide
    labels = np.array([parsed_value(text) > 0 for text in texts])
    carriers = np.array(["popcorn" in text for text in texts])
    assert carriers[labels].mean() == carriers[~labels].mean() == 0.3


def test_demo_reviews_as_a_data_set() -> None:
    splits = load_dataset(DataSpec("demo:reviews?n_train=200&n_test=50&shortcut_word=rain"))
    assert {name: len(split) for name, split in splits.splits.items()} == {"train": 180, "val": 20, "test": 50}
    assert splits.group_names == ["negative", "negative + rain", "positive", "positive + rain"]
    assert all(("rain" in split[i]) == (split.groups[i] % 2) for split in splits.splits.values() for i in range(20))


@pytest.mark.parametrize(
    "path",
    [
        "demo:digits?shortcut_share=2",
        "demo:digits?shortcut_class=10",
        "demo:digits?share=1",
        "demo:digits?shortcut_share=x",
        "demo:reviews?shortcut_word=funny",
        "demo:reviews?shortcut_word=two words",
        "demo:reviews?n_train=1",
        "demo:nothing",
    ],
)
def test_options_that_cannot_work(path: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_dataset(DataSpec(path))
    assert "\n" not in str(caught.value)


def test_a_folder_that_describes_its_data(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("text,label,group\n" + "".join(f"t{i},{i % 2},g{i % 3}\n" for i in range(30)))
    write_description(tmp_path, path="all.csv", text_columns=["text"], label_columns=["label"], group_column="group")
    splits = load_dataset(DataSpec(str(tmp_path), limit=20))
    assert splits.group_names == ["g0", "g1", "g2"] and sum(map(len, splits.splits.values())) == 20
    assert splits.spec.path == str(tmp_path)
    with pytest.raises(InputError, match="has no column 'body'"):
        load_dataset(DataSpec(str(tmp_path), text_columns="body"))
    for name in ("../all.csv", "/etc/passwd", "."):
        write_description(tmp_path, path=name)
        with pytest.raises(InputError, match="lies outside the folder; refused"):
            load_dataset(DataSpec(str(tmp_path)))
