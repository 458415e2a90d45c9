"""The tasks of the three human studies: what is shown, and apart from it the answer key.

Wong, Santurkar & Madry (2021): simulating the model (appendix D.4), common pattern of a class pair
(E.2.1), misclassification (G.1).  Everything random is seeded.  A :class:`Task` holds what an
annotator may see; what must stay hidden (labels, probabilities, which feature is the control) is in
its :class:`Key`, which is written to another file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

KINDS = ("simulation", "pairs", "misclassification")
#: Percentiles of the target class's probability from which the three samples come (appendix D.4).
PERCENTILES = ((90.0, 95.0), (98.0, 99.0), (99.99, 100.0))
#: Answers to "which of two features does the sample show": all that match and, of both, the best (appendix G.1).
MATCHES = ("A", "B", "both-A", "both-B", "neither")


@dataclass(frozen=True)
class ShownFeature:
    """A feature as an annotator sees it.

    Attributes
    ----------
    feature : int
    name : str
        "A", "B", ...: the index would tell apart what the study hides.
    importance : int or None
        0-100, weight relative to the largest one shown; None where the study shows no weight.
    """

    feature: int
    name: str
    importance: int | None = None


@dataclass(frozen=True)
class Task:
    """What one page shows.

    Attributes
    ----------
    id : str
    kind : str
        One of :data:`KINDS`.
    features : tuple of ShownFeature
    samples : tuple of tuple of str
        Sample ids, in the order shown, one tuple per set (two sets for class pairs).
    options : tuple of str
        The answers that can be chosen.
    """

    id: str
    kind: str
    features: tuple[ShownFeature, ...]
    samples: tuple[tuple[str, ...], ...]
    options: tuple[str, ...]


@dataclass(frozen=True)
class Key:
    """What the annotator must not see.

    Attributes
    ----------
    id : str
        Of the task.
    right : str or None
        The right option, where there is one.
    facts : mapping
        model, classes, probabilities, percentiles, which option is the control, ...; JSON-able.
    """

    id: str
    right: str | None
    facts: Mapping[str, object] = field(default_factory=dict)


def pick_percentile(
    values: np.ndarray, low: float, high: float, rng: np.random.Generator, taken: Sequence[int] = ()
) -> tuple[int, bool]:
    """Pick a random sample whose value lies between two percentiles.

    Parameters
    ----------
    values : ndarray (n,)
    low, high : float
        Percentiles in [0, 100]; the largest value is at 100.
    rng : numpy Generator
    taken : sequence of int
        Samples that may not be picked again.

    Returns
    -------
    (index, widened) : tuple of int and bool
        ``widened`` says that the range held no free sample and the nearest one was taken.
    """
    order = np.argsort(values, kind="stable")
    percentile = np.empty(len(values))
    percentile[order] = 100.0 * np.arange(1, len(values) + 1) / len(values)
    free = np.ones(len(values), dtype=bool)
    free[list(taken)] = False
    inside = np.flatnonzero(free & (percentile > low) & (percentile <= high))
    if len(inside):
        return int(rng.choice(inside)), False
    candidates = np.flatnonzero(free)
    distance = np.maximum(low - percentile[candidates], percentile[candidates] - high)
    return int(candidates[np.lexsort((-percentile[candidates], distance))[0]]), True


def make_simulation(
    model: str,
    weight: np.ndarray,
    probabilities: np.ndarray,
    y: np.ndarray,
    ids: Sequence[str],
    class_names: Sequence[str],
    *,
    classes: Sequence[int],
    repeats: int = 10,
    n_features: int = 5,
    threshold: float = 0.05,
    top: Mapping[int, int] | None = None,
    percentiles: Sequence[tuple[float, float]] = PERCENTILES,
    seed: int = 0,
) -> list[tuple[Task, Key]]:
    """Make the tasks in which people guess which sample a class's features suit best.

    Parameters
    ----------
    model : str
        "sparse" or "dense": goes into the ids and the key.
    weight : ndarray (K, d)
        Standardized weights.
    probabilities : ndarray (n, K)
        Of this model, on the samples.
    y, ids, class_names
        Labels (n,), sample ids (n,), names (K,).
    classes : sequence of int
    repeats : int
        Tasks per class.
    n_features : int
        Features shown, drawn from those with enough weight.
    threshold : float
        Share of the class's largest weight that a shown feature must have, fraction.
    top : mapping, optional
        Draw a class's features from its this many largest weights only; with the number of the
        *sparse* layer's features for both layers the comparison is fair (appendix D.3).
    percentiles : sequence of (low, high)
        One sample from each; the last one is the right answer.
    seed : int

    Returns
    -------
    list of (Task, Key)
        Classes without a feature above the threshold give none.
    """
    rng = np.random.default_rng([seed, len(model), *model.encode()])
    made = []
    for c in classes:
        pool = np.argsort(-weight[c], kind="stable")
        pool = pool[weight[c, pool] > threshold * max(float(weight[c].max()), 0.0)]
        pool = pool[weight[c, pool] > 0]
        if top is not None:
            pool = pool[: top[c]]
        for repeat in range(repeats if len(pool) else 0):
            shown = rng.choice(pool, size=min(n_features, len(pool)), replace=False)
            shown = shown[np.argsort(-weight[c, shown], kind="stable")]
            picked: list[int] = []
            widened = []
            for low, high in reversed(percentiles):  # the rarest range first, while all samples are free
                index, wide = pick_percentile(probabilities[:, c], low, high, rng, picked)
                picked.append(index)
                widened.append(wide)
            best = picked[int(np.argmax(probabilities[picked, c]))]
            order = rng.permutation(picked)
            task_id = f"simulation-{model}-{c}-{repeat}"
            options = tuple(str(i + 1) for i in range(len(order)))
            features = tuple(
                ShownFeature(int(f), chr(65 + i), round(100 * float(weight[c, f] / weight[c, shown[0]])))
                for i, f in enumerate(shown)
            )
            made.append(
                (
                    Task(task_id, "simulation", features, (tuple(ids[i] for i in order),), options),
                    Key(
                        task_id,
                        options[int(np.flatnonzero(order == best)[0])],
                        {
                            "model": model,
                            "class": class_names[c],
                            "class_index": int(c),
                            "probabilities": [float(p) for p in probabilities[order, c]],
                            "target_class": bool(y[best] == c),
                            "widened": bool(any(widened)),
                        },
                    ),
                )
            )
    return made


def make_pairs(
    shared: Sequence[Mapping[str, object]], *, model: str = "sparse", limit: int | None = 1000, seed: int = 0
) -> list[tuple[Task, Key]]:
    """Make the tasks in which people look for a pattern that two classes share.

    Parameters
    ----------
    shared : sequence of mapping
        Records of ``pairs/shared.jsonl``: classes, feature, samples of both classes.
    model : str
    limit : int, optional
        At most this many, drawn at random (the paper: 1000).
    seed : int
    """
    rng = np.random.default_rng(seed)
    chosen = np.arange(len(shared))
    if limit is not None and len(shared) > limit:
        chosen = np.sort(rng.choice(len(shared), size=limit, replace=False))
    made = []
    for number, i in enumerate(chosen):
        record = shared[int(i)]
        sets = [tuple(str(s["id"]) for s in part) for part in record["samples"]]  # type: ignore[attr-defined]
        names = [str(name) for name in record["classes"]]  # type: ignore[attr-defined]
        if rng.random() < 0.5:
            sets, names = sets[::-1], names[::-1]
        task_id = f"pairs-{model}-{number}"
        made.append(
            (
                Task(task_id, "pairs", (), tuple(sets), ("yes", "no")),
                Key(task_id, None, {"model": model, "classes": names, "feature": record["feature"]}),
            )
        )
    return made


def make_misclassification(
    errors: Sequence[Mapping[str, object]], features: Sequence[int], *, limit: int | None = None, seed: int = 0
) -> list[tuple[Task, Key]]:
    """Make the tasks in which people say which feature a misclassified sample shows.

    Each shows f_l (which speaks for the true class) and, with probability 1/2 each, f_p (which
    speaks for the predicted one) or a random feature as a control.

    Parameters
    ----------
    errors : sequence of mapping
        Records of ``diagnosis/errors.jsonl`` (those that one feature fixes): id, feature_right,
        feature_wrong, true, predicted.
    features : sequence of int
        Features the control is drawn from.
    limit, seed
        As in :func:`make_pairs`.
    """
    rng = np.random.default_rng(seed)
    chosen = np.arange(len(errors))
    if limit is not None and len(errors) > limit:
        chosen = np.sort(rng.choice(len(errors), size=limit, replace=False))
    made = []
    for number, i in enumerate(chosen):
        error = errors[int(i)]
        right, wrong = int(error["feature_right"]), int(error["feature_wrong"])  # type: ignore[call-overload]
        others = [f for f in features if f not in (right, wrong)]
        control = bool(rng.random() < 0.5) and bool(others)
        second = int(rng.choice(others)) if control else wrong
        pair = [right, second]
        if rng.random() < 0.5:
            pair = pair[::-1]
        shown = tuple(ShownFeature(f, name) for f, name in zip(pair, "AB", strict=True))
        names = {f.feature: f.name for f in shown}
        task_id = f"misclassification-{number}"
        facts = {
            "id": error["id"],
            "true": error["true"],
            "predicted": error["predicted"],
            "control": control,
            "option_right": names[right],
            "option_other": names[second],
        }
        sample = ((str(error["id"]),),)
        made.append((Task(task_id, "misclassification", shown, sample, MATCHES), Key(task_id, None, facts)))
    return made
