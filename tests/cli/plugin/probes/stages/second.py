from __future__ import annotations

from debugnet import errors
from debugnet.stages.result import Result
from probes.recipes.second import Second


def run(options: Second, *, force: bool = False) -> Result:
    output = options.output or options.probe.with_name("second.txt")
    content = str(options.factor * len(options.probe.read_text()))
    if output.exists() and not force:
        if output.read_text() == content:
            return Result(output, {"count": content}, reused=True)
        raise errors.OutputExists(f"{output} exists, made with another factor; --force replaces it")
    output.write_text(content)
    return Result(output, {"count": content})
