"""study make, simulate and score on a planted run: what is hidden, the whole loop, and bad answer sheets."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from debugnet.artifacts.bundle import read_json
from debugnet.artifacts.head_store import load_head, save_head
from debugnet.artifacts.provenance import collect, input_reference
from debugnet.errors import InputError, UsageError
from debugnet.recipes.study_make import StudyMake, parse_percentiles
from debugnet.recipes.study_score import StudyScore
from debugnet.recipes.study_simulate import StudySimulate
from debugnet.report.html import content_hash
from debugnet.stages import study_make, study_score, study_simulate
from debugnet.study.annotators import estimate_skill
from debugnet.study.folder import load_study
from debugnet.study.tasks import MATCHES
from tests.stages.planted import planted_problem, write_store
from tests.stages.test_chain import GRID

NAMES = ["ash <b>", "birch", "cedar"]


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    """A head selected from a path on the planted problem, with pairs and a diagnosis beside it."""
    from debugnet.recipes.diagnose import Diagnose
    from debugnet.recipes.fit_path import FitPath
    from debugnet.recipes.pairs import Pairs
    from debugnet.recipes.select import Select
    from debugnet.stages import diagnose, fit_path, pairs, select

    folder = tmp_path_factory.mktemp("study_run")
    features, labels = planted_problem()
    store = write_store(folder / "features.h5", features, labels, class_names=NAMES)
    path = fit_path.run(FitPath(store, **GRID)).path
    chosen = select.run(Select(path, drop=0.01)).path
    loaded = load_head(chosen)
    weight = loaded.weight * 1.0
    weight[:3, 9] = 0.5 * np.abs(weight).max() * loaded.standardizer.inverse_scale[9]  # shared by all
    inputs = {"features": input_reference(store), "path": input_reference(path)}
    save_head(folder / "shared", dataclasses.replace(loaded, weight=weight), collect("head", {"shared": 9}, inputs))
    diagnose.run(Diagnose(folder / "shared", split="test"))
    pairs.run(Pairs(folder / "shared", split="test", permutations=5))
    return folder / "shared"


@pytest.fixture(scope="module")
def simulation(head, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("made") / "study"
    return study_make.run(StudyMake(head, output=output, repeats=40, percentiles=("30-60", "80-90", "99-100"))).path


def score(study: Path, folder: Path, **options) -> dict:
    answers = study_simulate.run(StudySimulate(study, output=folder / "answers", **options)).path
    study_score.run(StudyScore(study, (answers,), output=folder / "scores"))
    return read_json(folder / "scores" / "scores.json")


def test_the_pages_hide_what_the_key_holds(simulation):
    study = load_study(simulation)
    assert {key.facts["model"] for key in study.keys.values()} == {"sparse", "dense"} and len(study.tasks) == 240
    assert not (simulation / "public" / "key.jsonl").exists()
    public = sorted((simulation / "public").iterdir())
    assert {p.name for p in public} == {"index.html", "tasks.csv", *(f"{t.id}.html" for t in study.tasks)}
    for file in public:
        text = file.read_text(encoding="utf-8")
        body = re.sub(r"<(script|style)>.*?</\1>", "", text, flags=re.S)
        for hidden in (*NAMES, "ash", "sparse", "dense", "test/", "right", "probab", "percentile"):
            assert hidden not in body, (file.name, hidden)
    # order and ids say nothing: both layers are spread over all places
    models = [study.keys[task.id].facts["model"] for task in study.tasks]
    assert 0.3 < np.mean([m == "dense" for m in models[:120]]) < 0.7
    rights = [study.keys[task.id].right for task in study.tasks]
    assert min(rights.count(option) for option in "123") > 50


class Form(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.fields: dict[str, set[str]] = {}
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "input" and "name" in given:
            self.fields.setdefault(given["name"], set()).add(given.get("value") or "")
        self.addresses += [given[name] for name in ("src", "href", "action") if given.get(name)]


@pytest.mark.parametrize(
    "kind, choices", [("simulation", "123"), ("pairs", ("yes", "no")), ("misclassification", MATCHES)]
)
def test_each_kind_asks_its_questions_and_refers_to_nothing_outside(head, tmp_path, kind, choices):
    made = study_make.run(StudyMake(head, output=tmp_path / "s", kind=kind, limit=6, repeats=1)).path
    study = load_study(made)
    assert 0 < len(study.tasks) <= 6
    for task in study.tasks:
        text = (made / "public" / f"{task.id}.html").read_text(encoding="utf-8")
        form = Form(text)
        assert form.fields["choice"] == set(choices) and form.fields["confidence"] == set("0123")
        assert form.fields["task"] == {task.id}
        assert ("description" in form.fields) == (kind == "pairs") == ("part_2" in form.fields)
        assert all(a.startswith("data:") or re.fullmatch(r"(t\d+|index)\.html", a) for a in form.addresses)
        for tag in ("script", "style"):
            inline = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S)[1]
            assert content_hash(inline).replace("'", "&#39;") in text
        assert "form-action &#39;none&#39;" in text
    machine = score(made, tmp_path, workers=4)
    assert machine["quality"]["tasks_counted"] == len(study.tasks) and machine["machines"]


def test_a_crowd_platform_gets_its_form_and_nothing_else_may(head, tmp_path):
    options = {"kind": "simulation", "limit": 1, "repeats": 1, "output": tmp_path / "s"}
    made = study_make.run(StudyMake(head, submit_to="https://www.mturk.com/mturk/externalSubmit", **options)).path
    text = (made / "public" / "t1.html").read_text(encoding="utf-8")
    assert 'action="https://www.mturk.com/mturk/externalSubmit"' in text
    assert "form-action https://www.mturk.com" in text
    for bad in ("http://x.example/", "https://x.example/; script-src *", "javascript:1"):
        with pytest.raises(UsageError, match="submit-to"):
            study_make.run(StudyMake(head, submit_to=bad, **options), force=True)


def test_the_same_seed_makes_the_same_study(head, tmp_path):
    made = [
        study_make.run(StudyMake(head, output=tmp_path / name, seed=seed, repeats=2)).path
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    keys = [(folder / "key" / "key.jsonl").read_bytes() for folder in made]
    assert keys[0] == keys[1] != keys[2]
    assert study_make.run(StudyMake(head, output=tmp_path / "a", repeats=2)).reused


def test_the_oracle_is_right_the_random_one_at_chance_and_the_noisy_one_as_skilled_as_told(simulation, tmp_path):
    oracle = score(simulation, tmp_path / "oracle", annotator="oracle")["models"]
    for model in ("sparse", "dense"):
        assert oracle[model]["overall"]["accuracy"] > 0.98
    random = score(simulation, tmp_path / "random", annotator="random", workers=10)["models"]
    single = random["sparse"]["single_answers"]
    assert single["interval"][0] < 1 / 3 < single["interval"][1] and single["n"] == 1200
    for skill in (0.3, 0.7):
        noisy = score(simulation, tmp_path / f"noisy{skill}", annotator="noisy", skill=skill, workers=10)["models"]
        found = estimate_skill(
            noisy["sparse"]["single_answers"]["accuracy"], oracle["sparse"]["single_answers"]["accuracy"]
        )
        assert found == pytest.approx(skill, abs=0.06)
        assert noisy["sparse"]["overall"]["accuracy"] > noisy["sparse"]["single_answers"]["accuracy"]


def test_machine_answers_say_so_everywhere(simulation, tmp_path):
    made = study_simulate.run(StudySimulate(simulation, output=tmp_path / "a", workers=3, blank=0.95))
    assert "NO SUBSTITUTE" in made.text
    lines = (made.path / "answers.csv").read_text().splitlines()[1:]
    assert all(",machine-" in line for line in lines)
    told = study_score.run(StudyScore(simulation, (made.path,), output=tmp_path / "s"))
    assert "MACHINE ANSWERS" in told.text
    quality = told.summary["quality"]
    assert len(quality["workers_removed"]) == 3 and quality["tasks_counted"] == 0  # blank in 95% of the tasks


def test_answers_come_from_csv_json_and_crowd_platforms_alike(simulation, tmp_path):
    study = load_study(simulation)
    tasks = study.tasks[:30]
    rows = [(t.id, study.keys[t.id].right) for t in tasks]
    plain = "task,worker,choice,confidence\n" + "".join(f"{t},w{w},{r},3\n" for t, r in rows for w in (1, 2))
    crowd = "Answer.task,WorkerId,Answer.choice,Answer.confidence,HITId\n" + "".join(
        f"{t},w{w},{r},3,x\n" for t, r in rows for w in (1, 2)
    )
    sheets = [
        {
            "study": study.id,
            "worker": f"w{w}",
            "answers": [{"task": t, "choice": r, "confidence": "3"} for t, r in rows],
        }
        for w in (1, 2)
    ]
    found = []
    for name, text in (("a.csv", plain), ("b.csv", "\ufeff" + crowd), ("c.json", json.dumps(sheets))):
        (tmp_path / name).write_text(text, encoding="utf-8")
        result = study_score.run(StudyScore(simulation, (tmp_path / name,), output=tmp_path / f"{name}.scores"))
        found.append(result.summary["models"])
        assert result.summary["machines"] == [] and result.summary["quality"]["tasks_counted"] == 30
    assert found[0] == found[1] == found[2]
    assert found[0]["sparse"]["overall"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    "text, says",
    [
        ("task,worker,choice\nt999999,w,1\n", "no task"),
        ("task,worker,choice\n{task},w,7\n", "'7' is not one of 1, 2, 3"),
        ("task,worker,choice,confidence\n{task},w,1,9\n", "confidence '9'"),
        ("task,worker,choice\n{task},,1\n", "no worker"),
        ("a,b\n1,2\n", "task, worker and choice"),
    ],
)
def test_bad_answers_are_named_with_their_place(simulation, tmp_path, text, says):
    sheet = tmp_path / "answers.csv"
    sheet.write_text(text.format(task=load_study(simulation).tasks[0].id))
    with pytest.raises(InputError, match=says):
        study_score.run(StudyScore(simulation, (sheet,), output=tmp_path / "s"))
    assert not (tmp_path / "s").exists()


def test_answers_to_another_study_are_refused(simulation, tmp_path):
    sheet = tmp_path / "a.json"
    sheet.write_text(json.dumps({"study": "another", "worker": "w", "answers": []}))
    with pytest.raises(InputError, match="another"):
        study_score.run(StudyScore(simulation, (sheet,), output=tmp_path / "s"))
    sheet.write_text("[[]]")
    with pytest.raises(InputError, match="no answer sheet"):
        study_score.run(StudyScore(simulation, (sheet,), output=tmp_path / "s"))


def test_percentiles_are_read_strictly():
    assert parse_percentiles("90-95, 99.99-100") == ("90-95", "99.99-100")
    for bad in ("90", "95-90,1-2", "1-101,2-3", "1-2"):
        with pytest.raises(ValueError):
            parse_percentiles(bad)
