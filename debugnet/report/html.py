"""From the content of a report to its page: one file that needs nothing else, or a folder of parts.

Everything that comes from data travels as JSON in ``<script type="application/json">`` elements and
is put on the page as text; the content security policy names the one script and the one style sheet
by their hashes, so nothing else runs and nothing is fetched.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from debugnet.report.blocks import Blocks, inert_json

#: Where the parts of the folder form lie.
PARTS = "parts"


@cache
def asset(name: str, package: str = "debugnet.report") -> str:
    """Read a template, style sheet or script of a package."""
    return (resources.files(package) / "templates" / name).read_text(encoding="utf-8")


def content_hash(text: str) -> str:
    """Return the source expression of the content security policy for an inline script or style."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode() + "'"


def render(
    template: str,
    scripts: Sequence[str],
    styles: Sequence[str],
    values: dict[str, Any],
    *,
    package: str = "debugnet.report",
    parts: bool = False,
    form_action: str = "'none'",
) -> str:
    """Fill a page's template.

    Parameters
    ----------
    template : str
    scripts, styles : sequence of str
        Assets, put one after the other into one script and one style element.
    values : dict
        What the template shows; escaped.
    package : str
        Whose templates.
    parts : bool
        Let scripts be loaded from the page's own folder.
    form_action : str
        Where forms may be posted to.
    """
    # Under file:// every file is an origin of its own and 'self' matches none: the scheme has to be named.
    script = "\n".join(asset(name, package) for name in scripts)
    style = "\n".join(asset(name, package) for name in styles)
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data:",
            f"style-src {content_hash(style)}",
            f"script-src {content_hash(script)}" + (" 'self' file:" if parts else ""),
            "base-uri 'none'",
            f"form-action {form_action}",
        )
    )
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.from_string(asset(template, package))
    text = page.render(policy=policy, script=Markup(script), style=Markup(style), **values)
    return text.encode("utf-8", "replace").decode("utf-8")  # names of files may hold what UTF-8 cannot


REPORT_SCRIPTS = (
    "report_core.js", "report_charts.js", "report_pieces.js", "report_overview.js", "report_features.js",
    "report_findings.js", "report_start.js",
)  # fmt: skip


def report_page(content: dict[str, Any], blocks: Blocks | None, *, key: str) -> str:
    """Write the page of a report.

    Parameters
    ----------
    content : dict
        See :func:`debugnet.report.content.build_content`.
    blocks : Blocks or None
        The parts to put into the page; None where they lie beside it.
    key : str
        Key of its provenance, found again by :func:`page_key`.
    """
    inline = [] if blocks is None else [(name, Markup(text)) for name, text in blocks]
    values = {
        "title": content["title"],
        "key": key,
        "content": Markup(inert_json(content)),
        "blocks": inline,
        "summary": content,
        "parts": PARTS if blocks is None else "",
    }
    return render("report.html", REPORT_SCRIPTS, ("report.css",), values, parts=blocks is None)


def write_parts(folder: Path, blocks: Blocks) -> None:
    """Write the parts of the folder form: one script each, since a page from disk may not fetch."""
    target = folder / PARTS
    target.mkdir()
    for name, text in blocks:
        (target / f"{name}.js").write_text(f'debugnetPart("{name}",{text});\n', encoding="utf-8")


def page_key(path: Path) -> str | None:
    """Return the provenance key of a page, or None where the file is no page of ours."""
    with open(path, encoding="utf-8", errors="replace") as file:
        start = file.read(4096)
    mark = '<meta name="debugnet-key" content="'
    at = start.find(mark)
    return start[at + len(mark) :].partition('"')[0] if at >= 0 else None
