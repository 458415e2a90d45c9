"""Tasks, aggregation against a brute-force rewrite, and machine annotators of known skill."""

from __future__ import annotations

import numpy as np
import pytest

from debugnet.study import aggregation
from debugnet.study.aggregation import Answer, clean, score_misclassification, score_pairs, score_simulation, vote
from debugnet.study.annotators import estimate_skill, simulate_answers
from debugnet.study.tasks import Key, make_misclassification, make_pairs, make_simulation, pick_percentile


def layer(seed: int = 0, n: int = 400, K: int = 6, d: int = 20):
    rng = np.random.default_rng(seed)
    weight = np.maximum(rng.normal(size=(K, d)), 0) * (rng.random((K, d)) < 0.5)
    Z = rng.normal(size=(n, d))
    logits = Z @ weight.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    ids = [f"s{i}" for i in range(n)]
    return weight, logits, p, p.argmax(axis=1), ids, [f"class{k}" for k in range(K)]


@pytest.fixture(scope="module")
def study():
    weight, logits, p, y, ids, names = layer()
    made = make_simulation("sparse", weight, p, y, ids, names, classes=range(6), repeats=20)
    tasks, keys = [t for t, _ in made], {k.id: k for _, k in made}
    log_odds = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True) - np.exp(logits))
    return tasks, keys, {"sparse": dict(zip(ids, log_odds, strict=True))}, (weight, p, ids)


def test_percentiles():
    values = np.arange(1000.0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        index, widened = pick_percentile(values, 90, 95, rng)
        assert 900 <= index < 950 and not widened
    assert pick_percentile(values, 99.99, 100, rng) == (999, False)
    assert pick_percentile(values[:10], 98, 99, rng, [9]) == (8, True)


def test_simulation_tasks_hold_what_they_promise(study):
    tasks, keys, _, (weight, p, ids) = study
    assert len(tasks) == 120
    position = {sample: i for i, sample in enumerate(ids)}
    for task in tasks:
        c = keys[task.id].facts["class_index"]
        shown = [f.feature for f in task.features]
        assert len(set(shown)) == len(shown) <= 5 and (weight[c, shown] > 0.05 * weight[c].max()).all()
        assert task.features[0].importance == 100
        rows = [position[s] for s in task.samples[0]]
        assert len(set(rows)) == 3
        assert task.options[int(np.argmax(p[rows, c]))] == keys[task.id].right
    places = [keys[t.id].right for t in tasks]
    assert all(places.count(option) > 20 for option in "123")
    again = make_simulation(
        "sparse", weight, p, p.argmax(1), ids, [f"class{k}" for k in range(6)], classes=range(6), repeats=20
    )
    assert [t for t, _ in again] == tasks


def test_the_task_does_not_name_what_the_study_hides(study):
    tasks, keys, _, _ = study
    for task in tasks:
        text = repr(task)
        assert str(keys[task.id].facts["class"]) not in text and "prob" not in text


def test_oracle_random_and_noisy_annotators(study):
    tasks, keys, scores, _ = study
    oracle = score_simulation(simulate_answers(tasks, keys, scores, skill=1.0), keys)["models"]["sparse"]
    assert oracle["overall"]["accuracy"] > 0.98
    guess = score_simulation(simulate_answers(tasks, keys, scores, skill=0.0, seed=1), keys)["models"]["sparse"]
    single = guess["single_answers"]
    assert single["interval"][0] < 1 / 3 < single["interval"][1]
    for skill in (0.3, 0.7):
        noisy = score_simulation(simulate_answers(tasks, keys, scores, skill=skill, seed=2), keys)["models"]["sparse"]
        found = estimate_skill(noisy["single_answers"]["accuracy"], oracle["single_answers"]["accuracy"])
        assert abs(found - skill) < 0.1


def brute_force_labels(answers, tasks, min_answers):
    """Oracle: the rules of the appendix, one sentence at a time."""
    workers = {a.worker for a in answers}
    for worker in list(workers):
        own = [a for a in answers if a.worker == worker]
        if sum(a.choice == "" for a in own) / len(own) > 0.8:
            workers.remove(worker)
    labels = {}
    for task in tasks:
        own = [a for a in answers if a.task == task and a.worker in workers and a.choice != ""]
        if len(own) < min_answers:
            continue
        totals = {}
        for a in own:
            totals[a.choice] = totals.get(a.choice, 0) + a.confidence
        top = max(totals.values())
        winners = [c for c, w in totals.items() if w == top]
        labels[task] = winners[0] if len(winners) == 1 and top > 0 else None
    return labels


def test_aggregation_against_a_brute_force_rewrite():
    rng = np.random.default_rng(0)
    for _ in range(30):
        tasks = [f"t{i}" for i in range(8)]
        lazy = rng.random(6) < 0.3
        answers = [
            Answer(
                t,
                f"w{w}",
                "" if rng.random() < (0.9 if lazy[w] else 0.15) else str(rng.choice(["a", "b", "c"])),
                int(rng.integers(0, 4)),
            )
            for t in tasks
            for w in range(6)
            if rng.random() < 0.7
        ]  # fmt: skip
        cleaned = clean(answers, tasks, 2)
        found = {t: aggregation.vote_task(given).choice for t, given in cleaned.by_task.items()}
        assert found == brute_force_labels(answers, tasks, 2)
        assert set(cleaned.tasks_short) == set(tasks) - set(found)


def test_ties_and_no_confidence_stay_unresolved():
    assert vote(["a", "b"], [2, 2]).why == "tie"
    assert vote(["a", "b", "a"], [0, 0, 0]).why == "no confidence"
    assert vote(["a", "b", "b"], [3, 1, 1]).choice == "a"


def test_pairs_study():
    shared = [{"classes": ["cat", "dog"], "feature": 3, "samples": [[{"id": "c1"}, {"id": "c2"}], [{"id": "d1"}]]}] * 4
    made = make_pairs(shared, limit=3)
    assert len(made) == 3
    keys = {k.id: k for _, k in made}
    answers = []
    for number, (task, _) in enumerate(made):
        part = "surroundings" if number < 2 else "object"
        answers += [Answer(task.id, f"w{w}", "yes", 2, "Green grass", (part, "object")) for w in range(3)]
    report = score_pairs(answers, keys)["models"]["sparse"]
    assert report["common_pattern"]["accuracy"] == 1.0
    assert report["spurious_one"]["accuracy"] == pytest.approx(2 / 3) and report["spurious_both"]["accuracy"] == 0.0
    assert score_pairs(answers, keys)["descriptions"] == {"green grass": 9}
    assert score_pairs(answers[:2], keys)["quality"]["tasks_with_too_few_answers"] == 3


def test_misclassification_study_separates_control():
    errors = [
        {"id": f"s{i}", "feature_right": 1, "feature_wrong": 2, "true": "a", "predicted": "b"} for i in range(200)
    ]
    made = make_misclassification(errors, features=[1, 2, 3, 4])
    keys: dict[str, Key] = {k.id: k for _, k in made}
    controls = [k for k in keys.values() if k.facts["control"]]
    assert 70 < len(controls) < 130
    answers = []
    for task, key in made:
        if key.facts["control"]:
            choices = [str(key.facts["option_right"])] * 2
        else:  # both match, and the one who is surer finds the predicted class's feature the better match
            choices = [f"both-{key.facts['option_other']}", f"both-{key.facts['option_right']}"]
        answers += [Answer(task.id, f"w{w}", choice, 3 - w) for w, choice in enumerate(choices)]
    report = score_misclassification(answers, keys)
    predicted, control = report["predicted_feature"], report["control"]
    assert predicted["accuracy"] == predicted["matches_right"]["accuracy"] == 1.0
    assert control["accuracy"] == control["matches_other"]["accuracy"] == 0.0
    low, high = predicted["interval"]
    assert high == 1.0 and 0.9 < low < 1.0  # an interval of no width would claim certainty
