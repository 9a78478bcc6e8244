"""Parameters → optimizer, in groups with a learning rate and a weight decay of their own."""

from typing import Any

import torch
from transformers import PreTrainedModel

from finetune.config import schema
from finetune.modeling import freezing
from finetune.modeling.modeling_document_classifier import StaticEncoder

ADAMW_HEAD = 10.0
FEW_LABELS = 8
# Static embeddings: a token's gradient is its share of a mean over all tokens, in the few rows that
# have it; and their mean is short, so that the head has further to go.
STATIC_RATES = {"sgd": 100.0, "adamw": 100.0}
STATIC_HEAD = {"sgd": 30.0, "adamw": 10.0}


def build_optimizer(
    model: torch.nn.Module, optim: schema.Optim, fused: bool = False
) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters, in groups.

    Each group has a `scale`, by which the loop multiplies the step's rate: the head's, or that of
    a layer (discriminative rates, Howard & Ruder 2018, section 3.2). Weight decay spares biases and
    norms, which have one dimension: it would pull a norm's scale to 0, where it regularises nothing
    (Loshchilov & Hutter 2019 decay all; BERT's recipe spares these).

    Args:
        fused: whether one kernel of the device updates all parameters.
    """
    scale = head_scale(model, optim)
    static = STATIC_RATES[optim.name] if _is_static(model) else None
    depths: dict[torch.nn.Parameter, int] = {}
    if (scale, optim.layer_decay) != (1.0, 1.0) or static is not None:
        assert isinstance(model, PreTrainedModel)
        depths = freezing.parameter_depths(model)
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        depth, decays = depths.get(parameter, 0), parameter.ndim > 1
        own = optim.layer_decay ** (depth - 1) * (static or 1.0) if depth else scale
        group = groups.setdefault(
            (own, decays),
            {
                "params": [],
                "weight_decay": optim.weight_decay if decays else 0.0,
                "scale": own,
            },
        )
        group["params"].append(parameter)
    # The loop sets each step's rate; `auto` is not known yet.
    rate = optim.lr if isinstance(optim.lr, float) else schema.DEFAULT_LR[optim.name]
    if optim.name == "adamw":
        first, second = optim.betas
        return torch.optim.AdamW(
            groups.values(), lr=rate, betas=(first, second), eps=optim.eps, fused=fused or None
        )
    sgd = torch.optim.SGD(
        groups.values(),
        lr=rate,
        momentum=optim.momentum,
        nesterov=optim.nesterov,
        fused=fused or None,
    )
    if fused and optim.momentum:
        sgd.register_step_pre_hook(_begin_momentum)
    return sgd


def _begin_momentum(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Have momentum begin at zero, from which the first step makes the gradient, as without this.

    Fused SGD makes it of memory as it comes, for the kernel to fill; where fp16's gradients
    overflow, the kernel skips the first step and fills nothing, and the next one reads it.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if parameter.grad is not None and state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def head_scale(model: torch.nn.Module, optim: schema.Optim) -> float:
    """What the head's rate is multiplied by, where the recipe leaves that open too.

    A head starts at zero, and has further to go than what is pretrained. AdamW's steps are as long
    for both, so the head's rate is higher. SGD's are as long as the gradient, which is large for a
    head of few labels; of many, each label's weights see few rows of theirs in a step, and a
    softmax that starts even, or sigmoids that start at the labels' shares, make little of the
    others. Measured by scripts/studies/sgd_study.py and multi_label_study.py.
    """
    config: Any = getattr(model, "config", None)
    if optim.head_lr_scale is not None:
        return optim.head_lr_scale
    if config is None:
        return 1.0
    if _is_static(model):
        return STATIC_HEAD[optim.name]
    if optim.name == "adamw":
        return ADAMW_HEAD
    return max(1.0, float(config.num_labels) / FEW_LABELS)


def _is_static(model: torch.nn.Module) -> bool:
    """Whether a classifier's encoder is a table of static embeddings."""
    return isinstance(getattr(model, "encoder", None), StaticEncoder)
