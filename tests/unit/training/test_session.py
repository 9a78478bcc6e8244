"""A session: assembled without a trace, opened in its folder, saved, disturbed and restored."""

import pytest
import torch

from finetune import pipeline
from finetune.config import loader
from finetune.runtime.errors import InputError
from finetune.runtime.signals import SignalListener
from finetune.training import checkpoint
from finetune.training.assembly import assemble, checkpoint_weights
from finetune.training.checkpointer import Checkpointer
from finetune.training.run_environment import RunEnvironment
from finetune.training.session import Session
from finetune.training.validator import Validator


@pytest.fixture
def prepared(here):
    """An environment, where the run starts, and its data."""
    recipe = loader.load("tiny.yaml", ["run.dir=run", "score.patience=2"])
    with SignalListener() as listener:
        env = RunEnvironment.start(recipe, listener)
        recipe, start = pipeline.locate_start(recipe, env)
        yield env, start, pipeline.prepare_data(recipe, env)
        env.lock.release()


def test_a_model_is_assembled_and_nothing_written(prepared, here):
    env, start, data = prepared
    model = assemble(data, start, env)
    assert model.parts is not None
    assert (model.stage.begin, model.stage.end) == (0, 36)
    assert model.identity["recipe"]["train"]["precision"] == "fp32"
    assert not (here / "run").exists()


def test_a_checkpoint_brings_everything_back(prepared, here):
    env, start, data = prepared
    session = Session.open(data, start, env)
    assert isinstance(session.checkpointer, Checkpointer)
    session.begin()
    session.state.waited = 1
    session.checkpointer.save(session.parts, session.log)
    session.checkpointer.wait()
    [point] = checkpoint.list_checkpoints(session.folder)
    saved = checkpoint_weights(point, env)
    assert saved.keys() == set(session.state.trained)
    with torch.no_grad():
        for parameter in session.parts.model.parameters():
            parameter.add_(1)
    session.state.waited = 7
    session.events.write("train", 1, {"loss": 1.0})
    assert session.restore(point) == []
    assert session.state.waited == 1
    assert session.events.file.read_text() == ""
    now = session.parts.model.state_dict()
    assert all(torch.equal(now[name], value) for name, value in saved.items())
    session.close()


def test_a_checkpoint_of_another_recipe_is_refused(prepared):
    env, start, data = prepared
    session = Session.open(data, start, env)
    session.begin()
    session.checkpointer.save(session.parts, session.log)
    session.checkpointer.wait()
    [point] = checkpoint.list_checkpoints(session.folder)
    session.checkpointer.identity = {**session.identity, "tokens": "others"}
    with pytest.raises(InputError, match="makes other tokens of the same documents when"):
        session.restore(point)
    session.close()


def test_validation_keeps_the_best_and_counts_patience(prepared):
    env, start, data = prepared
    told = []
    session = Session.open(data, start, env, on_score=lambda *score: told.append(score))
    validator = session.validator
    assert isinstance(validator, Validator)
    assert not validator.has_kept_a_model(0)
    session.validate(0)
    assert validator.has_kept_a_model(0)
    assert (session.folder / "model" / "model.safetensors").is_file()
    best = dict(session.state.best)
    assert best["step"] == 0
    for waited in (1, 2):  # the same model scores the same: no improvement
        assert not validator.is_out_of_patience()
        session.validate(waited)
        assert session.state.waited == waited
    assert validator.is_out_of_patience()
    assert session.state.best == best
    assert len(told) == 3
    session.close()
