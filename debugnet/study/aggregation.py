"""From raw answers to labels: quality control, confidence-weighted votes, and the figures of the studies.

Wong, Santurkar & Madry (2021), appendices D.4, E.2 and G.1.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from debugnet.analysis.intervals import wilson_interval
from debugnet.study.tasks import Key

MIN_ANSWERS = {"simulation": 2, "pairs": 3, "misclassification": 2}
#: A worker who leaves more than this share of the tasks blank is removed.
MAX_BLANK = 0.8


@dataclass(frozen=True)
class Answer:
    """One worker's answer to one task.

    Attributes
    ----------
    task, worker : str
    choice : str
        Empty for a blank answer.
    confidence : int
        0-3.
    description : str
        Free text (pairs).
    parts : tuple of str
        For pairs: "object" or "surroundings" for the pattern in either class.
    """

    task: str
    worker: str
    choice: str
    confidence: int = 0
    description: str = ""
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vote:
    """The label of one task.

    Attributes
    ----------
    choice : str or None
        None = unresolved.
    why : str
        "" or why it is unresolved: "tie", "no confidence".
    n_answers : int
    weights : mapping
        Summed confidence per choice.
    """

    choice: str | None
    why: str
    n_answers: int
    weights: Mapping[str, int]


@dataclass(frozen=True)
class Cleaned:
    """Answers that count, and what was removed on the way.

    Attributes
    ----------
    by_task : mapping
        Answers of each task that has enough of them.
    workers_removed : tuple of str
    blank_answers : int
        Blank answers of the workers who stay.
    tasks_short : tuple of str
        Tasks with too few answers.
    """

    by_task: Mapping[str, tuple[Answer, ...]]
    workers_removed: tuple[str, ...]
    blank_answers: int
    tasks_short: tuple[str, ...]


def clean(
    answers: Sequence[Answer], tasks: Sequence[str], min_answers: int, *, max_blank: float = MAX_BLANK
) -> Cleaned:
    """Drop workers who are blank too often, blank answers, and tasks with too few answers left.

    Parameters
    ----------
    answers : sequence of Answer
    tasks : sequence of str
        All task ids of the study.
    min_answers : int
    max_blank : float
        A worker with a larger share of blank answers is removed, fraction.
    """
    given: Counter[str] = Counter(a.worker for a in answers)
    blank: Counter[str] = Counter(a.worker for a in answers if not a.choice)
    removed = tuple(sorted(w for w in given if blank[w] > max_blank * given[w]))
    by_task: dict[str, list[Answer]] = defaultdict(list)
    dropped = 0
    for answer in answers:
        if answer.worker in removed:
            continue
        if answer.choice:
            by_task[answer.task].append(answer)
        else:
            dropped += 1
    kept = {task: tuple(by_task[task]) for task in tasks if len(by_task[task]) >= min_answers}
    return Cleaned(kept, removed, dropped, tuple(task for task in tasks if task not in kept))


def vote(choices: Sequence[str], confidences: Sequence[int]) -> Vote:
    """Majority vote weighted by confidence; a tie, or confidence 0 throughout, stays unresolved."""
    weights: Counter[str] = Counter()
    for choice, confidence in zip(choices, confidences, strict=True):
        weights[choice] += confidence
    ranked = weights.most_common()
    if not ranked or ranked[0][1] == 0:
        return Vote(None, "no confidence", len(choices), dict(weights))
    if len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
        return Vote(None, "tie", len(choices), dict(weights))
    return Vote(ranked[0][0], "", len(choices), dict(weights))


def vote_task(answers: Sequence[Answer]) -> Vote:
    """Vote on one task's answers; where two features may both match, on the one that matches best."""
    return vote([a.choice.removeprefix("both-") for a in answers], [a.confidence for a in answers])


def accuracy(right: Sequence[bool]) -> dict[str, object]:
    """Share of what is right: ``accuracy`` (None if n = 0), its 95% Wilson ``interval``, ``n``.

    The paper's tables give 1.96 sqrt(p (1 - p) / n), which is 0 where everybody is right.
    """
    n = len(right)
    interval = wilson_interval(sum(right), n)
    return {"accuracy": float(np.mean(right)) if n else None, "interval": list(interval), "n": n}


def _clean_and_vote(
    answers: Sequence[Answer], keys: Mapping[str, Key], min_answers: int, max_blank: float
) -> tuple[Cleaned, dict[str, Vote]]:
    cleaned = clean(answers, list(keys), min_answers, max_blank=max_blank)
    return cleaned, {task: vote_task(given) for task, given in cleaned.by_task.items()}


def score_simulation(
    answers: Sequence[Answer],
    keys: Mapping[str, Key],
    *,
    min_answers: int | None = None,
    max_blank: float = MAX_BLANK,
) -> dict[str, object]:
    """Score the simulation study, per model: overall, right sample of the target class or not (Table 25).

    Returns
    -------
    dict
        JSON-able, per model: ``overall``, ``target_class``, ``other``, ``rank_histogram`` (chosen
        sample is the most, second, third ... probable one), ``per_class``, ``unresolved``; and
        ``quality`` of the answers.
    """
    cleaned, votes = _clean_and_vote(answers, keys, min_answers or MIN_ANSWERS["simulation"], max_blank)
    models: dict[str, object] = {}
    for model in sorted({str(key.facts["model"]) for key in keys.values()}):
        mine = {t: v for t, v in votes.items() if keys[t].facts["model"] == model}
        resolved = {t: v.choice == keys[t].right for t, v in mine.items() if v.choice is not None}
        ranks: Counter[int] = Counter()
        for task, given in mine.items():
            if given.choice is not None:
                probabilities = np.array(keys[task].facts["probabilities"])
                ranks[int((probabilities > probabilities[int(given.choice) - 1]).sum()) + 1] += 1
        per_class: dict[str, list[bool]] = defaultdict(list)
        for task, right in resolved.items():
            per_class[str(keys[task].facts["class"])].append(right)
        models[model] = {
            "overall": accuracy(list(resolved.values())),
            "target_class": accuracy([r for t, r in resolved.items() if keys[t].facts["target_class"]]),
            "other": accuracy([r for t, r in resolved.items() if not keys[t].facts["target_class"]]),
            "rank_histogram": {str(rank): ranks[rank] for rank in sorted(ranks)},
            "per_class": {name: accuracy(rights) for name, rights in sorted(per_class.items())},
            "unresolved": _unresolved(mine),
            "single_answers": accuracy([a.choice == keys[t].right for t in mine for a in cleaned.by_task[t]]),
        }
    return {"models": models, "quality": _quality(cleaned)}


def score_pairs(
    answers: Sequence[Answer],
    keys: Mapping[str, Key],
    *,
    min_answers: int | None = None,
    max_blank: float = MAX_BLANK,
) -> dict[str, object]:
    """Score the class-pair study: how many share a pattern, and how many of those lie in the surroundings.

    A pair is spurious where the vote puts the pattern into the surroundings of a class; ``one`` counts
    pairs where that holds for at least one of the two classes, ``both`` where for both.
    """
    cleaned, votes = _clean_and_vote(answers, keys, min_answers or MIN_ANSWERS["pairs"], max_blank)
    models: dict[str, object] = {}
    descriptions: Counter[str] = Counter()
    for model in sorted({str(key.facts["model"]) for key in keys.values()}):
        mine = {t: v for t, v in votes.items() if keys[t].facts["model"] == model}
        common = [t for t, v in mine.items() if v.choice == "yes"]
        spurious = []
        for task in common:
            agreeing = [a for a in cleaned.by_task[task] if a.choice == "yes"]
            descriptions.update(a.description.strip().lower() for a in agreeing if a.description.strip())
            parts = [
                vote(
                    [a.parts[side] for a in agreeing if len(a.parts) > side and a.parts[side]],
                    [a.confidence for a in agreeing if len(a.parts) > side and a.parts[side]],
                ).choice
                for side in (0, 1)
            ]
            spurious.append([part == "surroundings" for part in parts])
        resolved = [t for t, v in mine.items() if v.choice is not None]
        models[model] = {
            "common_pattern": accuracy([t in common for t in resolved]),
            "spurious_one": accuracy([any(s) for s in spurious]),
            "spurious_both": accuracy([all(s) for s in spurious]),
            "unresolved": _unresolved(mine),
        }
    return {"models": models, "descriptions": dict(descriptions.most_common()), "quality": _quality(cleaned)}


def score_misclassification(
    answers: Sequence[Answer],
    keys: Mapping[str, Key],
    *,
    min_answers: int | None = None,
    max_blank: float = MAX_BLANK,
) -> dict[str, object]:
    """Score the misclassification study: how often f_p is the best match, against the control's share.

    Returns
    -------
    dict
        JSON-able, for ``predicted_feature`` and ``control``: the share of tasks whose best match is
        the other feature and not f_l (or neither), ``matches_other`` and ``matches_right`` (the
        share of tasks that the vote finds either in, whichever matches best), ``unresolved``.
    """
    cleaned, votes = _clean_and_vote(answers, keys, min_answers or MIN_ANSWERS["misclassification"], max_blank)
    report: dict[str, object] = {}
    for name, is_control in (("predicted_feature", False), ("control", True)):
        mine = {t: v for t, v in votes.items() if bool(keys[t].facts["control"]) == is_control}
        resolved = [v.choice == keys[t].facts["option_other"] for t, v in mine.items() if v.choice is not None]
        report[name] = accuracy(resolved) | {
            "matches_other": accuracy(_matching(mine, cleaned, keys, "option_other")),
            "matches_right": accuracy(_matching(mine, cleaned, keys, "option_right")),
            "unresolved": _unresolved(mine),
        }
    report["quality"] = _quality(cleaned)
    return report


def _matching(tasks: Iterable[str], cleaned: Cleaned, keys: Mapping[str, Key], option: str) -> list[bool]:
    """Vote per task on whether the sample shows a feature at all; unresolved votes are left out."""
    found = []
    for task in tasks:
        name = str(keys[task].facts[option])
        given = cleaned.by_task[task]
        shows = ["yes" if a.choice == name or a.choice.startswith("both-") else "no" for a in given]
        label = vote(shows, [a.confidence for a in given]).choice
        if label is not None:
            found.append(label == "yes")
    return found


def _unresolved(votes: Mapping[str, Vote]) -> dict[str, int]:
    return dict(Counter(v.why for v in votes.values() if v.choice is None))


def _quality(cleaned: Cleaned) -> dict[str, object]:
    return {
        "workers_removed": list(cleaned.workers_removed),
        "blank_answers": cleaned.blank_answers,
        "tasks_with_too_few_answers": len(cleaned.tasks_short),
        "tasks_counted": len(cleaned.by_task),
    }
