"""Every failure gives one clear line on stderr, nothing on stdout, and the documented exit code."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

CODES = {
    "usage": (2, "a and b contradict"),
    "input": (3, "x.h5 is truncated"),
    "stale": (3, "x.h5 changed"),
    "exists": (4, "x.h5 exists"),
    "bad-rows": (5, "5 of 10 rows"),
    "storage": (6, "disk full"),
    "device": (7, "no cuda"),
    "unconverged": (8, "point 3"),
    "locked": (75, "x.h5 is locked"),
    "memory": (7, "MemoryError"),
    "cuda-memory": (7, "CUDA out of memory"),
    "enospc": (6, "No space left on device: 'x.h5'"),
    "erofs": (6, "Read-only file system: 'x.h5'"),
    "eacces": (6, "Permission denied: 'x.h5'"),
    "enoent": (3, "No such file or directory: 'x.h5'"),
    "bug": (1, "KeyError: 'inner\\nname'"),
}


@pytest.mark.parametrize("behaviour", CODES)
def test_exit_code_and_one_line(shell, behaviour):
    code, message = CODES[behaviour]
    done = shell(f"debugnet probe x --do {behaviour}")
    assert done.returncode == code
    assert done.stdout == ""
    assert re.fullmatch(rf"debugnet: error: .*{re.escape(message)}.*\n", done.stderr)


def test_bug_keeps_its_traceback_in_a_file(shell, tmp_path):
    done = shell("TMPDIR=$PWD debugnet probe x --do bug")
    kept = Path(re.search(r"traceback in (\S+\.txt)\)", done.stderr).group(1))
    assert kept.parent == tmp_path
    assert "Traceback" in kept.read_text() and "FAILURES" in kept.read_text()


def test_debug_shows_the_traceback(shell):
    done = shell("debugnet probe x --do input --debug")
    assert done.returncode == 3
    assert "Traceback" in done.stderr and done.stderr.endswith("debugnet: error: x.h5 is truncated\n")


def test_terminal_control_is_not_passed_on(shell):
    done = shell("debugnet probe x --do escape")
    assert "\x1b" not in done.stderr and "\r" not in done.stderr and "red" in done.stderr


@pytest.mark.parametrize(
    "line, message",
    [
        ("debugnet prob x", "there is no command 'prob', did you mean 'probe'?"),
        ("debugnet study prob x", "there is no command 'study prob', did you mean 'probe'?"),
        ("debugnet probe x --siz 3", "No such option"),
        ("debugnet probe", "SOURCE is missing: Any file"),
        ("debugnet probe x --size many", "--size: 'many' is not a whole number"),
        ("debugnet probe x --size -1", "size is -1: it must be 0 or more"),
        ("debugnet probe x --rate nan", "--rate: 'nan' is not a finite number"),
        ("debugnet probe x --share 5", "--share: '5' has no percent sign"),
        ("debugnet probe x --mode slow", "--mode: 'slow' is not one of fast, right"),
        ("debugnet probe x --mode slow --size many", "--size: 'many' is not a whole number; --mode: 'slow'"),
    ],
)
def test_usage_errors(shell, line, message):
    done = shell(line)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(rf"debugnet: error: .*{re.escape(message)}.*\n", done.stderr)


def test_no_words_show_the_help_and_count_as_usage_error(shell):
    done = shell("debugnet")
    assert done.returncode == 2 and done.stdout == "" and "Commands:" in done.stderr


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("behaviour, word", [("loop", "looping"), ("sleep", "sleeping")])
def test_first_signal_stops_and_shows_how_to_go_on(started, number, code, behaviour, word):
    process = started("probe", "x y", "--do", behaviour, until=word)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert out == ""
    assert err == f"debugnet: stopped by {number.name}; to go on: debugnet probe 'x y' --do {behaviour}\n"


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_second_signal_stops_at_once(started, number, code):
    process = started("probe", "x", "--do", "stuck", until="stuck")
    process.send_signal(number)
    with pytest.raises(Exception, match="timed out"):
        process.wait(timeout=0.5)  # the first one is held back, as the loop asked
    process.send_signal(number)
    # Killed by the signal itself, so that it also ends compiled code; a shell reports 128 + number.
    assert process.wait(timeout=20) == -number
    assert code == 128 + number


def test_a_background_job_keeps_ignoring_sigint(shell):
    done = shell(
        "$PROBES probe x --do loop 2> log & until grep -q looping log; do sleep 0.05; done; "
        "kill -INT $!; sleep 0.3; kill -TERM $!; wait $!; echo $?; cat log"
    )
    assert done.stdout.startswith("143\n") and "stopped by SIGTERM" in done.stdout
