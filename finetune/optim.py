"""Parameters → optimizer; step → learning rate.

The rate is a pure function of the step: no scheduler object, no state to save.
"""

import math

import torch

from finetune import recipe


def build(model: torch.nn.Module, choices: recipe.Optim) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters; weight decay spares biases and norms.

    A bias or a norm's weight is what has one dimension: decay would pull a norm's scale to 0,
    where it regularises nothing (Loshchilov & Hutter 2019 decay all; BERT's recipe spares these).
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": choices.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # The loop sets each step's rate; `auto` is not known yet.
    rate = choices.lr if isinstance(choices.lr, float) else recipe.DEFAULT_LR[choices.name]
    if choices.name == "adamw":
        first, second = choices.betas
        return torch.optim.AdamW(groups, lr=rate, betas=(first, second), eps=choices.eps)
    return torch.optim.SGD(groups, lr=rate, momentum=choices.momentum, nesterov=choices.nesterov)


def learning_rate(step: int, steps: int, steps_per_epoch: int, choices: recipe.Optim) -> float:
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
