"""Soft labels and weights in the loss: one-hot shares are hard labels, weights are repetitions."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.config import schema
from finetune.modeling import build, pretrained
from finetune.tokenization import encoding
from finetune.training import loop
from finetune.training.losses import class_weights, distillation_loss, row_loss, soft_row_loss
from finetune.training.objective import StepTask
from finetune.training.row_losses import TeacherLessons, TrainingRows
from finetune.training.step_memory import StepMemory
from finetune.training.train_log import TrainLog
from tests.support.tiny import tiny_encoder
from tests.unit.training.test_losses import CHOICES, NAMES, drawn

CPU = torch.device("cpu")
TEXTS = ["team goal match", "bank price", "chip code data web", "goal", "the bank", "a b c d e f g"]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("choices", CHOICES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 3.0, 40.0]))
def test_a_one_hot_soft_label_is_the_hard_one_bit_for_bit(several, choices, weighted, seed, scale):
    logits, targets = drawn(9, several, seed, scale)
    weights = class_weights("balanced", targets.numpy(), NAMES) if weighted else None
    shares = targets.float() if several else torch.nn.functional.one_hot(targets, 3).float()
    hard, soft = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    train = schema.Train(**choices)
    expected = row_loss(train, weights)(hard, targets)
    found = soft_row_loss(train, several, weights)(soft, shares)
    assert torch.equal(found, expected)
    expected.sum().backward()
    found.sum().backward()
    assert torch.equal(soft.grad, hard.grad)


def test_soft_cross_entropy_is_the_one_of_torch():
    logits, _ = drawn(40, several=False)
    shares = torch.softmax(torch.randn(40, 3), dim=1)
    ours = soft_row_loss(schema.Train(), multi_label=False)(logits, shares)
    theirs = torch.nn.functional.cross_entropy(logits, shares, reduction="none")
    assert torch.allclose(ours, theirs, atol=1e-6)
    smooth = schema.Train(label_smoothing=0.2)
    theirs = torch.nn.functional.cross_entropy(
        logits, shares, reduction="none", label_smoothing=0.2
    )
    assert torch.allclose(soft_row_loss(smooth, False)(logits, shares), theirs, atol=1e-6)
    binary = torch.rand(40, 3)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, binary, reduction="none"
    ).sum(dim=1)
    assert torch.allclose(soft_row_loss(schema.Train(), True)(logits, binary), theirs, atol=1e-5)


@pytest.mark.parametrize("choices", CHOICES)
def test_a_soft_label_is_the_expected_loss_of_a_drawn_one(choices):
    """So many copies of a row, each with one of its labels, as the shares say."""
    logits, _ = drawn(1, several=False)
    train = schema.Train(**choices)
    copies = row_loss(train)(logits.expand(4, 3), torch.tensor([0, 0, 0, 2]))
    soft = soft_row_loss(train, False)(logits, torch.tensor([[0.75, 0.0, 0.25]]))
    assert soft.item() == pytest.approx(copies.mean().item(), rel=1e-5)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(tiny_encoder(tmp_path_factory.mktemp("tiny")))


def gradients(encoder, batch_rows, tokens=10_000, **more):
    """The gradient of one step on some rows, and its losses."""
    recipe = schema.Recipe(
        data=schema.Data(source="x"),
        model=schema.Model(freeze="none"),
        train=schema.Train(threads=1),
    )
    tokenizer = pretrained.load_tokenizer(encoder, recipe.model)
    table = encoding.encode(TEXTS, tokenizer, 64)
    model = build.build_classifier(encoder, recipe.model, ["a", "b", "c"], "sdpa", seed=0).eval()
    accelerator = Accelerator(cpu=True)
    rows = TrainingRows(table, np.arange(len(TEXTS)) % 3, tokens, **more)
    memory = StepMemory(tokens, model, recipe.train, accelerator, lambda *_: None)
    batch_rows = np.array(batch_rows)
    task = rows.objective(recipe.train, CPU).of_step(0, batch_rows)
    assert isinstance(task, StepTask)
    losses = loop.add_gradients(
        model,
        task,
        accelerator,
        TrainLog(accelerator, 1.0),
        memory,
    )
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return gradient, torch.cat(losses)


def same(one, other):
    return torch.allclose(one, other, atol=1e-6 * float(other.abs().max()))


def test_weights_are_repetitions_and_absences(encoder):
    weights = np.array([2.0, 1.0, 0.0, 0.0, 3.0, 1.0])
    weighted, losses = gradients(encoder, [0, 1, 2, 4], weights=weights)
    repeated, plain = gradients(encoder, [0, 0, 1, 4, 4, 4])
    assert same(weighted, repeated)
    assert losses.mean().item() == pytest.approx(plain.mean().item(), rel=1e-5)  # what is logged
    nothing, _ = gradients(encoder, [2, 3], weights=weights)
    assert not nothing.any()
    ones, own = gradients(encoder, [0, 1, 2], weights=np.ones(6))
    without, others = gradients(encoder, [0, 1, 2])
    assert torch.equal(ones, without)
    assert torch.equal(own, others)


@pytest.mark.parametrize("tokens", [1, 8, 20])
def test_micro_batches_do_not_change_a_step_of_soft_weighted_rows(encoder, tokens):
    draw = np.random.default_rng(0)
    shares = draw.dirichlet([1.0, 1.0, 1.0], size=len(TEXTS)).astype(np.float32)
    weights = draw.uniform(0, 3, len(TEXTS))
    whole, _ = gradients(encoder, range(6), shares=shares, weights=weights)
    parts, _ = gradients(encoder, range(6), tokens=tokens, shares=shares, weights=weights)
    assert same(parts, whole)


@pytest.mark.parametrize("several", [False, True])
def test_distillation_is_the_divergence_from_the_teacher(several):
    logits, _ = drawn(12, several)
    teacher, _ = drawn(12, several, seed=1)
    say = torch.sigmoid if several else (lambda values: torch.softmax(values, dim=1))
    lessons = say(teacher / 3)
    same = distillation_loss(teacher, lessons, 3.0, several)
    assert torch.allclose(same, torch.zeros(12), atol=1e-5)
    found = distillation_loss(logits, lessons, 3.0, several)
    learned = say(logits / 3)
    expected = lessons * (lessons / learned).log()
    if several:
        expected = expected + (1 - lessons) * ((1 - lessons) / (1 - learned)).log()
    assert torch.allclose(found, 9 * expected.sum(dim=1), rtol=1e-3, atol=1e-5)
    assert (found > 0).all()
    sure = torch.tensor([[1.0, 0.0, 0.0]])
    assert torch.isfinite(distillation_loss(logits[:1], sure, 1.0, several)).all()


@pytest.mark.parametrize("tokens", [8, 10_000])
def test_rows_without_a_label_learn_from_the_teacher_alone(encoder, tokens):
    draw = np.random.default_rng(0)
    said = draw.dirichlet([1.0, 1.0, 1.0], size=len(TEXTS)).astype(np.float32)
    parts = np.array([0.4, 0.4, 0.4, 1.0, 1.0, 1.0])
    lessons = TeacherLessons(said, parts, 2.0)
    found, _ = gradients(encoder, range(6), tokens=tokens, teacher=lessons)
    alone = TeacherLessons(said, np.ones(6), 2.0)
    taught, _ = gradients(encoder, range(6), teacher=alone)
    shares = np.zeros((6, 3), np.float32)  # another label for each that nobody knows
    shares[np.arange(6), [0, 1, 2, 2, 0, 1]] = 1
    other, _ = gradients(encoder, range(6), shares=shares, teacher=lessons)
    assert same(other, found)
    first, _ = gradients(encoder, [0, 1, 2])
    of_first, _ = gradients(encoder, [0, 1, 2], teacher=alone)
    of_last, _ = gradients(encoder, [3, 4, 5], teacher=alone)
    assert same(taught, (of_first + of_last) / 2)
    assert same(found, (0.6 * first + 0.4 * of_first + of_last) / 2)
