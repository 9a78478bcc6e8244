"""Signs of life: who is silent is named, who is slow is waited for."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch.distributed as dist

from finetune.runtime import console, heartbeat
from finetune.runtime.heartbeat import ERRORS, KEY, Heartbeat

MINUTES = 0.02  # 1.2 s


@pytest.fixture
def store():
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@pytest.fixture
def beating(store):
    """Starts the heartbeat of a rank; its messages are in `said`."""
    started = []

    def start(rank, world=2, minutes=MINUTES, own=None):
        said = []
        one = Heartbeat(own or heartbeat._connect(store), rank, world, minutes, end=said.append)
        one.said = said
        started.append(one)
        return one

    yield start
    for one in started:
        one.stop()


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    assert condition()


def test_a_silent_rank_is_named(beating):
    one, other = beating(0), beating(1)
    other.note("train", 8)
    wait_for(lambda: one._peers[1].last.get("step") == 8)
    other._stopped.set()  # its thread ends without a word
    wait_for(lambda: one.said)
    [message] = one.said
    assert message.startswith(f"error: rank 1 (process {os.getpid()} on ")
    assert "has given no sign of life for 1 s, since " in message
    assert ", last at train after step 8. It was stopped or killed, or its machine" in message
    assert message.endswith(heartbeat.RESUME)


def test_a_rank_that_never_began_is_named(beating):
    one = beating(0, world=3)
    beating(2, world=3)
    wait_for(lambda: one.said)
    assert one.said[0].startswith("error: rank 1 has given no sign of life for 1 s, since ")
    assert "rank 2" not in one.said[0]


def test_who_is_slow_or_done_is_waited_for(beating, monkeypatch):
    notes = []
    monkeypatch.setattr(console, "print_error", notes.append)
    one, other = beating(0, minutes=3 * MINUTES), beating(1, minutes=3 * MINUTES)
    one.note("score", 12)
    other.note("train", 12)
    wait_for(lambda: notes)
    assert notes[0].startswith("note: nothing has changed for ")
    assert "and all processes answer: rank 0 is at score after step 12; rank 1 is" in notes[0]
    other.stop()
    wait_for(lambda: one._peers[1].done)
    one._peers[1].silent = 1e9
    assert one.describe_hung() is None
    assert one.said == other.said == []


def test_a_pause_of_the_one_that_watches_counts_for_nobody(beating, monkeypatch):
    """As where a whole machine sleeps: the others slept too."""
    one = beating(0, minutes=10 * MINUTES)
    wait_for(lambda: one._peers[1].silent > 0)
    before, clock = one._peers[1].silent, time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 3600)
    time.sleep(3 * one._period)
    monkeypatch.undo()
    assert one._peers[1].silent < before + 10 * one._period


def test_a_store_that_does_not_answer(beating):
    class Frozen:
        """As one whose process was stopped: it takes the call, and says nothing."""

        def __getattr__(self, name):
            return lambda *given: time.sleep(3600)

    one = beating(0, own=Frozen())
    wait_for(lambda: one.said)
    assert one.said[0].startswith("error: the process that holds the store of this run (the laun")
    heartbeat.STORE_SECONDS, before = 0.1, heartbeat.STORE_SECONDS
    assert one.is_first_to_report()
    one.stop()
    heartbeat.STORE_SECONDS = before


def test_the_first_to_report_is_one(beating, store):
    one, other = beating(0), beating(1)
    assert [one.is_first_to_report(), other.is_first_to_report()] == [True, False]
    assert store.add(ERRORS, 0) == 2


def test_a_process_that_is_gone_is_named(beating, store):
    one = beating(0, minutes=1)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    said = one._sign(1) | {"process": process.pid, "activity": "score", "step": 3}
    store.set(f"{KEY}/1", json.dumps(said))
    wait_for(lambda: one._peers[1].last)
    assert one.describe_gone() is None
    process.kill()
    wait_for(lambda: one.describe_gone())  # a zombie, as nobody has waited for it
    process.wait()
    gone = one.describe_gone()
    assert gone.startswith(f"rank 1 (process {process.pid} on ")
    assert gone.endswith("), last at score after step 3")


def test_one_process_has_none():
    heartbeat.start(1, "")
    assert heartbeat.current() is None
    heartbeat.note("train", 1)
    heartbeat.stop()


def test_processes_that_met_in_a_file_have_none(tmp_path, monkeypatch):
    """They have no store that takes a second connection."""
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(tmp_path / "met"), 1), rank=0, world_size=1
    )
    try:
        monkeypatch.setattr(dist, "get_world_size", lambda: 2)
        heartbeat.start(1, "")
        assert heartbeat.current() is None
    finally:
        dist.destroy_process_group()
