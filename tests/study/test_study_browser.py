"""A worker answers a whole study in Chromium, saves the answers, and they are scored."""

from __future__ import annotations

import re

import pytest

from debugnet.recipes.study_make import StudyMake
from debugnet.recipes.study_score import StudyScore
from debugnet.stages import study_make, study_score
from debugnet.study.folder import load_study
from tests.browser import Watch
from tests.study.test_study_commands import head  # noqa: F401


@pytest.mark.parametrize("kind", ["simulation", "pairs", "misclassification"])
def test_a_worker_answers_and_the_answers_are_scored(browser, head, tmp_path, kind):  # noqa: F811
    options = StudyMake(head, output=tmp_path / "study", kind=kind, limit=3, repeats=1, dense=False)
    made = study_make.run(options).path
    study = load_study(made)
    sheets = []
    for worker in ("first", 'second, "w"', "third"):
        watch = Watch(browser)
        watch.open(made / "public" / "index.html")
        watch.page.locator("#csv").click()  # without a name nothing is saved, and it is said why
        assert watch.page.locator("#problem").is_visible()
        watch.page.get_by_label("Your name or number").fill(worker)
        watch.page.locator("#start").click()
        for number, task in enumerate(study.tasks):
            watch.page.wait_for_url(re.compile(rf"/{task.id}\.html$"))
            watch.settle()
            if number == 0 and worker == "third":
                watch.page.locator("#skip").click()
                continue
            watch.page.locator("#submit").click()
            assert watch.page.locator("#problem").is_visible()  # nothing chosen yet
            right = study.keys[task.id].right or ("both-A" if kind == "misclassification" else task.options[0])
            watch.page.locator(f"input[name=choice][value='{right}']").check()
            watch.page.get_by_label("very").check()
            if kind == "pairs":
                watch.page.get_by_label("In fewer than five words").fill('snow, "white"')
                watch.page.locator("input[name=part_1][value=surroundings]").check()
                watch.page.locator("input[name=part_2][value=object]").check()
            watch.page.locator("#submit").click()
        watch.page.wait_for_url(re.compile(r"/index\.html$"))
        watch.settle()
        n = len(study.tasks)
        assert watch.page.locator("#progress").inner_text() == f"{n} of {n} tasks answered"
        assert watch.page.get_by_label("Your name or number").input_value() == worker
        button = "#csv" if worker == "first" else "#json"
        with watch.page.expect_download() as saved:
            watch.page.locator(button).click()
        sheet = tmp_path / saved.value.suggested_filename
        saved.value.save_as(sheet)
        sheets.append(sheet)
        assert watch.said == [] and watch.left == []
        watch.context.close()
    result = study_score.run(StudyScore(made, tuple(sheets), output=tmp_path / "scores", min_answers=2))
    report = result.summary
    assert report["workers"] == 3 and report["answers"] == 3 * n and report["quality"]["blank_answers"] == 1
    assert report["quality"]["tasks_counted"] == n and "MACHINE" not in result.text
    if kind == "simulation":
        overall = report["models"]["sparse"]["overall"]
        assert overall["accuracy"] == 1.0 and overall["n"] == n
    elif kind == "pairs":
        assert report["models"]["sparse"]["spurious_one"]["accuracy"] == 1.0
        assert report["models"]["sparse"]["spurious_both"]["accuracy"] == 0.0
        assert report["descriptions"] == {'snow, "white"': 3 * n - 1}
        assert (result.path / "descriptions.png").stat().st_size > 1000
    else:
        shown = [report[name] for name in ("predicted_feature", "control") if report[name]["n"]]
        assert all(row[match]["accuracy"] == 1.0 for row in shown for match in ("matches_other", "matches_right"))


def test_two_windows_never_overwrite_each_others_answers(browser, head, tmp_path):  # noqa: F811
    made = study_make.run(StudyMake(head, output=tmp_path / "study", limit=3, repeats=1, dense=False)).path
    tasks = load_study(made).tasks
    watch = Watch(browser)
    watch.open(made / "public" / "index.html")
    windows = []
    for task in tasks[:2]:  # both are open before either has an answer
        window = watch.context.new_page()
        window.goto((made / "public" / f"{task.id}.html").as_uri())
        windows.append(window)
    for window in windows:
        window.locator("#skip").click()
    watch.page.get_by_text(f"2 of {len(tasks)} tasks answered", exact=True).wait_for(timeout=20000)  # without a reload
    watch.context.close()
