"""A run is finished after everything else, and only where nothing failed."""

from types import SimpleNamespace

import pytest

from finetune.config import schema
from finetune.hub import delivery, publish
from finetune.reporting import console_report
from finetune.reporting.run_outputs import IncompleteError, RunOutputs
from finetune.runtime.errors import InputError
from finetune.training import folder_mark, trackers

RESULTS = SimpleNamespace(
    test=SimpleNamespace(values=lambda: {"accuracy": 0.5}), train=SimpleNamespace(steps=6)
)


@pytest.fixture
def done(monkeypatch):
    """What was done, in order."""
    done = []
    for module, name in (
        (console_report, "print_results"),
        (trackers, "log_results"),
        (publish, "push_model"),
    ):
        monkeypatch.setattr(module, name, lambda *given, name=name: done.append((name, *given[3:])))
    return done


@pytest.fixture
def session(tmp_path, done):
    env = SimpleNamespace(on_main=lambda call: call(), accelerator=None)
    recipe = schema.Recipe(
        data=schema.Data(source="x"), checkpoint=schema.Checkpoint(every="never", minutes=None)
    )
    folder_mark.write_mark(tmp_path, "run")
    for step in (4, 6):
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    return SimpleNamespace(
        env=env, recipe=recipe, folder=tmp_path, close=lambda: done.append(("close",))
    )


def is_marked(session):
    return folder_mark.read_mark(session.folder).finished is not None


def test_the_mark_comes_last(session, done, monkeypatch):
    seen = []
    monkeypatch.setattr(publish, "push_model", lambda *_: seen.append(is_marked(session)))
    delivery.deliver(session, RESULTS, RunOutputs(session.folder, session.env))
    assert seen == [False]
    assert is_marked(session)
    assert [name for name, *_ in done] == ["print_results", "log_results", "close"]
    assert done[1] == ("log_results", {"accuracy": 0.5}, 6)
    # They served to take the run up, also those that a signal asked for.
    assert list((session.folder / "checkpoints").iterdir()) == []


def test_a_run_with_a_failure_is_not_finished(session, monkeypatch):
    def fail(*_):
        raise InputError("no room")

    for module, name, error in (
        (publish, "push_model", InputError),
        (trackers, "log_results", IncompleteError),
    ):
        outputs = RunOutputs(session.folder, session.env)
        outputs.recorded = ["logging to the trackers failed: no room"]
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(error, match="no room"):
                delivery.deliver(session, RESULTS, outputs)
        assert not is_marked(session)
        assert len([*(session.folder / "checkpoints").iterdir()]) == 2


def test_a_model_without_its_card_is_not_pushed(session, done):
    outputs = RunOutputs(session.folder, session.env)
    outputs.attempt("model/README.md", lambda: 1 / 0)
    outputs.has_card, outputs.recorded = False, outputs.failures
    with pytest.raises(IncompleteError, match=r"model/README.md failed: ZeroDivisionError"):
        delivery.deliver(session, RESULTS, outputs)
    assert "push_model" not in [name for name, *_ in done]


def test_an_export_that_failed_leaves_a_finished_run(session, monkeypatch):
    """The model is published, and all of the run is there: the export can be repeated alone."""
    lacking = ["publish.onnx: the run is finished and its model published, but not as ONNX: why"]
    monkeypatch.setattr(publish, "push_model", lambda *_: lacking)
    with pytest.raises(InputError) as raised:
        delivery.deliver(session, RESULTS, RunOutputs(session.folder, session.env))
    assert list(raised.value.problems) == lacking
    assert is_marked(session)
