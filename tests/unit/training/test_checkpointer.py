"""Checkpoints are written beside the steps: as the run was, one at a time, no failure is lost."""

import threading

import pytest
import torch

from finetune import pipeline
from finetune.config import loader
from finetune.runtime import held_tensors
from finetune.runtime.errors import InputError
from finetune.runtime.signals import SignalListener
from finetune.training import checkpoint
from finetune.training.assembly import checkpoint_weights
from finetune.training.run_environment import RunEnvironment
from finetune.training.session import Session
from tests.support.runs import checkpoints


@pytest.fixture
def session(here):
    recipe = loader.load("tiny.yaml", ["run.dir=run"])
    with SignalListener() as listener:
        env = RunEnvironment.start(recipe, listener)
        recipe, start = pipeline.locate_start(recipe, env)
        session = Session.open(pipeline.prepare_data(recipe, env), start, env)
        session.begin()
        yield session
        session.close()
        env.lock.release()


@pytest.fixture
def gate(monkeypatch):
    """No checkpoint is written before it is set."""
    write, gate = checkpoint.write_checkpoint, threading.Event()

    def late(*given):
        assert gate.wait(60)
        return write(*given)

    monkeypatch.setattr(checkpoint, "write_checkpoint", late)
    return gate


def fail(*given):
    raise InputError("step: cannot write: no space is left")


def test_it_holds_the_run_as_it_was_when_it_was_begun(session, gate):
    session.validate(0)
    best = (session.folder / "model/model.safetensors").read_bytes()
    model = session.parts.model
    before = {name: value.clone() for name, value in model.named_parameters()}
    session.checkpointer.save(session.parts, session.log)
    assert checkpoint.list_checkpoints(session.folder) == []
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    session.state.best = dict.fromkeys(session.state.best, -1.0)  # the next is better
    session.validate(1)
    assert (session.folder / "model/model.safetensors").read_bytes() != best
    gate.set()
    session.checkpointer.wait()
    [point] = checkpoint.list_checkpoints(session.folder)
    saved = checkpoint_weights(point, session.env)
    assert saved
    assert all(torch.equal(value, before[name]) for name, value in saved.items())
    assert (point / "best/model.safetensors").read_bytes() == best
    assert checkpoint.read_plain(point)["state"]["best"]["step"] == 0
    assert [path.name for path in point.parent.iterdir()] == [point.name]


def test_where_memory_has_no_room_for_a_copy_it_is_written_at_once(session, monkeypatch):
    monkeypatch.setattr(held_tensors, "available_memory", lambda: 0)
    session.checkpointer.save(session.parts, session.log)
    assert len(checkpoints(session.folder)) == 1


def test_a_failure_makes_the_next_one_due_which_raises_it(session, monkeypatch):
    saver = session.checkpointer
    assert saver.is_due(1, scored=False, last=False) == (0, False)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_checkpoint", fail)
        saver.save(session.parts, session.log)
        saver._writing._thread.join(60)
    assert saver.is_due(1, scored=False, last=False) == (0, True)
    with pytest.raises(InputError, match="no space is left"):
        saver.save(session.parts, session.log)
    saver.save(session.parts, session.log)
    saver.wait()
    assert len(checkpoints(session.folder)) == 1


def test_nothing_is_chosen_or_ended_before_it_is_written(session, monkeypatch, gate, capsys):
    saver = session.checkpointer
    saver.save(session.parts, session.log)
    threading.Timer(0.05, gate.set).start()
    assert saver.newest_good(InputError("lost")).name == "step-00000000"
    gate.clear()
    saver.save(session.parts, session.log)
    threading.Timer(0.05, gate.set).start()
    with pytest.raises(ZeroDivisionError), saver.finishing():
        raise ZeroDivisionError
    assert not saver._writing.has_failed()
    monkeypatch.setattr(checkpoint, "write_checkpoint", fail)
    saver.save(session.parts, session.log)
    with pytest.raises(ZeroDivisionError), saver.finishing():
        raise ZeroDivisionError
    saver.save(session.parts, session.log)
    with pytest.raises(InputError, match="no space is left"), saver.finishing():
        saver.restart_clock()
    assert capsys.readouterr().out.count("no space is left") == 1  # beside the other error
