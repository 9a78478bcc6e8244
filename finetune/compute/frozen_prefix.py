"""The frozen layers at an encoder's start, which a model skips where a batch carries their states.

Frozen layers without dropout give the same states for the same row in every epoch. So they can be
computed once (`frozen_cache.py`), and every later step begins where training does.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from finetune.compute.cached_table import STATES
from finetune.config import schema
from finetune.modeling.freezing import encoder_layers
from finetune.modeling.modeling_document_classifier import DocumentClassifier


class FrozenPrefix:
    """The frozen start of a model, which is skipped where a batch carries its states.

    Attributes:
        boundary: how many layers are skipped.
        pooled: whether all are, and the pooling too.
        rest: what layers give after the states, in a tuple, as DeBERTa's do; None: states alone.
    """

    def __init__(self, model: PreTrainedModel, boundary: int, pooled: bool) -> None:
        self.boundary, self.pooled = boundary, pooled
        self.rest: tuple[None, ...] | None = None
        self._given: torch.Tensor | None = None  # the states that the batch under way carries
        self._seen: list[torch.Tensor] | None = None  # where to put what the model computes there
        model.register_forward_pre_hook(self._take, with_kwargs=True)
        model.register_forward_hook(self._forget)
        if pooled:
            assert isinstance(model, DocumentClassifier)
            encoder, pool = model.encoder.forward, model.pool
            model.encoder.forward = partial(self._encode, encoder)
            model.pool = partial(self._pool, pool)  # type: ignore[method-assign]
            return
        for i, block in enumerate(encoder_layers(model.base_model)[:boundary]):
            block.forward = partial(self._layer, block.forward, i == boundary - 1)

    def states(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """What the model makes of a batch at the boundary: (rows, longest, hidden), or pooled."""
        self._seen = []
        model(**inputs)
        [seen], self._seen = self._seen, None
        return seen

    def _take(self, model: Any, given: Any, named: dict[str, Any]) -> Any:
        self._given = named.pop(STATES, None)
        return given, named

    def _forget(self, model: Any, given: Any, output: Any) -> None:
        self._given = None

    def _encode(self, forward: Any, *given: Any, **named: Any) -> Any:
        if self._given is None:
            return forward(*given, **named)
        return BaseModelOutput(last_hidden_state=self._given)

    def _pool(self, pool: Any, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self._given is not None:
            return self._given
        pooled: torch.Tensor = pool(states, mask)
        self._note(pooled)
        return pooled

    def _layer(self, forward: Any, last: bool, states: Any, *more: Any, **named: Any) -> Any:
        if self._given is not None:
            passed = self._given if last else states
            return passed if self.rest is None else (passed, *self.rest)
        output = forward(states, *more, **named)
        in_tuple = isinstance(output, tuple)
        if self._seen is not None:  # (states, None), (states,) or states, by class and release
            self.rest = (None,) * (len(output) - 1) if in_tuple else None
        if last:
            self._note(output[0] if in_tuple else output)
        return output

    def _note(self, states: torch.Tensor) -> None:
        if self._seen is not None:
            self._seen.append(states)


def attach_frozen_prefix(
    model: PreTrainedModel, recipe: schema.Recipe, epochs: float
) -> FrozenPrefix | None:
    """Make a model skip its frozen start where it can; None where that would save nothing.

    A model of an unknown architecture is left alone: two short rows must give the same logits with
    skipping and without.

    Args:
        epochs: how often training passes over its rows.
    """
    if recipe.cache.frozen_states == "off" or epochs <= 1:
        return None
    encoder = model.base_model
    blocks = encoder_layers(encoder)
    trained = [any(p.requires_grad for p in block.parameters()) for block in blocks]
    boundary = trained.index(True) if True in trained else len(trained)
    whole = not any(p.requires_grad for p in encoder.parameters())
    pooled = whole and isinstance(model, DocumentClassifier)
    below = [encoder] if pooled else [*blocks[:boundary]]
    first: Any = model.get_input_embeddings()
    if boundary == 0 or first.weight.requires_grad or has_dropout(below, encoder.config):
        return None
    prefix = FrozenPrefix(model, boundary, pooled)
    with attention_of_cpus(encoder.config):
        return prefix if _keeps_the_logits(prefix, model) else None


@contextmanager
def attention_of_cpus(config: Any) -> Iterator[None]:
    """While it is entered, an encoder computes attention as CPUs can.

    A model is built on the CPU, where FlashAttention has no kernel. What is computed is the same.
    """
    chosen = config._attn_implementation
    if chosen == "flash_attention_2":
        config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        if chosen == "flash_attention_2":
            config._attn_implementation = chosen


def has_dropout(below: Sequence[torch.nn.Module], config: Any) -> bool:
    """Whether dropout makes the frozen layers' states differ from one time to the next."""
    modules = [module for part in below for module in part.modules()]
    return any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in modules) or any(
        getattr(config, name, 0) for name in ("attention_dropout", "attention_probs_dropout_prob")
    )


def _keeps_the_logits(prefix: FrozenPrefix, model: PreTrainedModel) -> bool:
    """Whether states depend on frozen weights alone, and give the logits of the whole model.

    Tried on two short rows. DeBERTa's layers, for one, share a table that goes on being trained.
    """
    ids = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    inputs = {"input_ids": ids, "attention_mask": mask}
    with torch.enable_grad():
        states = prefix.states(model, inputs)
    if states.requires_grad:
        return False
    with torch.no_grad():
        expected = model(**inputs).logits
        try:
            skipped = model(**inputs, **{STATES: states}).logits
        except Exception:  # whatever an encoder does with what it did not expect
            prefix._given = None
            return False
    return torch.allclose(skipped, expected, rtol=1e-4, atol=1e-5)
