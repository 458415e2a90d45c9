"""The report in Chromium: every page, both themes, hostile texts, and nothing that leaves the machine."""

from __future__ import annotations

import dataclasses

import pytest

from debugnet.artifacts.head_store import load_head, save_head
from debugnet.artifacts.provenance import collect, input_reference
from debugnet.recipes.report import Report
from debugnet.report.content import build_content
from debugnet.report.html import report_page, write_parts
from debugnet.stages import report
from debugnet.stages.inputs import find_input
from tests.browser import Watch
from tests.report.generated import hostile_material

PAGES = {
    "#/": None, "#/features": "Features", "#/classes": "Classes", "#/pairs": "Pairs of classes", "#/errors": "Errors",
    "#/examples": "Samples", "#/counterfactuals": "Counterfactuals", "#/edits": "Edits and audits",
    "#/compare": "Two heads", "#/method": "Method", "#/class/0": None, "#/example/0": None,
}  # fmt: skip


def see_everything(watch: Watch) -> None:
    """Scroll to the end, so that what is drawn when seen is drawn."""
    watch.page.evaluate(
        "async () => { for (let y = 0; y < document.body.scrollHeight; y += 600)"
        " { scrollTo(0, y); await new Promise((r) => setTimeout(r, 20)); } }"
    )
    watch.settle()


def quiet(watch: Watch) -> None:
    assert watch.said == [] and watch.left == []


@pytest.fixture(scope="module")
def made(picture_run):
    options = Report(picture_run / "head", samples=12, output=picture_run.parent / "browser.html")
    return report.run(options, force=True).path


@pytest.fixture(scope="module")
def text_page(text_run):
    return report.run(Report(text_run / "head", samples=10), force=True).path


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_of_a_picture_report(browser, made, theme):
    watch = Watch(browser, color_scheme=theme)
    watch.open(made)
    for route, heading in PAGES.items():
        found = watch.go(route)
        assert heading in (None, found), route
        assert found in watch.page.title() and watch.page.evaluate("document.activeElement.tagName") in ("H1", "BODY")
        see_everything(watch)
        empty = watch.page.evaluate("[...document.images].filter((i) => i.src && !i.naturalWidth).length")
        assert empty == 0 and "undefined" not in watch.page.locator("main").inner_text()
        assert "NaN" not in watch.page.locator("main").inner_text()
    ground = watch.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(int(n) for n in ground[4:-1].split(",")) < 60) == (theme == "dark")
    quiet(watch)
    watch.context.close()


def test_links_are_followed_by_clicks_and_lead_somewhere(watch, made):
    watch.open(made)
    for title in watch.page.locator("#nav a").all_inner_texts():
        watch.page.get_by_role("navigation").get_by_role("link", name=title, exact=True).click()
        watch.page.wait_for_selector("#nav a[aria-current=page] >> text=" + title)
        watch.settle()
    routes = set()
    for route in PAGES:
        watch.go(route)
        routes |= set(watch.page.eval_on_selector_all("main a[href^='#']", "links => links.map((l) => l.hash)"))
    assert len(routes) > 20
    for route in sorted(routes):
        assert watch.go(route) != "Not in this report", route
    assert watch.go("#/feature/99999") == "Not in this report" == watch.go("#/constructor")
    quiet(watch)


def test_overlays_are_drawn_and_follow_their_controls(watch, made):
    watch.open(made, "#/feature/0")
    see_everything(watch)
    canvases = watch.page.locator("canvas[data-ok=true]")
    assert canvases.count() >= 2
    pixels = "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; return d.join(); }"
    tinted = canvases.first.evaluate(pixels)
    watch.page.locator("#strength").fill("0")
    bare = canvases.first.evaluate(pixels)
    assert tinted != bare
    watch.page.locator("#strength").fill("75")
    assert canvases.first.evaluate(pixels) == tinted
    watch.page.locator("#sign").select_option("against")
    assert canvases.first.evaluate(pixels) not in (tinted, bare)
    assert "R squared" in canvases.first.get_attribute("aria-label")
    assert watch.page.get_by_text("Effects and checks").count() >= 1
    quiet(watch)


def test_search_and_filters(watch, text_page):
    watch.open(text_page, "#/features")
    status = watch.page.locator("[role=status]")
    assert status.inner_text() == "2 features"
    watch.page.locator("#q").fill("feature 0")
    assert status.inner_text() == "1 feature of 2" and "feature\u00a00" in watch.page.locator("tbody").inner_text()
    watch.page.locator("#q").fill("superb")
    assert "superb" in watch.page.locator("tbody tr").first.inner_text()
    watch.page.locator("#q").fill("no such word")
    assert status.inner_text() == "0 features of 2"
    watch.page.locator("#q").fill("")
    watch.page.locator("#field-class").select_option("0")
    watch.page.locator("#field-sign").select_option("for")
    assert "class=0" in watch.page.url and "sign=for" in watch.page.url
    watch.page.reload()
    watch.settle()
    assert watch.page.locator("#field-sign").input_value() == "for"
    quiet(watch)


def test_words_are_shown_with_their_table(watch, text_page):
    watch.open(text_page, "#/feature/0")
    assert watch.page.locator(".cloud.for").inner_text().count("superb") == 1
    watch.page.get_by_text("All words with their effects").click()
    assert watch.page.get_by_role("row", name="superb").is_visible()
    assert watch.page.locator("mark.for").count() > 0
    watch.go("#/counterfactuals")
    assert watch.page.locator("del").count() > 0 and watch.page.locator("ins").count() > 0
    for route in PAGES:
        watch.go(route)
    quiet(watch)


def test_the_sum_of_two_opposite_classes_is_shown_once(watch, text_run, text_page, tmp_path):
    features = {"features": input_reference(find_input(text_run / "head", "features", None))}
    head = load_head(text_run / "head")
    assert (head.weight[0] == -head.weight[1]).all()
    lopsided = dataclasses.replace(head, weight=head.weight * [[1.0], [2.0]])
    save_head(tmp_path / "head", lopsided, collect("head", {"lopsided": True}, features))
    page = report.run(Report(tmp_path / "head", samples=4)).path
    for shown, sums in ((text_page, 1), (page, 2)):
        watch.open(shown, "#/example/0")
        assert watch.page.get_by_role("heading", name="The score of").count() == sums
        watch.go("#/feature/0")
        assert watch.page.locator(".lead .chip").count() == sums
    quiet(watch)


def test_the_keyboard_the_skip_link_and_a_narrow_screen(watch, made):
    watch.open(made)
    watch.page.keyboard.press("Tab")
    assert watch.page.evaluate("document.activeElement.className") == "skip"
    watch.page.keyboard.press("Enter")
    assert watch.page.evaluate("document.activeElement.id") == "main"
    watch.page.locator("#theme-choice").select_option("dark")
    assert watch.page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    watch.page.set_viewport_size({"width": 360, "height": 700})
    for route in PAGES:
        watch.go(route)
        wide = watch.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{route} is {wide} pixels too wide"
    unlabelled = "[...document.querySelectorAll('select, input')].filter((f) => !f.labels.length).length"
    for route in ("#/features", "#/examples", "#/feature/0"):
        watch.go(route)
        assert watch.page.evaluate(unlabelled) == 0
    quiet(watch)


def test_without_scripts_there_is_a_summary(browser, made):
    watch = Watch(browser, java_script_enabled=False)
    watch.page.goto(made.as_uri())
    text = watch.page.locator("noscript").inner_text()
    assert "Accuracy" in text and "3 (+0.83)" in text
    watch.context.close()


def test_the_folder_form_loads_its_parts(watch, picture_run, tmp_path):
    made = report.run(Report(picture_run / "head", samples=6, folder=True, output=tmp_path / "parts")).path
    watch.open(made / "index.html")
    for route in ("#/feature/0", "#/example/0", "#/pairs", "#/errors"):
        watch.go(route)
        see_everything(watch)
    watch.go("#/feature/0")
    see_everything(watch)
    assert watch.page.locator("canvas[data-ok=true]").count() >= 2
    quiet(watch)


def hostile_strings() -> list[str]:
    """500 texts that would do something if any were taken for more than text."""
    doing = "window.pwned=1"
    seeds = [
        f"<script>{doing}</script>", f"</script><script>{doing}</script>", f"<img src=x onerror={doing}>",
        f'"><svg onload={doing}>', f"javascript:{doing}", f"'-{doing}-'", f"${{{doing}}}", f"{{{{{doing}}}}}",
        f"{{% raw %}}{doing}", "<!--<script>", "-->", "]]>",
        "</style><style>*{background:url(https://evil.example/a)}",
        '<link rel=stylesheet href="https://evil.example/a.css">', "<iframe src=https://evil.example/></iframe>",
        '<img src="https://evil.example/x.png">', f"<a href='javascript:{doing}'>a</a>",
        "<base href=https://evil.example/>",
        '<meta http-equiv=refresh content="0;url=https://evil.example/">', "</title></head><body>", "</textarea>x",
        f"\u2028{doing}\u2029", "\u202egnp.exe", "&lt;b&gt;&amp;", "\\u003cscript\\u003e", "__proto__", "constructor",
        f"<form action=https://evil.example/><button autofocus onfocus={doing}>", "a\x00b\x07",
        "\U0001f600 \u0e01\u0e33 \u5b57",
        f"`;{doing};`", "'; DROP TABLE classes; --", "../../../etc/passwd", "x" * 400,
        f"<math><mtext></mtext><script>{doing}",
        f"<details open ontoggle={doing}>", f"<template><img src=x onerror={doing}></template>",
        f"' onmouseover='{doing}",
        '" style="background:url(https://evil.example/b)', "https://evil.example/?q=<b>", "\udcff lone",
    ]  # fmt: skip
    return [f"{seeds[i % len(seeds)]}{i}" for i in range(500)]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A page whose every name, word, note and id is hostile; with the strings."""
    folder, strings = tmp_path_factory.mktemp("hostile"), hostile_strings()
    content, blocks = build_content(hostile_material(folder, strings), n_samples=60, n_prototypes=2)
    page = folder / "page.html"
    page.write_text(report_page(content, blocks, key="k"), encoding="utf-8")
    (folder / "parts").mkdir()
    split = folder / "split"
    split.mkdir()
    (split / "index.html").write_text(report_page(content, None, key="k"), encoding="utf-8")
    write_parts(split, blocks)
    return page, split / "index.html", strings


@pytest.mark.parametrize("form", [0, 1], ids=["file", "folder"])
def test_500_hostile_strings_are_text(watch, hostile, form):
    page, strings = hostile[form], hostile[2]
    watch.open(page)
    n_classes = len(strings) // 10
    step = 15 if form else 5  # the lists show every name; the rest of each page is alike
    routes = [*PAGES, *(f"#/class/{k}" for k in range(0, n_classes, step))]
    routes += [f"#/{kind}/{i}" for kind in ("feature", "example") for i in range(0, 60, step)]
    for route in routes:
        watch.go(route)
        assert watch.page.evaluate("window.pwned") is None, route
        see_everything(watch)
    shown = watch.go("#/class/1")
    clean = " ".join(strings[1].replace("\x00", "").split())
    assert " ".join(shown.split()) == clean
    assert (
        watch.page.evaluate(
            "document.querySelectorAll('main script, main iframe, main form[action], main base').length"
        )
        == 0
    )
    quiet(watch)


def test_a_planted_violation_is_caught(watch, hostile, tmp_path):
    """The watch that the tests above trust does see a script, a request and a blocked picture."""
    text = hostile[0].read_text(encoding="utf-8")
    planted = tmp_path / "planted.html"
    planted.write_text(text.replace("<main", '<img src="https://evil.example/x.png" alt=""><main', 1), encoding="utf-8")
    watch.open(planted)
    assert any("Content Security Policy" in said for said in watch.said)
    free = tmp_path / "free.html"
    start, end = text.index("<meta http-equiv"), text.index(">", text.index("<meta http-equiv")) + 1
    body = '<img src="https://evil.example/x.png" alt=""><script>window.pwned = 1</script><main'
    free.write_text((text[:start] + text[end:]).replace("<main", body, 1), encoding="utf-8")
    watch.open(free)
    assert watch.left and watch.page.evaluate("window.pwned") == 1
