"""The entry point: find the command, run its stage, deliver the result, return the exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from debugnet import interrupts, progress
from debugnet.cli import failures
from debugnet.cli.command import Call, make_command
from debugnet.errors import InputError, UsageError
from debugnet.registry import STAGES

#: First words that stand for several stages: ``counterfactual text`` is the stage ``counterfactual-text``.
GROUPS = {
    "counterfactual": "The smallest edit of an input that flips the decision.",
    "study": "Human-study tasks, and what came of them.",
}


class StageGroup(TyperGroup):
    """Commands looked up in the registry when they are asked for, so that help stays fast."""

    prefix = ""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the words that may follow."""
        return list(self._words())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command, or None; a name that is nearly right is named in the error."""
        words = self._words()
        if cmd_name not in words and ctx.resilient_parsing:  # completing a line that is not typed yet
            return None
        if cmd_name not in words:
            close = difflib.get_close_matches(cmd_name, words, n=1)
            hint = f", did you mean '{close[0]}'?" if close else f"; known: {', '.join(words)}"
            raise UsageError(f"there is no command '{(self.prefix + cmd_name).replace('-', ' ', 1)}'{hint}")
        if not self.prefix and cmd_name in GROUPS:
            return _subgroup(cmd_name)
        return make_command(self.prefix + cmd_name, cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, one line per command in the order of the chain, and the options."""
        self.format_usage(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text(self.help or "")
        with formatter.section("Commands"):
            formatter.write_dl(list(self._words().items()))
        if not self.prefix:
            with formatter.section("Options"):
                formatter.write_dl([
                    ("--version", "Show the version and exit."),
                    ("--install-completion", "Install completion for the current shell."),
                    ("--show-completion", "Show that completion, to copy or customize it."),
                    ("--help", "Show this; `debugnet COMMAND --help` shows a command's options."),
                ])  # fmt: skip

    def _words(self) -> dict[str, str]:
        words = {}
        for name, entry in STAGES.items():
            first, _, rest = name.partition("-")
            if self.prefix:
                if rest and first + "-" == self.prefix:
                    words[rest] = entry.summary
            elif rest and first in GROUPS:
                words[first] = GROUPS[first]
            else:
                words[name] = entry.summary
        return words


def _subgroup(name: str) -> Any:
    subgroup_class = type("StageSubgroup", (StageGroup,), {"prefix": f"{name}-"})
    group = typer.Typer(cls=subgroup_class, help=GROUPS[name], add_completion=False, rich_markup_mode=None)
    group.callback()(_nothing)
    return typer.main.get_command(group)


def _nothing() -> None:
    """Stand in for the callback that makes typer build a group."""


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"debugnet {version('debugnet')}")
        raise typer.Exit


app = typer.Typer(
    cls=StageGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 120, "help_option_names": ["--help", "-h"]},
    help="Replace a deep network's last layer by a sparse one that people can read, and debug with it. "
    "Every command writes an artefact and prints its path; `-` reads a path from stdin.",
)


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    pass


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (the table in docs/architecture.md).

    Parameters
    ----------
    argv : sequence of str, optional
        The words after ``debugnet``; default ``sys.argv[1:]``.
    """
    _open_standard_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    sys.argv[1:] = words
    with interrupts.install():
        try:
            if not words and "_DEBUGNET_COMPLETE" not in os.environ:  # the shell's completion gives no words either
                with contextlib.redirect_stdout(sys.stderr):
                    _parse(["--help"])
                return UsageError.exit_code
            call = _parse(words)
            if isinstance(call, Call):
                _run(call, words)
            elif isinstance(call, int):
                return call
            sys.stdout.flush()
            return 0
        except BaseException as error:
            return failures.report(error, words)


def _parse(words: list[str]) -> Any:
    """Return the Call the words make, or an exit code if help or the version was shown."""
    return typer.main.get_command(app).main(words, prog_name="debugnet", standalone_mode=False)


def _run(call: Call, words: list[str]) -> None:
    follows = failures.follower_rank() is not None  # torchrun: the first process alone speaks
    progress.configure(quiet=call.quiet or follows, log_json=call.log_json)
    options = _with_path_from_stdin(call.options, words)
    stage = STAGES.load(call.stage)
    with _warnings_on_one_line():
        result = stage(options, force=call.force)
    if follows:
        return
    if call.json:
        document = result.document()
    elif result.path is None:
        document = progress.plain(result.text)
    else:
        if result.text:
            progress.log(result.text)
        if result.reused:
            progress.log(f"up to date: {result.path}")
        document = str(result.path)
    sys.stdout.write(document.rstrip("\n") + "\n")


def _with_path_from_stdin(options: Any, words: list[str]) -> Any:
    """Put the path that arrives on stdin where a positional input is ``-`` (also into ``words``)."""
    dashes = [f.name for f in dataclasses.fields(options) if getattr(options, f.name) == Path("-")]
    if not dashes:
        return options
    if len(dashes) > 1:
        raise UsageError(f"only one input can be '-', not {' and '.join(dashes)}")
    lines = [line for line in sys.stdin.read().splitlines() if line.strip()] if sys.stdin else []
    if len(lines) != 1:
        arrived = "nothing" if not lines else f"{len(lines)} lines"
        raise InputError(f"'-' needs one path on stdin, {arrived} arrived: the command before the pipe may have failed")
    words[words.index("-")] = lines[0]  # so that the command shown for resuming can be typed again,
    sys.argv[1:] = words  # and the one recorded as the artefact's
    return dataclasses.replace(options, **{dashes[0]: Path(lines[0])})


@contextlib.contextmanager
def _warnings_on_one_line() -> Iterator[None]:
    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        progress.log(f"warning: {' '.join(str(message).split())}", level="warning")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _open_standard_streams() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed, so that no data file gets its number."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if descriptor else "r"))
