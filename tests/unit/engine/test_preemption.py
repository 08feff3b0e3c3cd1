"""A stop signal raises a flag and nothing else; a second Ctrl-C ends the process."""

import signal

import pytest

from lediflow.engine.preemption import STOP_SIGNALS, StopRequest


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_stop_signal_raises_the_flag_and_lets_the_work_go_on(number):
    with StopRequest() as stop:
        assert not stop.is_raised
        signal.raise_signal(number)
        assert stop.is_raised
        assert stop.signal is number


def test_a_second_ctrl_c_interrupts_at_once():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.is_raised


def test_ctrl_c_after_slurms_warning_does_not_tear_the_save():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.signal is signal.SIGUSR2


def test_afterwards_signals_mean_what_they_meant_before():
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    with pytest.raises(ZeroDivisionError), StopRequest():
        1 / 0  # noqa: B018
    assert {number: signal.getsignal(number) for number in STOP_SIGNALS} == before
