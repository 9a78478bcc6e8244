"""The schedule as a pure function, and which parameters decay."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification

from finetune.config.schema import Optim
from finetune.training import optimizer


def rates(steps, per_epoch, **choices):
    of = Optim(**{"lr": 1.0, **choices})
    return [optimizer.learning_rate(step, steps, per_epoch, of) for step in range(steps)]


def test_linear_decay_by_hand():
    assert rates(5, 5, warmup=0.0) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert rates(6, 6, warmup=0.3) == pytest.approx([1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25])


def test_each_schedule():
    assert rates(4, 4, warmup=0.0, schedule="constant") == [1, 1, 1, 1]
    cosine = [(1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)]
    assert rates(4, 4, warmup=0.0, schedule="cosine") == pytest.approx(cosine)
    assert rates(6, 2, warmup=0.0, every="epoch") == pytest.approx(
        [1, 1, 2 / 3, 2 / 3, 1 / 3, 1 / 3]
    )


@given(
    st.integers(1, 500),
    st.integers(1, 100),
    st.floats(0, 0.99),
    st.sampled_from(["linear", "cosine", "constant"]),
    st.sampled_from(["step", "epoch"]),
)
def test_rates_rise_then_fall_and_every_step_learns(steps, per_epoch, warmup, schedule, every):
    found = rates(steps, per_epoch, warmup=warmup, schedule=schedule, every=every)
    peak = found.index(max(found))
    assert all(0 < rate <= 1 for rate in found)
    assert found[: peak + 1] == sorted(found[: peak + 1])
    assert found[peak:] == sorted(found[peak:], reverse=True)


def test_decay_spares_biases_and_norms():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3), torch.nn.Linear(3, 2))
    model[0].weight.requires_grad_(False)
    groups = optimizer.build_optimizer(model, Optim(lr=0.1, weight_decay=0.01)).param_groups
    assert {group["weight_decay"]: len(group["params"]) for group in groups} == {0.01: 1, 0: 4}


@pytest.mark.parametrize(
    ("labels", "several", "named", "sgd", "adamw"),
    [(2, False, None, 1, 10), (8, False, None, 1, 10), (77, False, None, 77 / 8, 10),
     (77, True, None, 1, 10), (77, False, 3, 3, 3)],
)  # fmt: skip
def test_how_fast_the_head_learns(labels, several, named, sgd, adamw):
    kind = "multi_label_classification" if several else "single_label_classification"
    config = BertConfig(
        vocab_size=9, hidden_size=4, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=4, num_labels=labels, problem_type=kind,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    for name, scale in (("sgd", sgd), ("adamw", adamw)):
        groups = optimizer.build_optimizer(
            model, Optim(name=name, lr=0.1, head_scale=named)
        ).param_groups
        scales = {id(p): group["scale"] for group in groups for p in group["params"]}
        assert {scales[id(p)] for p in model.classifier.parameters()} == {scale}
        assert {scales[id(p)] for p in model.bert.encoder.parameters()} == {1}


def test_each_optimizer():
    model = torch.nn.Linear(2, 2)
    sgd = optimizer.build_optimizer(model, Optim(lr=0.1, momentum=0.5, nesterov=True))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.5, True)
    adamw = optimizer.build_optimizer(
        model, Optim(name="adamw", lr=0.1, betas=(0.8, 0.9), eps=1e-6, head_scale=1)
    )
    assert isinstance(adamw, torch.optim.AdamW)
    assert (adamw.defaults["betas"], adamw.defaults["eps"]) == ((0.8, 0.9), 1e-6)
