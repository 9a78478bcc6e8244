"""Logits + targets → the loss of each row: what training descends.

    loss = row_loss(recipe.train, class_weights(recipe.train.class_weights, labels, names))
    loss(logits, targets)  # (rows,) float32, in nats

A row's loss depends on that row alone and on weights that are fixed for the whole run. So the
gradient of a step, which is the sum over its rows divided by their number, is the same however the
rows are split into micro-batches and over processes.

Where a row may have several labels, each class is a decision of its own (binary cross-entropy), and
the row's loss is the sum over the classes: -log of the probability of just that set of labels. The
mean over the classes, which `transformers` takes, is that divided by their number, so its learning
rates are as many times higher.

What validation and test report as `loss` has no weights, no smoothing and no focus, whatever is
descended here: it is `probabilities.row_losses`, and can be compared between runs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from finetune.config import schema
from finetune.data.label_tasks import Tasks
from finetune.runtime.errors import InputError, did_you_mean

Loss = Callable[[Tensor, Tensor], Tensor]
Floats = NDArray[np.float64]

SURE = 1e-7  # what 1 - p is at least, in the focal factor: its slope at 0 may be infinite


def row_loss(
    train: schema.Train,
    weights: Floats | None = None,
    device: torch.device | str = "cpu",
    deviation: float | None = None,
) -> Loss:
    """The loss that a recipe asks for.

    With p the probability of what is true:

    - cross_entropy: -log p; smoothed, against a target that is spread a little over all classes.
    - focal: (1 - p)^gamma · -log p, which turns to the rows that are hard (Lin et al. 2017,
      arXiv 1708.02002).
    - generalised_cross_entropy: (1 - p^q) / q, which gives up on rows that contradict all else, as
      wrong labels do (Zhang & Sabuncu 2018, arXiv 1805.07836).

    Args:
        weights: what the losses of each class are multiplied by: of single labels, that of the true
            class; multi-label: that of each class which the row has. (classes,)
        device: where the logits will be.
        deviation: of train's numbers, where they are predicted: then the loss is the squared
            error, as a multiple of their variance.

    Returns:
        A function of logits (rows, classes), float32, and targets: class ids (rows,), 0 and 1
        (rows, classes), or numbers (rows,), float32. It gives (rows,).
    """
    if deviation is not None:
        return lambda logits, targets: ((logits[:, 0] - targets) / deviation) ** 2
    scale = None if weights is None else torch.from_numpy(weights.astype(np.float32)).to(device)

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        multi_label = targets.ndim == 2
        nats = _binary(logits, targets, train) if multi_label else _softmax(logits, targets, train)
        nats = _focus(nats, train)
        if scale is not None:
            nats = nats * (torch.where(targets > 0, scale, 1.0) if multi_label else scale[targets])
        return nats.sum(dim=1) if multi_label else nats

    return loss


def soft_row_loss(
    train: schema.Train,
    multi_label: bool,
    weights: Floats | None = None,
    device: torch.device | str = "cpu",
) -> Loss:
    """The loss that a recipe asks for, of labels that are shares: what `row_loss` would give,
    expected over the label, if it were drawn by its share.

    A row whose share is 1 of one label, or 0 and 1 of each of several, has the same loss as a hard
    label, bit for bit, and the same gradient.

    Args:
        multi_label: whether each label has a probability of its own.
        weights, device: as of `row_loss`.

    Returns:
        A function of logits and of shares, both (rows, classes), float32. It gives (rows,).
    """
    scale = None if weights is None else torch.from_numpy(weights.astype(np.float32)).to(device)

    def loss(logits: Tensor, shares: Tensor) -> Tensor:
        if multi_label:
            ones = torch.ones_like(shares)
            present = _focus(_binary(logits, ones, train), train)
            absent = _focus(_binary(logits, 1 - ones, train), train)
            if scale is not None:
                present = present * scale
            return (shares * present + (1 - shares) * absent).sum(dim=1)
        nats = _focus(_softmax_of_each(logits, train), train)
        return (shares * (nats if scale is None else nats * scale)).sum(dim=1)

    return loss


def task_row_loss(
    train: schema.Train,
    tasks: Tasks,
    weights: Floats | None = None,
    device: torch.device | str = "cpu",
) -> Loss:
    """The loss that a recipe asks for, of several tasks: the mean of what `row_loss` would give for
    each, by the tasks' weights. A task that a row has no label of counts 0 in it.

    Args:
        weights, device: as of `row_loss`.

    Returns:
        A function of logits, as of `Tasks`, and of 0 and 1, both (rows, labels). It gives (rows,).
    """
    counts = tasks.label_weights() * (1.0 if weights is None else weights)
    scale = torch.from_numpy(counts.astype(np.float32)).to(device)
    spread = torch.from_numpy(tasks.same_task().astype(np.float32)).to(device)
    share = train.label_smoothing

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        nats = -F.logsigmoid(logits)  # -log p of each label, as if it were the true one
        if share:
            nats = (1 - share) * nats + share * (nats @ spread)
        return (targets * scale * _focus(nats, train)).sum(dim=1)

    return loss


def distillation_loss(
    logits: Tensor, lessons: Tensor, temperature: float, multi_label: bool
) -> Tensor:
    """T² times the Kullback-Leibler divergence of a model's probabilities at temperature T from its
    teacher's (Hinton et al. 2015, arXiv 1503.02531).

    The factor keeps the gradient as long, whatever the temperature. Where a row may have several
    labels, it is the sum of the divergences of each decision.

    Args:
        logits: the model's. (rows, classes)
        lessons: the teacher's probabilities at that temperature. (rows, classes)

    Returns:
        (rows,)
    """
    logits = logits / temperature
    if multi_label:
        crossed = F.binary_cross_entropy_with_logits(logits, lessons, reduction="none")
        own = torch.xlogy(lessons, lessons) + torch.xlogy(1 - lessons, 1 - lessons)
    else:
        crossed, own = -lessons * F.log_softmax(logits, dim=1), torch.xlogy(lessons, lessons)
    return (crossed + own).sum(dim=1) * temperature**2


def _focus(nats: Tensor, train: schema.Train) -> Tensor:
    """-log p → the loss of the recipe."""
    match train.loss:
        case "focal":
            missing = (-torch.expm1(-nats)).clamp_min(SURE)  # 1 - p
            nats = missing**train.focal_gamma * nats
        case "generalised_cross_entropy":
            nats = -torch.expm1(-train.gce_q * nats) / train.gce_q
    return nats


def _softmax_of_each(logits: Tensor, train: schema.Train) -> Tensor:
    """-log p of each class, as if it were the true one. (rows, classes)"""
    nats, share = -F.log_softmax(logits, dim=1), train.label_smoothing
    if not share:
        return nats
    spread = nats.sum(dim=1, keepdim=True)  # as torch adds them up
    return (1 - share) * nats + spread * (share / logits.shape[1])


def _softmax(logits: Tensor, targets: Tensor, train: schema.Train) -> Tensor:
    """-log p of the true class. (rows,)"""
    return F.cross_entropy(logits, targets, reduction="none", label_smoothing=train.label_smoothing)


def _binary(logits: Tensor, targets: Tensor, train: schema.Train) -> Tensor:
    """-log p of each decision. (rows, classes)"""
    share = train.label_smoothing
    spread = targets.float() * (1 - share) + share / 2
    return F.binary_cross_entropy_with_logits(logits, spread, reduction="none")


def class_weights(
    setting: Literal["balanced"] | Mapping[str, float] | None,
    labels: NDArray[Any],
    names: Sequence[str],
    tasks: Tasks | None = None,
) -> Floats | None:
    """The weight of each class, None where all count equally.

    balanced: n / (k · n_c) for a class with n_c of n rows, so that all k classes weigh the same and
    the mean over the rows is 1 (as scikit-learn does); multi-label: (n - n_c) / n_c, so that
    the rows which have a label weigh as much as those which do not; of tasks, those of each task as
    of single labels, over the rows that have one.

    Args:
        setting: train.class_weights; a label that is not named has weight 1.
        labels: of train: class ids (rows,), or 0 and 1 (rows, classes).
        names: the label space.

    Raises:
        InputError: where a name is no label.
    """
    if setting is None:
        return None
    if setting != "balanced":
        problems = [
            f"train.class_weights: no label '{name}'"
            + did_you_mean(name, list(names), "the labels are")
            for name in setting
            if name not in names
        ]
        if problems:
            raise InputError(problems)
        return np.array([setting.get(name, 1.0) for name in names])
    if tasks is not None:
        of_tasks = [
            labels[tasks.rows_of(labels, task), task.block].argmax(axis=1) for task in tasks
        ]
        return np.concatenate(
            [_balance(ids, len(task.labels)) for ids, task in zip(of_tasks, tasks, strict=True)]
        )
    rows = len(labels)
    if labels.ndim == 2:
        counts = labels.sum(axis=0, dtype=np.float64)
        there = (counts > 0) & (counts < rows)
        return np.where(there, (rows - counts) / np.maximum(counts, 1), 1.0)
    return _balance(labels, len(names))


def _balance(labels: NDArray[Any], classes: int) -> Floats:
    """n / (k · n_c) of single labels. (classes,)"""
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    there = counts > 0
    return np.where(there, len(labels) / (there.sum() * np.maximum(counts, 1)), 1.0)
