"""Parameters → optimizer; step → learning rate.

The rate is a pure function of the step: no scheduler object, no state to save.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from finetune.config import schema
from finetune.modeling import freezing

ADAMW_HEAD = 10.0
FEW_LABELS = 8


def build_optimizer(model: torch.nn.Module, choices: schema.Optim) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters, in groups.

    Each group has a `scale`, by which the loop multiplies the step's rate: the head's, or that of
    a layer (discriminative rates, Howard & Ruder 2018, section 3.2). Weight decay spares biases and
    norms, which have one dimension: it would pull a norm's scale to 0, where it regularises nothing
    (Loshchilov & Hutter 2019 decay all; BERT's recipe spares these).
    """
    scale, by_block = head_scale(model, choices), choices.clip == "block"
    in_blocks = by_block or (scale, choices.layer_decay) != (1.0, 1.0)
    depths: dict[torch.nn.Parameter, int] = {}
    if in_blocks:
        assert isinstance(model, PreTrainedModel)
        depths = freezing.parameter_depths(model)
    groups: dict[tuple[float, bool, int | None], dict[str, Any]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        depth, decays = depths.get(parameter, 0), parameter.ndim > 1
        own = choices.layer_decay ** (depth - 1) if depth else scale
        block = depth if by_block else None
        group = groups.setdefault(
            (own, decays, block),
            {
                "params": [],
                "weight_decay": choices.weight_decay if decays else 0.0,
                "scale": own,
                "block": block,
            },
        )
        group["params"].append(parameter)
    # The loop sets each step's rate; `auto` is not known yet.
    rate = choices.lr if isinstance(choices.lr, float) else schema.DEFAULT_LR[choices.name]
    if choices.name == "adamw":
        first, second = choices.betas
        return torch.optim.AdamW(groups.values(), lr=rate, betas=(first, second), eps=choices.eps)
    return torch.optim.SGD(
        groups.values(), lr=rate, momentum=choices.momentum, nesterov=choices.nesterov
    )


def head_scale(model: torch.nn.Module, choices: schema.Optim) -> float:
    """What the head's rate is multiplied by, where the recipe leaves that open too.

    A head starts at zero, and has further to go than what is pretrained. AdamW's steps are as long
    for both, so the head's rate is higher. SGD's are as long as the gradient, which is large for a
    head of few labels; of many, each label's weights see few rows of theirs in a step, and a
    softmax that starts even makes little of the others. Measured by scripts/sgd_study.py.
    """
    config: Any = getattr(model, "config", None)
    if choices.head_scale is not None:
        return choices.head_scale
    if config is None:
        return 1.0
    if choices.name == "adamw":
        return ADAMW_HEAD
    if config.problem_type == "multi_label_classification":
        return 1.0
    return max(1.0, float(config.num_labels) / FEW_LABELS)


def clip_blocks(blocks: Sequence[Sequence[torch.nn.Parameter]], limit: float) -> torch.Tensor:
    """Clip the gradient of each block by itself; the longest, as it was before."""
    norms = [torch.nn.utils.clip_grad_norm_(block, limit) for block in blocks]
    return torch.stack([n.full_tensor() if isinstance(n, DTensor) else n for n in norms]).max()


def blocks(optimizer: torch.optim.Optimizer) -> list[list[torch.nn.Parameter]]:
    """The parameters of each block, where gradients are clipped by block; else none."""
    found: dict[int, list[torch.nn.Parameter]] = {}
    for group in optimizer.param_groups:
        if group["block"] is not None:
            found.setdefault(group["block"], []).extend(group["params"])
    return [*found.values()]


def learning_rate(step: int, steps: int, steps_per_epoch: int, choices: schema.Optim) -> float:
    """The rate of a step, counted from 0.

    Warm-up rises evenly to the peak; after it the rate falls to 0, which it would reach just after
    the last step, so that every step learns. With `every: epoch` the rate falls only where an
    epoch begins.
    """
    assert isinstance(choices.lr, float), "the recipe, or a range test, resolves the rate"
    # Rounded, as 0.07 × 100 is a little above 7; and one step at least stands at the peak.
    warmup = min(math.ceil(round(choices.warmup * steps, 9)), steps - 1)
    if step < warmup:
        return choices.lr * (step + 1) / (warmup + 1)
    if choices.every == "epoch":
        step = max(warmup, step - step % steps_per_epoch)
    done = (step - warmup) / max(1, steps - warmup)  # 0 at the peak, below 1 at the last step
    if choices.schedule == "constant":
        return choices.lr
    if choices.schedule == "cosine":
        return choices.lr * (1 + math.cos(math.pi * done)) / 2
    return choices.lr * (1 - done)
