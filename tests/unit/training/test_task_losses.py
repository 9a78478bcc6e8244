"""The loss of several tasks: the weighted mean of theirs, whatever a step is split into."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.config import schema
from finetune.data.label_tasks import Tasks
from finetune.evaluation.task_scores import task_losses
from finetune.modeling.modeling_document_classifier import task_log_odds
from finetune.training.losses import class_weights, row_loss, task_row_loss
from finetune.training.row_losses import TrainingRows
from tests.unit.data.test_label_tasks import SPACE, TASKS, drawn
from tests.unit.training.test_losses import CHOICES

SIZES = [len(task.labels) for task in TASKS]


def as_torch(seed, rows=11):
    outputs, labels = drawn(seed, rows)
    return torch.from_numpy(outputs.astype(np.float32)), torch.from_numpy(labels)


@pytest.mark.parametrize("choices", CHOICES)
def test_it_is_the_mean_of_each_tasks_own_loss(choices):
    outputs, labels = as_torch(0, rows=40)
    train = schema.Train(**choices)
    weights = class_weights("balanced", labels.numpy(), SPACE, TASKS)
    found = task_row_loss(train, TASKS, weights)(task_log_odds(outputs, SIZES), labels)
    expected = torch.zeros(40)
    for task in TASKS:
        has = labels[:, task.block].any(dim=1)
        ids = labels[has][:, task.block].argmax(dim=1)
        own = class_weights("balanced", ids.numpy(), task.labels)
        assert weights[task.block] == pytest.approx(own)
        expected[has] += task.weight / 1.5 * row_loss(train, own)(outputs[has][:, task.block], ids)
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_plain_loss_is_what_is_reported():
    outputs, labels = as_torch(1)
    logits = task_log_odds(outputs, SIZES)
    found = task_row_loss(schema.Train(), TASKS)(logits, labels)
    assert found.numpy() == pytest.approx(
        task_losses(logits.numpy(), labels.numpy(), TASKS), abs=1e-6
    )


@pytest.mark.parametrize("choices", CHOICES)
@settings(max_examples=10, deadline=None)
@given(cuts=st.sets(st.integers(1, 10)), seed=st.integers(0, 99))
def test_any_split_into_micro_batches_gives_the_same_gradient(choices, cuts, seed):
    outputs, labels = as_torch(seed)
    rows = TrainingRows(None, labels.numpy(), 64, scale=TASKS)
    objective = rows.objective(schema.Train(**choices), torch.device("cpu"))
    losses = objective.of_step(0, np.arange(11)).losses_of
    whole = outputs.clone().requires_grad_()
    (losses(task_log_odds(whole, SIZES), np.arange(11)).sum() / 11).backward()
    parts = outputs.clone().requires_grad_()
    for start, end in itertools.pairwise([0, *sorted(cuts), 11]):
        some = np.arange(start, end)
        (losses(task_log_odds(parts[start:end], SIZES), some).sum() / 11).backward()
    assert torch.allclose(whole.grad, parts.grad, atol=1e-7)


@pytest.mark.parametrize("choices", CHOICES)
def test_a_task_of_weight_0_leaves_the_loss_of_the_other_alone(choices):
    """The gradient, too: none reaches its part of the head."""
    outputs, labels = as_torch(3)
    labels[:, :3] = 0
    labels[torch.arange(11), torch.arange(11) % 3] = 1
    tasks = Tasks.of(SPACE, {"topic": 0.7, "urgent": 0.0})
    train = schema.Train(**choices)
    ours, theirs = (outputs.clone().requires_grad_() for _ in range(2))
    both = task_row_loss(train, tasks)(task_log_odds(ours, SIZES), labels)
    alone = row_loss(train)(theirs[:, :3], labels[:, :3].argmax(dim=1))
    both.sum().backward()
    alone.sum().backward()
    assert torch.allclose(both, alone, atol=1e-5)
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)
    assert (ours.grad[:, 3:] == 0).all()


@pytest.mark.parametrize("scale", [0.0, 1.0, 50.0, 1000.0])
def test_log_odds_and_their_gradient_are_finite_however_sure_the_model_is(scale):
    outputs = (scale * torch.randn(20, 5, generator=torch.manual_seed(0))).requires_grad_()
    logits = task_log_odds(outputs, SIZES)
    wide = outputs.detach().double()
    for block, of in zip(wide.split(SIZES, dim=1), logits.split(SIZES, dim=1), strict=True):
        expected = block.softmax(dim=1)
        assert torch.allclose(of.double().sigmoid(), expected, atol=1e-6)
    labels = torch.zeros(20, 5, dtype=torch.int8)
    labels[:, [0, 4]] = 1
    task_row_loss(schema.Train(), TASKS)(logits, labels).sum().backward()
    assert torch.isfinite(logits).all()
    assert torch.isfinite(outputs.grad).all()
