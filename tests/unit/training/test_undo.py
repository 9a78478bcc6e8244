"""Steps that are undone leave no trace in weights, the optimizer or the random numbers to come."""

import random

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from finetune.training.undo import undone


@pytest.mark.parametrize("settled", [False, True], ids=["a fresh optimizer", "one with momentum"])
@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back(settled, fails):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)

    def step():
        random.random()
        np.random.rand()
        model(torch.rand(4, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    if settled:
        step()

    def look():
        state = [value.clone() for one in optimizer.state.values() for value in one.values()]
        rates = [torch.tensor(group["lr"]) for group in optimizer.param_groups]
        return [*(p.detach().clone() for p in model.parameters()), *state, *rates]

    before, random_state = look(), torch.random.get_rng_state()
    others = random.getstate(), np.random.get_state()[1].copy()
    try:
        with undone(model, optimizer, Accelerator(cpu=True)):
            for group in optimizer.param_groups:
                group["lr"] = 7.0
            step()
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    for one, other in zip(before, look(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert random.getstate() == others[0]
    assert np.array_equal(np.random.get_state()[1], others[1])
    assert all(p.grad is None for p in model.parameters())
