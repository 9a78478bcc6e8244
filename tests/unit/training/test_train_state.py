"""A state captured and restored: weights, optimizer, random states and the sums of the log."""

import random

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from finetune.training import train_state
from finetune.training.train_log import TrainLog


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


def made(accelerator, seed):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1, momentum=0.9)
    return model, optimizer, TrainLog(accelerator, max_norm=1.0)


def step(model, optimizer, log):
    losses = model(torch.randn(4, 3)).square().sum(dim=1)
    losses.mean().backward()
    log.add(losses)
    log.end_step(torch.tensor(0.5), rows=4, tokens=12)
    optimizer.step()
    optimizer.zero_grad()
    return losses.detach()


def test_what_follows_a_restored_state_is_the_same(accelerator):
    model, optimizer, log = made(accelerator, 0)
    step(model, optimizer, log)
    names = train_state.trained_names(model, accelerator)
    assert names == ["1.weight", "1.bias"]
    with log.paused():
        tensors, plain = train_state.capture(model, optimizer, log, accelerator, names)
    tensors = {name: value.clone() for name, value in tensors.items()}  # as a file keeps them
    weights = train_state.weights_in(tensors)
    assert weights.keys() == set(names)
    expected = step(model, optimizer, log), random.random(), np.random.rand(), log.line()["loss"]

    other, its_optimizer, its_log = made(accelerator, 1)
    other[0].load_state_dict(model[0].state_dict())  # always frozen: the encoder's own
    train_state.restore(other, its_optimizer, its_log, accelerator, names, tensors, plain)
    assert (its_log.steps, its_log.rows, its_log.tokens) == (1, 4, 12)
    losses = step(other, its_optimizer, its_log)
    assert torch.equal(losses, expected[0])
    assert (random.random(), np.random.rand(), its_log.line()["loss"]) == expected[1:]
    assert torch.equal(other[1].weight, model[1].weight)


def test_weights_of_another_model_are_refused(accelerator):
    model, _, _ = made(accelerator, 0)
    weights = train_state.gather_weights(model, accelerator)
    part = {"1.bias": weights["1.bias"] + 1}
    train_state.load_weights(model, part, accelerator, partly=True)
    assert torch.equal(model[1].bias, part["1.bias"])
    for wrong in (part, weights | {"2.bias": weights["1.bias"]}):
        with pytest.raises(KeyError):
            train_state.load_weights(model, wrong, accelerator)
