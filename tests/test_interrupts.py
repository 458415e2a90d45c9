"""Signals: at once by default, at a safe point where a loop asks for it, untouched outside the command line."""

from __future__ import annotations

import os
import signal

import pytest

from debugnet import interrupts
from debugnet.errors import Interrupted


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_at_once_by_default():
    with interrupts.install(), pytest.raises(KeyboardInterrupt):
        send(signal.SIGTERM)
        pytest.fail("went on")
    assert interrupts.received() == signal.SIGTERM


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_held_back_until_check(number, code):
    finished = []
    with interrupts.install(), pytest.raises(Interrupted) as caught, interrupts.deferred():
        for batch in range(3):
            if batch == 1:
                send(number)
            finished.append(batch)
            interrupts.check()
    assert finished == [0, 1] and caught.value.exit_code == code


def test_the_end_of_the_block_is_a_safe_point():
    reached = []
    with interrupts.install(), pytest.raises(Interrupted):
        with interrupts.deferred():
            with interrupts.deferred():
                send(signal.SIGINT)
            reached.append("inner end")  # still inside the outer block
        reached.append("outer end")
    assert reached == ["inner end"]


def test_an_error_in_the_block_is_not_hidden():
    with interrupts.install(), pytest.raises(ZeroDivisionError), interrupts.deferred():
        send(signal.SIGINT)
        _ = 1 / 0


def test_nothing_is_left_behind():
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with interrupts.install():
        assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


def test_without_the_command_line_check_does_nothing():
    with interrupts.install():
        pass
    interrupts.check()
