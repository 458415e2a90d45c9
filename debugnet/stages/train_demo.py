"""``debugnet train-demo``: data with a planted shortcut, and a small network trained on it -> ``demo/``."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import check_output, collect
from debugnet.progress import log
from debugnet.recipes.train_demo import TrainDemo
from debugnet.stages.result import Result

if TYPE_CHECKING:
    import numpy as np

MEASURED = "measured.json"


def run(options: TrainDemo, *, force: bool = False) -> Result:
    """Write the demonstration's data, network, truth, measurements and picture into one folder.

    Raises
    ------
    UsageError
        Shares outside [0, 1], a class or a word that cannot be the shortcut.
    """
    output = options.output or Path("runs") / f"demo_{options.demo}" / "demo"
    inputs = {"demo": {"kind": "demo", "path": options.demo, "digest": options.demo}}
    if check_output(output, "demo", options, inputs, force=force):
        from debugnet.artifacts.bundle import read_json

        measured = read_json(output / MEASURED)
        return Result(output, measured, True, _describe(measured))
    from debugnet.artifacts.atomic import atomic_directory, lock, make_parent
    from debugnet.artifacts.bundle import write_json, write_manifest

    make = {"digits": _digits, "reviews": _reviews}[options.demo]
    started = time.monotonic()
    make_parent(output)
    with lock(output), atomic_directory(output, replace=True) as folder:
        measured = make(options, folder)
        seconds = time.monotonic() - started
        measured["seconds"] = round(seconds, 1)
        write_json(folder / MEASURED, measured)
        write_manifest(folder, collect("demo", options, inputs, seed=options.seed, seconds=seconds))
    return Result(output, measured, False, _describe(measured))


def _digits(options: TrainDemo, folder: Path) -> dict[str, Any]:
    """Write the digits demonstration; returns what was measured."""
    import numpy as np

    from debugnet.artifacts.bundle import write_json
    from debugnet.backbones.demo_networks import DIGITS_FACTORY, predict_digits, train_digits
    from debugnet.backbones.python_factory import save_network
    from debugnet.data.demo_digits import (
        CLASS_NAMES,
        DigitsPlan,
        clean_digits,
        digits_arrays,
        digits_truth,
        group_names,
        make_digits,
        with_patch,
    )
    from debugnet.data.described import write_description
    from debugnet.report.demo_figures import draw_digits

    plan = DigitsPlan(options.seed, options.shortcut_class, test_share=options.test_share)
    if options.shortcut_share is not None:
        plan = dataclasses.replace(plan, shortcut_share=options.shortcut_share)
    splits = make_digits(plan)
    train, test = splits["train"], splits["test"]
    log(f"digits: {len(train.labels)} train and {len(test.labels)} test images, {train.patched.sum()} with the square")
    np.savez(folder / "digits.npz", allow_pickle=False, **digits_arrays(splits))
    write_description(folder, path="digits.npz")
    write_json(folder / "truth.json", digits_truth(plan, splits))
    network = train_digits(train.images, train.labels, seed=options.seed, **_epochs(options))
    save_network(folder, network, DIGITS_FACTORY, {"num_classes": len(CLASS_NAMES)}, list(CLASS_NAMES))
    clean = clean_digits()[0][test.digit_rows]
    predictions = {
        "as_is": predict_digits(network, test.images),
        "without": predict_digits(network, clean),
        "with": predict_digits(network, with_patch(clean)),
    }
    draw_digits(folder, splits, predictions["as_is"], plan.shortcut_class)
    measured = _shortcut_effect(predictions, test.labels, plan.shortcut_class)
    return measured | _worst_group(predictions["as_is"] == test.labels, test.groups, group_names())


def _reviews(options: TrainDemo, folder: Path) -> dict[str, Any]:
    """Write the reviews demonstration; returns what was measured."""
    from debugnet.artifacts.bundle import write_json
    from debugnet.backbones.demo_networks import (
        REVIEWS_FEATURES,
        fit_reviews_layer,
        score_reviews,
        train_reviews,
        train_word_pieces,
    )
    from debugnet.data.demo_reviews import reviews_truth, write_reviews
    from debugnet.data.described import write_description
    from debugnet.data.reviews_grammar import (
        CLASS_NAMES,
        SENTIMENT,
        ReviewsPlan,
        group_names,
        insert_shortcut,
        make_pretraining,
        make_reviews,
        tag_names,
        tag_reviews,
        without_shortcut,
    )
    from debugnet.report.demo_figures import draw_word_effects

    plan = ReviewsPlan(
        options.seed, options.shortcut_word, counter_share=options.counter_share, test_share=options.test_share
    )
    if options.shortcut_share is not None:
        plan = dataclasses.replace(plan, shortcut_share=options.shortcut_share)
    splits = make_reviews(plan)
    train, test = splits["train"], splits["test"]
    log(f"reviews: {len(train.texts)} train and {len(test.texts)} test, {train.has_shortcut.sum()} with the word")
    for name, split in splits.items():
        write_reviews(folder / f"reviews_{name}.csv", split, plan.shortcut_word)
    write_description(
        folder, path="reviews_train.csv", test="reviews_test.csv", text_columns=["text"], label_columns=["label"],
        group_column="group",
    )  # fmt: skip
    others = make_pretraining(plan)
    tags = tag_reviews(others, plan.shortcut_word)
    tokenizer = train_word_pieces(others)
    network = train_reviews(others, tags, tokenizer, CLASS_NAMES, seed=options.seed, **_epochs(options))
    fit_reviews_layer(network, tokenizer, train.texts, train.labels)
    feature_tags = [tag_names()[j % len(tag_names())] for j in range(REVIEWS_FEATURES)]
    write_json(folder / "truth.json", reviews_truth(plan, splits) | {"feature_tags": feature_tags})
    _save_hugging_face(folder, network, tokenizer)
    clean = without_shortcut(test.texts, plan.shortcut_word)
    texts = {"as_is": test.texts, "without": clean, "with": insert_shortcut(clean, plan.shortcut_word)}
    predictions = {name: score_reviews(network, tokenizer, some).argmax(axis=1) for name, some in texts.items()}
    effects = _word_effects(network, tokenizer, clean, test.values, plan.shortcut_word)
    draw_word_effects(folder, effects, SENTIMENT, plan.shortcut_word)
    measured = _shortcut_effect(predictions, test.labels, 1) | {"word_effects": effects}
    return measured | _worst_group(predictions["as_is"] == test.labels, test.groups, group_names(plan.shortcut_word))


def _save_hugging_face(folder: Path, network: Any, tokenizer: Any) -> None:
    """Save an ordinary Hugging Face folder, without the library's own progress bars."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()


def _epochs(options: TrainDemo) -> dict[str, int]:
    return {} if options.epochs is None else {"epochs": options.epochs}


def _shortcut_effect(predictions: dict[str, np.ndarray], labels: np.ndarray, shortcut_class: int) -> dict[str, Any]:
    """Compare the test split as it is, with the shortcut nowhere, and with it everywhere.

    ``drawn_to_shortcut``: share of the samples of other classes that get the shortcut class only when they carry it.
    """
    others = labels != shortcut_class
    drawn = (predictions["with"] == shortcut_class) & (predictions["without"] != shortcut_class)
    return {
        "test_accuracy": float((predictions["as_is"] == labels).mean()),
        "test_accuracy_without_shortcut": float((predictions["without"] == labels).mean()),
        "test_accuracy_with_shortcut": float((predictions["with"] == labels).mean()),
        "drawn_to_shortcut": float(drawn[others].mean()),
    }


def _worst_group(right: np.ndarray, groups: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Accuracy per group of the test split, and the worst of them."""
    accuracies = {name: float(right[groups == g].mean()) for g, name in enumerate(names) if (groups == g).any()}
    worst = min(accuracies, key=lambda name: accuracies[name])
    return {"worst_group": worst, "worst_group_accuracy": accuracies[worst], "group_accuracy": accuracies}


def _word_effects(
    network: Any, tokenizer: Any, texts: list[str], values: np.ndarray, shortcut_word: str
) -> dict[str, float]:
    """Return by how much a clause with each sentiment word, and one with the shortcut, raises P(positive).

    Mean over the hundred reviews whose true value is nearest to 0, where a word can still decide.
    """
    import numpy as np

    from debugnet.backbones.demo_networks import score_reviews
    from debugnet.data.reviews_grammar import ASPECTS, SENTIMENT, insert_shortcut

    open_to_words = [texts[i] for i in np.argsort(np.abs(values), kind="stable")[:100]]

    def positive(some: list[str]) -> float:
        logits = score_reviews(network, tokenizer, some)
        return float((1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))).mean())

    base = positive(open_to_words)
    effects = {}
    for word in SENTIMENT:
        clauses = [f"the {ASPECTS[i % len(ASPECTS)]} was {word}" for i in range(len(open_to_words))]
        effects[word] = positive([f"{text[:-1]}, {c}." for text, c in zip(open_to_words, clauses, strict=True)]) - base
    return effects | {shortcut_word: positive(insert_shortcut(open_to_words, shortcut_word)) - base}


def _describe(measured: dict[str, Any]) -> str:
    return "\n".join(
        (
            f"test accuracy {measured['test_accuracy']:.1%}; worst group '{measured['worst_group']}' "
            f"{measured['worst_group_accuracy']:.1%}",
            f"  the shortcut taken off every test sample: {measured['test_accuracy_without_shortcut']:.1%}",
            f"  the shortcut put on every test sample:    {measured['test_accuracy_with_shortcut']:.1%}, "
            f"{measured['drawn_to_shortcut']:.1%} of the other classes drawn to it",
        )
    )
