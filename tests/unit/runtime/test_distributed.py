"""Work of the main process, as one process sees it; `tests/distributed` has two."""

import pytest
from accelerate import Accelerator

from finetune.runtime import distributed
from finetune.runtime.errors import InputError
from tests.support import machines


class Rank:
    """An accelerator as another rank's code sees it."""

    def __init__(self, is_main):
        self.is_main_process = is_main


def refuse():
    raise InputError(["one", "two"])


def test_the_main_process_s_result_and_refusal():
    accelerator = Accelerator(cpu=True)
    assert distributed.run_on_main(accelerator, lambda: 7) == 7
    with pytest.raises(InputError) as caught:
        distributed.run_on_main(accelerator, refuse)
    assert caught.value.problems == ("one", "two")


def test_other_ranks_get_what_the_main_one_sent(monkeypatch):
    sent = [7, None]
    monkeypatch.setattr(distributed, "broadcast_object_list", lambda said: sent)
    assert distributed.run_on_main(Rank(False), refuse) == 7  # its own call is not made
    sent[:] = [None, ("one",)]
    with pytest.raises(InputError, match="one"):
        distributed.run_on_main(Rank(False), lambda: 7)


def test_the_main_process_calls_first_and_once(monkeypatch):
    Accelerator(cpu=True)
    calls = []
    assert distributed.run_on_main_first(Rank(True), lambda: calls.append(1) or 7) == 7
    assert calls == [1]
    monkeypatch.setattr(distributed, "broadcast_object_list", lambda said: [None, None])
    assert distributed.run_on_main_first(Rank(False), lambda: calls.append(2) or 8) == 8
    assert calls == [1, 2]


def test_on_each_machine_one_process_makes_what_the_others_find(tmp_path):
    """Its caches are its own."""
    assert machines.made_by(4, tmp_path) == [0, 2]


@pytest.mark.parametrize(
    ("world", "rank", "first"), [("1", "0", True), ("2", "0", True), ("2", "1", False)]
)
def test_one_of_several_processes_reports_an_error(monkeypatch, world, rank, first):
    monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert distributed.claim_first_error() == first


def test_a_lost_peer_is_told_from_other_errors():
    assert distributed.is_lost_peer(RuntimeError("[gloo] Connection closed by peer [::1]:1"))
    assert not distributed.is_lost_peer(RuntimeError("shapes do not match"))
    assert not distributed.is_lost_peer(ValueError("Connection closed by peer"))


def test_one_process_returns_its_exit_code(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert distributed.exit_process(2) == 2
