"""The mean of the weights over the last steps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.config import schema
from finetune.training.schedule import Schedule
from finetune.training.weight_average import AVERAGE, add_to_average, averaged_weights

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "plain sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
}


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.integers(0, 8), st.sampled_from(sorted(OPTIMIZERS)))
def test_it_is_the_mean_and_changes_no_step(steps, first, name):
    weights = {}
    for averaging in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        optimizer = OPTIMIZERS[name](model.parameters())
        seen = weights.setdefault(averaging, [])
        for step in range(steps):
            model(torch.ones(1, 3) * step).square().sum().backward()
            optimizer.step()
            if averaging and step >= first:
                add_to_average(optimizer, step - first)
            optimizer.zero_grad()
            seen.append(model.weight.detach().numpy().copy())
    assert np.array_equal(weights[False], weights[True])
    with averaged_weights(model, optimizer):
        wanted = np.mean(weights[True][first:], axis=0) if first < steps else weights[True][-1]
        np.testing.assert_allclose(model.weight.detach().numpy(), wanted, rtol=1e-5, atol=1e-6)
    assert np.array_equal(model.weight.detach().numpy(), weights[True][-1])


def test_the_weights_come_back_after_an_error_and_those_without_a_gradient_have_no_mean():
    used, unused = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer = torch.optim.AdamW([used, unused], lr=1.0)
    for step in range(2):
        used.sum().backward()
        optimizer.step()
        add_to_average(optimizer, step)
        optimizer.zero_grad()
    assert AVERAGE not in optimizer.state[unused]
    own = used.detach().clone()

    def score():
        with averaged_weights(torch.nn.Module(), optimizer):
            assert not torch.equal(used, own)
            raise KeyError

    with pytest.raises(KeyError):
        score()
    assert torch.equal(used, own)


@given(st.integers(1, 400), st.floats(0.001, 1), st.integers(0, 50))
def test_which_steps(steps, share, begin):
    train = schema.Train(max_steps=steps, min_steps=steps, average_last=share)
    of = schema.Recipe(data=schema.Data(source="x"), optim=schema.Optim(lr=0.1), train=train)
    found = Schedule.of(of, rows=64, begin=begin)
    averaged = found.end - found.average_from
    assert 1 <= averaged <= steps
    assert share * steps - 1e-6 <= averaged < share * steps + 1
    none = of.model_copy(update={"train": train.model_copy(update={"average_last": None})})
    assert Schedule.of(none, rows=64).average_from == steps


def test_of_several_stages_the_last():
    stages = ({"epochs": 2}, {"epochs": 3})
    of = schema.Recipe(
        data=schema.Data(source="x"), train=schema.Train(stages=stages, average_last=0.5)
    )
    assert [one.train.average_last for one in of.by_stage()] == [None, 0.5]
