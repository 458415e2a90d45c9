"""``debugnet report``: a head and everything known about it -> one page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import artifact_key, check_output, collect
from debugnet.errors import OutputExists, UsageError
from debugnet.progress import log
from debugnet.recipes.report import Report
from debugnet.stages.report_inputs import find_inputs
from debugnet.stages.result import Result

if TYPE_CHECKING:
    from debugnet.report.blocks import Blocks
    from debugnet.report.material import Material

_KIND = "report"


def run(options: Report, *, force: bool = False) -> Result:
    """Write the report of ``options.head``: a page, or with ``folder`` a folder with index.html.

    Raises
    ------
    InputError, StaleArtifact
        Something named does not belong to the head.
    UsageError
        The page does not fit into ``max_size`` even with one sample per tail.
    """
    if options.samples < 1 or options.prototypes < 1:
        raise UsageError("--samples and --prototypes: at least 1")
    inputs = find_inputs(options)
    references = inputs.references
    beside = Path(options.head if Path(options.head).name else Path(options.head).absolute()).parent
    output = options.output or beside / ("report" if options.folder else "report.html")
    key = artifact_key(_KIND, options, references)
    if _is_current(output, options, references, key, force):
        return Result(output, {"size": _size(output)}, True, f"{output}: up to date")
    from debugnet.stages.report_inputs import load_material

    started = time.monotonic()
    material = load_material(options, inputs)
    content, blocks, left_out = _fit(material, options)
    provenance = collect(_KIND, options, references, seconds=time.monotonic() - started)
    if options.folder:
        _write_folder(output, content, blocks, provenance, key)
    else:
        _write_file(output, content, blocks, key)
    summary = {
        "size": _size(output),
        "features": len(content["features"]),
        "classes": len(content["classes"]),
        "examples": len(content["examples"]),
        "prototypes": content["method"]["prototypes"],
        "left_out": left_out,
    }
    return Result(output, summary, False, _describe(output, summary))


def _is_current(output: Path, options: Report, references: dict[str, Any], key: str, force: bool) -> bool:
    if options.folder or not output.is_file():
        return check_output(output, _KIND, options, references, force=force)
    from debugnet.report.html import page_key

    found = page_key(output)
    if found == key and not force:
        return True
    if found is None:
        raise OutputExists(f"{output} exists and is no debugnet report; choose another output")
    if not force:
        raise OutputExists(f"{output} exists, made with other options or from other artefacts; --force replaces it")
    return False


def _fit(material: Material, options: Report) -> tuple[dict[str, Any], Blocks, str]:
    """Build the content, with fewer samples per tail and fewer pages of samples where the file would be too large."""
    from debugnet.report.content import build_content
    from debugnet.report.html import report_page

    n_samples, n_prototypes = options.samples, options.prototypes
    while True:
        content, blocks = build_content(material, n_samples=n_samples, n_prototypes=n_prototypes)
        size = blocks.size + len(report_page(content, None, key="").encode())
        if options.folder or size <= options.max_size:
            break
        if n_prototypes == 1 and n_samples == 1:
            raise UsageError(
                f"the page would have {size / 1e6:.1f} MB, more than --max-size {options.max_size / 1e6:g}MB, even "
                "with one sample per tail of a feature: use --folder, a larger --max-size, or a sparser head"
            )
        n_prototypes, n_samples = max(1, n_prototypes // 2), max(1, n_samples // 2)
        log(f"{size / 1e6:.1f} MB is too large: {n_prototypes} samples per tail, {n_samples} pages of samples instead")
    left_out = ""
    if (n_samples, n_prototypes) != (options.samples, options.prototypes):
        left_out = (
            f"To stay under {options.max_size / 1e6:g} MB, {n_prototypes} instead of {options.prototypes} samples "
            f"per tail and {n_samples} instead of {options.samples} samples with pages are here; --folder has no "
            "such limit."
        )
        content["home"]["warnings"].append(left_out)
    return content, blocks, left_out


def _write_file(output: Path, content: dict[str, Any], blocks: Blocks, key: str) -> None:
    from debugnet.artifacts.atomic import atomic_file, lock
    from debugnet.report.html import report_page

    page = report_page(content, blocks, key=key)
    with lock(output), atomic_file(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _write_folder(output: Path, content: dict[str, Any], blocks: Blocks, provenance: Any, key: str) -> None:
    from debugnet.artifacts.bundle import write_bundle
    from debugnet.report.html import report_page, write_parts

    with write_bundle(output, provenance) as folder:
        (folder / "index.html").write_text(report_page(content, None, key=key), encoding="utf-8")
        write_parts(folder, blocks)


def _size(output: Path) -> int:
    if output.is_dir():
        return sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    return output.stat().st_size


def _describe(output: Path, summary: dict[str, Any]) -> str:
    page = output / "index.html" if output.is_dir() else output
    text = (
        f"{page}: {summary['features']} features, {summary['classes']} classes, {summary['examples']} samples, "
        f"{summary['size'] / 1e6:.1f} MB; open it in any browser"
    )
    return text + ("\n" + summary["left_out"] if summary["left_out"] else "")
