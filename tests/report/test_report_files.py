"""The page as a file: what it refers to, its policy, its names, its limits; no browser needed."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from debugnet.artifacts.provenance import read_provenance
from debugnet.errors import InputError, OutputExists, StaleArtifact, UsageError
from debugnet.recipes.report import Report, parse_size
from debugnet.report.content import build_content
from debugnet.report.html import asset, content_hash, page_key
from debugnet.stages import report
from tests.report.generated import hostile_material


class Page(HTMLParser):
    """Collects addresses, ids, scripts, styles and pictures without descriptions."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses, self.ids, self.bad, self.inline = [], [], [], {"script": [], "style": []}
        self.policy, self._open = "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.addresses += [given[name] for name in ("src", "href", "action", "poster", "srcset") if given.get(name)]
        self.ids += [given["id"]] if "id" in given else []
        self.bad += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "img" and "alt" not in given:
            self.bad.append("img without alt")
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        if tag in self.inline and given.get("type") != "application/json":
            self._open = tag
            self.inline[tag].append("")

    def handle_data(self, data):
        if self._open:
            self.inline[self._open][-1] += data

    def handle_endtag(self, tag):
        self._open = None if tag == self._open else self._open


def check(text: str) -> Page:
    page = Page(text)
    assert all(address.startswith(("data:", "#")) for address in page.addresses), page.addresses
    assert len(page.ids) == len(set(page.ids)) and not page.bad
    for kind in ("script", "style"):
        assert len(page.inline[kind]) == 1
        assert re.search(rf"{kind}-src [^;]*{re.escape(content_hash(page.inline[kind][0]))}", page.policy)
    assert page.policy.startswith("default-src 'none'") and "unsafe" not in page.policy
    return page


@pytest.fixture(scope="module")
def made(picture_run):
    return report.run(Report(picture_run / "head", samples=12))


def test_the_page_refers_to_nothing_outside_and_its_policy_names_what_is_in_it(made):
    check(made.path.read_text(encoding="utf-8"))
    with pytest.raises(AssertionError):  # a planted address is seen
        check(
            made.path.read_text(encoding="utf-8").replace("<main", '<img src="https://example.com/x.png" alt=""><main')
        )
    with pytest.raises(AssertionError):  # a changed script no longer has the hash that the policy names
        check(made.path.read_text(encoding="utf-8").replace('"use strict";', '"use strict";;'))


def test_scripts_never_parse_html():
    for name in ("core", "charts", "pieces", "overview", "features", "findings", "start"):
        script = asset(f"report_{name}.js")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|DOMParser", script
        )


def test_the_content_holds_what_the_artefacts_hold(made, picture_run):
    text = made.path.read_text(encoding="utf-8")
    content = json.loads(re.search(r'id="content">(.*?)</script>', text, re.S)[1])
    diagnosis = json.loads((picture_run / "diagnosis" / "diagnosis.json").read_text())
    assert content["errors"]["errors"] == diagnosis["errors"] > 0
    assert content["home"]["accuracy"]["value"] == pytest.approx(diagnosis["accuracy"]["value"], abs=1e-3)
    assert [e["name"] for e in content["edits"]] == ["head_without_3"] == [c["name"] for c in content["compare"]]
    assert content["counterfactuals"][0]["kind"] == "image" and content["pairs"] is not None
    wrong = [e for e in content["examples"] if not e["right"]]
    assert len(wrong) == min(diagnosis["errors"], 8) and all("picture" in e for e in content["examples"])
    for i in range(len(content["examples"])):  # every sum is exact, and right when compared with the layer
        part = json.loads(re.search(rf'id="part-e{i}">(.*?)</script>', text, re.S)[1])
        for output in part["outputs"]:
            total = output["bias"] + sum(term[1] for term in output["terms"]) + output["others"]
            assert total == pytest.approx(output["logit"], abs=1e-9) and abs(output["residual"]) < 1e-9


def test_the_first_page_names_the_suspects_once(tmp_path):
    content, _ = build_content(hostile_material(tmp_path, [f"s{i}" for i in range(500)]), n_samples=9, n_prototypes=2)
    named = [w for w in content["home"]["warnings"] if w.startswith("Under suspicion")]
    assert named == ["Under suspicion: the layer leans on feature 1 more than s353 bears out (see Errors)."]


def test_the_commands_that_a_page_names_can_be_run_as_they_stand(made, picture_run):
    import shlex

    import typer

    from debugnet.cli.app import app

    text = made.path.read_text(encoding="utf-8")
    commands = json.loads(re.search(r'id="content">(.*?)</script>', text, re.S)[1])["commands"]
    assert len(commands) > 5
    for line in commands.values():
        name, *words = shlex.split(line)
        assert name == "debugnet"
        command = typer.main.get_command(app)
        while hasattr(command, "resolve_command"):
            with command.make_context("debugnet", list(words)) as context:
                _, command, words = command.resolve_command(context, words)
        with command.make_context("debugnet", words) as context:  # refuses an unknown option or value
            assert context.params["head"] is not None, line
    assert "--feature" in commands["counterfactuals"]


def test_reused_refused_replaced(made, picture_run, tmp_path):
    again = report.run(Report(picture_run / "head", samples=12))
    assert again.reused and page_key(again.path)
    with pytest.raises(OutputExists, match="--force"):
        report.run(Report(picture_run / "head", samples=11))
    mine = tmp_path / "mine.html"
    mine.write_text("<h1>not a report</h1>")
    for force in (False, True):
        with pytest.raises(OutputExists, match="no debugnet report"):
            report.run(Report(picture_run / "head", output=mine), force=force)
    assert mine.read_text() == "<h1>not a report</h1>"


def test_too_large_a_page_gets_smaller_or_is_refused(made, picture_run, tmp_path):
    size = made.path.stat().st_size
    options = {"samples": 12, "output": tmp_path / "small.html"}
    result = report.run(Report(picture_run / "head", max_size=size - 1000, **options))
    assert result.path.stat().st_size < size and "--folder" in result.summary["left_out"]
    with pytest.raises(UsageError, match="--folder"):
        report.run(Report(picture_run / "head", max_size=1000, **options), force=True)
    assert parse_size("35MB") == 35_000_000 and parse_size("1.5 KiB") == 1536
    with pytest.raises(ValueError, match="35MB"):
        parse_size("large")


def test_only_what_belongs_to_the_head_goes_in(picture_run, text_run, tmp_path):
    with pytest.raises(StaleArtifact, match="another head"):
        report.run(
            Report(picture_run / "head_without_3", diagnosis=picture_run / "diagnosis", output=tmp_path / "r.html")
        )
    with pytest.raises(InputError, match="kind diagnosis"):
        report.run(Report(picture_run / "head", analysis=picture_run / "diagnosis", output=tmp_path / "r.html"))
    with pytest.raises(InputError, match="other features"):
        report.run(Report(picture_run / "head", edited=(text_run / "head",), output=tmp_path / "r.html"))
    with pytest.raises(InputError, match="features"):
        bad = tmp_path / "notes.yaml"
        bad.write_text("colour: red")
        report.run(Report(picture_run / "head", notes=bad, output=tmp_path / "r.html"))
    assert not (tmp_path / "r.html").exists()


def test_a_folder_of_parts(picture_run, tmp_path):
    result = report.run(Report(picture_run / "head", samples=6, folder=True, output=tmp_path / "parts"))
    assert read_provenance(result.path).kind == "report"
    text = (result.path / "index.html").read_text(encoding="utf-8")
    check(text)
    parts = {p.stem for p in (result.path / "parts").iterdir()}
    assert {"e0", "f0", "f3", "pairs"} <= parts and 'id="part-' not in text
    for reference in re.findall(r'"picture":\["(p[0-9a-f]+)"', text):
        assert reference in parts
    assert report.run(Report(picture_run / "head", samples=6, folder=True, output=tmp_path / "parts")).reused
