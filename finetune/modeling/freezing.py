"""Which weights of a classifier are frozen, and how deep below the head each one is."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from finetune.config.schema import Recipe
from finetune.runtime.errors import InputError


def validate_freezing(recipe: Recipe, encoder: PretrainedConfig) -> None:
    """Refuse to freeze more layers than the encoder has, in any stage, before training.

    Raises:
        InputError: for each. Where a config does not tell its layers, only the model can: `freeze`.
    """
    layers, name = getattr(encoder, "num_hidden_layers", None), encoder.model_type
    if hasattr(encoder, "num_hidden_groups"):  # ALBERT: its layers repeat a few
        layers = max(encoder.num_hidden_groups, encoder.inner_group_num)
        name += ", whose layers share their weights,"
    if recipe.model.keep_layers is not None:
        name += ", cut by model.keep_layers,"
    problems = {}
    for number, stage in enumerate(recipe.by_stage(), 1):
        what = stage.model.freeze
        if isinstance(layers, int) and isinstance(what, int) and what > layers:
            from_stage = recipe.train.stages and recipe.train.stages[number - 1].freeze is not None
            key = f"train.stages: freeze of stage {number}" if from_stage else "model.freeze"
            problems[key] = _too_many(key, what, layers, name)
    if problems:
        raise InputError(problems.values())


def _too_many(key: str, got: int, most: int, name: str) -> str:
    return (
        f"{key}: expected at most {most}, the number of layers that {name} has, got {got}; "
        "'encoder' freezes it all"
    )


def freeze(model: PreTrainedModel, what: str | int) -> None:
    """Freeze nothing, the embeddings, these and the first layers, or the whole encoder.

    Raises:
        InputError: where the encoder has fewer layers.
    """
    encoder: Any = model.base_model
    if what == "none":
        return
    if what == "encoder":
        encoder.requires_grad_(False)
        return
    blocks = encoder_layers(encoder)
    count = 0 if what == "embeddings" else int(what)
    if count > len(blocks):
        raise InputError(_too_many("model.freeze", count, len(blocks), encoder.config.model_type))
    for module in (*_embeddings(model, blocks), *blocks[:count]):
        module.requires_grad_(False)


def encoder_layers(encoder: nn.Module) -> nn.ModuleList:
    """The stack of blocks: the longest list of modules of one type."""
    stacks = [
        module
        for module in encoder.modules()
        if isinstance(module, nn.ModuleList) and len({type(block) for block in module}) == 1
    ]
    return max(stacks, key=len, default=nn.ModuleList())


def parameter_depths(model: PreTrainedModel) -> dict[nn.Parameter, int]:
    """How far below the head each parameter is: 0 the head, 1 the encoder's last layer and what
    comes after it; the embeddings are deepest, one below the first layer."""
    encoder, depths = model.base_model, dict.fromkeys(model.parameters(), 0)
    depths |= dict.fromkeys(encoder.parameters(), 1)
    blocks = encoder_layers(encoder)
    for depth, block in enumerate(reversed(blocks), 1):
        depths |= dict.fromkeys(block.parameters(), depth)
    # Tables of relative positions are beside the layers (DeBERTa, MPNet), and feed them all.
    inside = set(blocks.modules())
    tables = [
        module
        for name, module in encoder.named_modules()
        if name.split(".")[-1].startswith("rel") and module not in inside
    ]
    for module in (*_embeddings(model, blocks), *tables):
        depths |= dict.fromkeys(module.parameters(), len(blocks) + 1)
    return depths


def _embeddings(model: PreTrainedModel, blocks: nn.ModuleList) -> Iterator[nn.Module]:
    """What turns ids into the first layer's input."""
    encoder, table = model.base_model, model.get_input_embeddings()
    part = encoder
    while part is encoder or any(module is blocks for module in part.modules()):
        part = next(c for c in part.children() if any(module is table for module in c.modules()))
    yield part
    # Separate modules: ELECTRA's `embeddings_project`, ALBERT's `embedding_hidden_mapping_in`.
    inside = set(blocks.modules())
    for name, module in encoder.named_modules():
        if name.split(".")[-1].startswith("embed") and module not in inside:
            yield module


def freeze_unreached(model: PreTrainedModel) -> None:
    """Freeze what the logits do not depend on: DDP waits for a gradient of every trainable weight.

    Walks the autograd graph of one short row, without a backward pass.
    """
    with torch.enable_grad():
        logits = model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits  # (1, classes)
    reached: set[Tensor] = set()
    nodes, seen = [logits.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):  # a leaf
            reached.add(node.variable)
        nodes += [parent for parent, _ in node.next_functions]
    for parameter in model.parameters():
        if parameter not in reached:
            parameter.requires_grad_(False)
