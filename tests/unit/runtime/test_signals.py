"""What a signal does to a run: at once outside its steps, patiently within them."""

import os
import signal

import pytest

from finetune.runtime.errors import StoppedError
from finetune.runtime.signals import SignalListener


@pytest.fixture(autouse=True)
def started_by_hand(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("finetune.runtime.signals._end_with_launcher", lambda: None)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    yield
    after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    assert after == before


def test_a_signal_outside_the_steps_ends_the_run_on_the_spot():
    with SignalListener() as listener:
        listener.moment = "while it tokenized"
        with pytest.raises(StoppedError, match=r"^stopped by SIGUSR1 while it tokenized; to go on"):
            os.kill(os.getpid(), signal.SIGUSR1)


def test_a_signal_within_a_step_waits_for_it(capfd):
    with SignalListener() as listener:
        listener.patient = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert listener.heard == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # the next one ends it at once
    assert "SIGTERM: finishing the step, then a checkpoint" in capfd.readouterr().err


def test_other_ranks_say_nothing(monkeypatch, capfd):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with SignalListener() as listener:
        listener.patient = True
        os.kill(os.getpid(), signal.SIGTERM)
    assert capfd.readouterr().err == ""


def test_what_a_launcher_passes_on_is_no_second_request(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with SignalListener() as listener:
        listener.patient = True
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        assert listener.heard == signal.SIGINT


def test_a_run_that_is_over_is_not_stopped():
    with SignalListener() as listener:
        listener.over = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert listener.heard is None
