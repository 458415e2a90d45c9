"""Progress: a line per interval off a terminal, a bar on one, and never a reason to stop."""

from __future__ import annotations

import io
import json
import sys

import pytest

from debugnet import progress


@pytest.fixture(autouse=True)
def defaults():
    yield
    progress.configure()


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_short_work_says_nothing(capsys):
    assert list(progress.track([1, 2, 3], label="work")) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")


def test_a_line_per_thirty_seconds_with_rate_and_time_left(clock, capsys):
    with progress.Progress(100, "extracting", "image", initial=20) as bar:
        for _ in range(4):
            clock[0] += 10
            bar.postfix(batch=32)
            bar.update(10)
    # Three tens in 30 s, after 20 that were there before: 1 image/s, 50 left.
    assert capsys.readouterr().err == "extracting: 50/100 image (50%), 1 image/s, 50 s left, batch=32\n"


def test_slow_work_shows_seconds_per_item(clock, capsys):
    with progress.Progress(10, "fitting", "lambda") as bar:
        clock[0] += 60
        bar.update()
    assert capsys.readouterr().err == "fitting: 1/10 lambda (10%), 60 s/lambda, 9 min 00 s left\n"


def test_json_lines(clock, capsys):
    progress.configure(log_json=True)
    with progress.Progress(4, "x", "row") as bar:
        clock[0] += 40
        bar.update(2)
    progress.log("done\x1b")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["done"], first["total"], first["per_second"], first["seconds_left"]) == (2, 4, 0.05, 40.0)
    assert second["message"] == "done\x1b"  # escaped by JSON


def test_quiet(clock, capsys):
    progress.configure(quiet=True)
    with progress.Progress(4) as bar:
        clock[0] += 40
        bar.update()
    progress.log("x")
    assert capsys.readouterr() == ("", "")


def test_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for _ in progress.track(range(3), label="work\x1b[31m", unit="step"):
        progress.log("between")
    assert "work\ufffd" in terminal.getvalue() and "between\n" in terminal.getvalue()
    assert "\x1b[31m" not in terminal.getvalue()


def test_stderr_that_is_gone(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    progress.log("x")
    monkeypatch.setattr(sys, "stderr", None)
    progress.log("x")
    assert list(progress.track([1])) == [1]


@pytest.mark.parametrize(
    "seconds, text", [(0.04, "0.0 s"), (9.9, "9.9 s"), (42.4, "42 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_duration(seconds, text):
    assert progress.duration(seconds) == text
