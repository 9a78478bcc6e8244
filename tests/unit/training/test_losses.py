"""What training descends: the losses, their weights, and that no split of a step changes them."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.config import loader, schema
from finetune.evaluation import probabilities
from finetune.runtime.errors import InputError
from finetune.training import sampling
from finetune.training.losses import class_weights, row_loss

CHOICES = [
    {},
    {"label_smoothing": 0.2},
    {"loss": "focal"},
    {"loss": "focal", "focal_gamma": 0.5},
    {"loss": "generalised_cross_entropy"},
]
NAMES = ("a", "b", "c")


def drawn(rows, several, seed=0, scale=3.0):
    draw = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, 3, generator=draw)
    shape = (rows, 3) if several else (rows,)
    targets = torch.randint(0, 2 if several else 3, shape, generator=draw)
    return logits, targets.to(torch.int8) if several else targets


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("choices", CHOICES)
@settings(max_examples=15, deadline=None)
@given(cuts=st.sets(st.integers(1, 10)), seed=st.integers(0, 99))
def test_any_split_into_micro_batches_gives_the_same_gradient(several, choices, cuts, seed):
    """As any number of processes does, whose gradients are averaged times their number."""
    logits, targets = drawn(11, several, seed)
    weights = class_weights("balanced", targets.numpy(), NAMES)
    loss = row_loss(schema.Train(**choices), weights)
    whole = logits.clone().requires_grad_()
    (loss(whole, targets).sum() / 11).backward()
    parts = logits.clone().requires_grad_()
    ends = [0, *sorted(cuts), 11]
    for start, end in itertools.pairwise(ends):
        (loss(parts[start:end], targets[start:end]).sum() / 11).backward()
    assert torch.allclose(whole.grad, parts.grad, atol=1e-7)


def test_the_default_is_torchs_cross_entropy():
    logits, targets = drawn(50, several=False)
    ours = row_loss(schema.Train())(logits, targets)
    assert torch.equal(ours, F.cross_entropy(logits, targets, reduction="none"))
    assert ours.numpy() == pytest.approx(
        probabilities.row_losses(logits.numpy(), targets.numpy()), abs=1e-6
    )


def test_several_labels_are_binary_cross_entropy_summed_over_the_classes():
    logits, targets = drawn(50, several=True)
    ours = row_loss(schema.Train())(logits, targets)
    theirs = torch.nn.BCEWithLogitsLoss()(logits, targets.float())
    assert ours.mean().item() == pytest.approx(3 * theirs.item(), rel=1e-6)


@pytest.mark.parametrize("several", [False, True])
def test_focal_and_generalised_cross_entropy_by_their_formulas(several):
    logits, targets = drawn(50, several)
    if several:
        chances = torch.sigmoid(logits.double())
        p = torch.where(targets > 0, chances, 1 - chances)
    else:
        p = logits.double().softmax(dim=1).gather(1, targets[:, None])
    focal = row_loss(schema.Train(loss="focal", focal_gamma=1.5))(logits, targets)
    assert torch.allclose(focal.double(), ((1 - p) ** 1.5 * -p.log()).sum(dim=1), atol=1e-5)
    robust = row_loss(schema.Train(loss="generalised_cross_entropy", gce_q=0.4))(logits, targets)
    assert torch.allclose(robust.double(), ((1 - p**0.4) / 0.4).sum(dim=1), atol=1e-5)
    plain = row_loss(schema.Train())(logits, targets)
    assert torch.allclose(
        row_loss(schema.Train(loss="focal", focal_gamma=0.0))(logits, targets), plain
    )


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("choices", CHOICES)
def test_gradients_of_rows_that_are_quite_sure_are_finite(several, choices):
    logits = torch.tensor([[200.0, -200.0, 0.0], [-200.0, 200.0, 0.0]], requires_grad=True)
    targets = torch.tensor([[1, 0, 0], [1, 0, 0]]) if several else torch.tensor([0, 0])
    losses = row_loss(schema.Train(**choices))(logits, targets)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(logits.grad).all()


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0] * 13 + [1] * 5 + [2])
    ours = class_weights("balanced", labels, NAMES)
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert ours == pytest.approx(theirs)
    assert ours[labels].mean() == pytest.approx(1)  # so that the loss keeps its size
    absent = class_weights("balanced", labels, ("a", "b", "c", "no row"))
    assert absent == pytest.approx([*theirs, 1])


def test_balanced_weights_of_several_labels_weigh_both_answers_alike():
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]], np.int8)
    assert class_weights("balanced", labels, NAMES) == pytest.approx([3 / 2, 1, 1])


def test_given_weights_count_for_their_label_alone():
    logits, targets = drawn(30, several=False)
    weights = class_weights({"b": 3.0}, targets.numpy(), NAMES)
    weighted = row_loss(schema.Train(), weights)(logits, targets)
    plain = row_loss(schema.Train())(logits, targets)
    assert torch.allclose(weighted, torch.where(targets == 1, 3.0, 1.0) * plain)
    assert class_weights(None, targets.numpy(), NAMES) is None


def test_weights_of_labels_that_are_not_there():
    with pytest.raises(InputError) as caught:
        class_weights({"spamm": 2.0, "zz": 1.0, "ham": 1.0}, np.array([0, 1]), ("ham", "spam"))
    assert caught.value.problems == (
        "train.class_weights: no label 'spamm'; did you mean 'spam'?",
        "train.class_weights: no label 'zz'; the labels are: ham, spam",
    )


labels_of_rows = st.lists(st.integers(0, 3), min_size=2, max_size=60).map(np.array)


@given(labels_of_rows, st.integers(0, 9), st.integers(0, 4))
def test_a_balanced_epoch(labels, seed, epoch):
    """As many rows as there are, every class equally often, the same for seed and epoch."""
    alike = sampling.rows_by_class(labels)
    order = sampling.epoch_order(len(labels), seed, epoch, alike)
    assert len(order) == len(labels)
    counts = [int(np.isin(order, members).sum()) for members in alike]
    assert max(counts) - min(counts) <= 1
    assert (order == sampling.epoch_order(len(labels), seed, epoch, alike)).all()
    for members in alike:  # no row comes again before all others of its class have
        times = np.bincount(order, minlength=len(labels))[members]
        assert times.max() - times.min() <= 2


def test_balanced_epochs_leave_no_row_out():
    labels = np.array([0] * 90 + [1] * 10)
    alike = sampling.rows_by_class(labels)
    seen = np.concatenate([sampling.epoch_order(100, 3, epoch, alike) for epoch in range(9)])
    times = np.bincount(seen, minlength=100)
    assert times[:90].tolist() == [5] * 90  # 9 × 50 places for 90 rows
    assert times[90:].tolist() == [45] * 10
    first = sampling.epoch_order(100, 3, 0, alike)
    assert 0 < (labels[first[:20]] == 1).sum() < 20  # shuffled, not class by class


def test_rows_of_several_labels_stand_in_the_group_of_each():
    labels = np.array([[1, 1], [0, 1], [0, 0], [0, 1]], np.int8)
    assert [group.tolist() for group in sampling.rows_by_class(labels)] == [[0], [0, 1, 3], [2]]


def test_every_loss_starts_where_a_guess_does():
    zeros, targets = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
    assert row_loss(schema.Train())(zeros, targets).mean().item() == pytest.approx(math.log(3))
    several = torch.zeros(4, 3, dtype=torch.int8)
    assert row_loss(schema.Train())(zeros, several)[0].item() == pytest.approx(3 * math.log(2))


def test_recipes_say_which_keys_belong_to_which_loss(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("data: {source: x}\ntrain: {class_weights: {0: 2.5, true: 3, spam: 1}}\n")
    loaded = loader.load(file)
    assert loaded.train.class_weights == {"0": 2.5, "true": 3.0, "spam": 1.0}
    (tmp_path / "again.yaml").write_text(loader.to_yaml(loaded))
    assert loader.load(tmp_path / "again.yaml").train == loaded.train
    word = "train.class_weights={ham: 1, spam: 6}"
    assert loader.load(file, [word]).train.class_weights == {"ham": 1.0, "spam": 6.0}
    for words, message in {
        ("train.loss=focal", "train.label_smoothing=0.1"): "train.label_smoothing: expected 0.0 "
        "with train.loss 'focal' (it is of cross_entropy)",
        ("train.gce_q=0.5",): "train.gce_q: expected 0.7 with train.loss 'cross_entropy' (it is of "
        "generalised_cross_entropy)",
        ("train.class_weights={spam: 0}",): "train.class_weights: expected balanced or a mapping "
        "of words, each to a number above 0, got {'spam': 0}",
        ("train.class_weights=spam",): "train.class_weights: expected balanced or a mapping of "
        "words, each to a number above 0, got 'spam'",
        ("train.class_weights=balanced", "train.sampling=balanced"): "train.class_weights: "
        "expected null with train.sampling 'balanced', got 'balanced': one of the two is enough",
    }.items():
        with pytest.raises(InputError) as caught:
            loader.load(file, words)
        assert caught.value.problems == (f"command line: {message}",)
