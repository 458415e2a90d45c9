"""Machine annotators, to try a study's design before people see it.  No substitute for people.

They answer from the model's own features: an oracle reads what a task's class makes of each sample,
or how much its features are activated; a random one reads nothing; a noisy one is the oracle with a
known probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from debugnet.study.aggregation import Answer
from debugnet.study.tasks import Key, Task


def simulate_answers(
    tasks: Sequence[Task],
    keys: Mapping[str, Key],
    scores: Mapping[str, Mapping[str, np.ndarray]],
    *,
    skill: float,
    n_workers: int = 5,
    blank: float = 0.0,
    seed: int = 0,
) -> list[Answer]:
    """Answer simulation tasks.

    Parameters
    ----------
    tasks : sequence of Task
        Of kind "simulation".
    keys : mapping
        Only the class and the model are read: the oracle must know whose features it looks at.
    scores : mapping
        ``{model: {sample id: (K,)}}``: log-odds of each class against all others, summed up from
        the feature activations.  (The class's logit alone ranks about one sample in eight wrongly,
        because probabilities also depend on what the other classes make of the sample.)
    skill : float
        Probability of answering as the oracle; the rest is guessed.  1 = oracle, 0 = random.
    n_workers : int
        Answers per task.
    blank : float
        Probability of leaving a task blank.
    seed : int

    Returns
    -------
    list of Answer
        Worker names begin with "machine-".
    """
    best = {}
    for task in tasks:
        facts = keys[task.id].facts
        mine, target = scores[str(facts["model"])], int(facts["class_index"])  # type: ignore[call-overload]
        best[task.id] = task.options[int(np.argmax([mine[sample][target] for sample in task.samples[0]]))]
    return _answer(tasks, best, skill, n_workers, blank, seed)


def simulate_reading(
    tasks: Sequence[Task],
    keys: Mapping[str, Key],
    activations: Mapping[str, np.ndarray],
    *,
    skill: float,
    n_workers: int = 5,
    blank: float = 0.0,
    seed: int = 0,
) -> list[Answer]:
    """Answer tasks of the kinds "pairs" and "misclassification" from the activations of their features.

    The oracle calls a pattern common where every sample of both groups has more of the feature than
    the average sample; of two features it finds those that the sample has more of than average, and
    of both the stronger one.  It cannot tell object from surroundings, and says so by leaving that
    blank.

    Parameters
    ----------
    tasks, keys, n_workers, blank, seed
        As in :func:`simulate_answers`.
    activations : mapping
        Sample id -> standardized features (d,).
    skill : float
        As there.
    """
    best = {}
    for task in tasks:
        if task.kind == "pairs":
            feature = int(keys[task.id].facts["feature"])  # type: ignore[call-overload]
            common = all(activations[sample][feature] > 0 for group in task.samples for sample in group)
            best[task.id] = "yes" if common else "no"
        else:
            values = {f.name: float(activations[task.samples[0][0]][f.feature]) for f in task.features}
            strongest = max(values, key=lambda name: values[name])
            both = min(values.values()) > 0
            best[task.id] = f"both-{strongest}" if both else strongest if values[strongest] > 0 else "neither"
    return _answer(tasks, best, skill, n_workers, blank, seed)


def _answer(
    tasks: Sequence[Task], best: Mapping[str, str], skill: float, n_workers: int, blank: float, seed: int
) -> list[Answer]:
    rng = np.random.default_rng(seed)
    answers = []
    for task in tasks:
        for worker in range(n_workers):
            knows = rng.random() < skill
            choice = best[task.id] if knows else str(rng.choice(task.options))
            empty = rng.random() < blank
            confidence = int(rng.integers(1, 4))
            answers.append(Answer(task.id, f"machine-{worker}", "" if empty else choice, confidence))
    return answers


def estimate_skill(accuracy: float, oracle_accuracy: float, n_options: int = 3) -> float:
    """Skill behind the accuracy of single answers: ``(a - 1/m) / (a_oracle - 1/m)`` for m options."""
    chance = 1.0 / n_options
    return (accuracy - chance) / (oracle_accuracy - chance)
