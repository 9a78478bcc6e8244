"""A model that takes the batches of a `FlatTable` too: rows end to end, through the class's code.

    undo = attach_flat_rows(model)
    model(**batch)    → states (1, capacity, hidden) → by row → logits

A class's own head reads padded states: for it, and for it alone, they are spread out again.
"""

# torch's own functions for autograd are not typed.
# mypy: disable-error-code="no-untyped-call"

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import MODEL_MAPPING, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from finetune.compute import flat_attention, flat_encoders
from finetune.compute.flat_attention import FlatRows
from finetune.compute.flat_encoders import Undo
from finetune.compute.flat_table import FLAT_ROWS
from finetune.modeling.freezing import encoder_layers
from finetune.modeling.modeling_document_classifier import DocumentClassifier

# Of the batch that a class with its own head computes in this thread.
CURRENT: ContextVar[FlatRows | None] = ContextVar("flat_rows", default=None)


def why_not_flat(config: PretrainedConfig) -> str | None:
    """Why an encoder's class cannot compute a flat batch; None: it should, and `attach` tries."""
    kind = config.model_type
    if flat_encoders.computes_own_attention(config):
        return flat_encoders.why_not(config)
    model_class: Any = MODEL_MAPPING.get(type(config), None)
    if model_class is None:
        return f"{kind} has its own code"
    if not getattr(model_class, "_supports_attention_backend", False):
        return f"{kind}, in this release of transformers, takes no other attention than its own"
    if "position_ids" not in inspect.signature(model_class.forward).parameters:
        return f"{kind} counts positions over a whole batch row"
    return None


def attach_flat_rows(model: PreTrainedModel) -> Undo:
    """Teach a model the batches of a `FlatTable`; it computes the others as before.

    Returns: what makes it forget them.
    """
    encoder: Any = model.base_model
    if flat_encoders.computes_own_attention(encoder.config):
        undo_attention, compute = flat_encoders.teach(encoder), partial(_encode_own, encoder)
    else:
        undo_attention = _take_attention(encoder)
        compute = partial(_encode_by_class, encoder.forward)
    undo_model = (
        _attach_own_pooling(model, compute)
        if isinstance(model, DocumentClassifier)
        else _attach_own_head(model, compute)
    )

    def undo() -> None:
        undo_model()
        undo_attention()

    return undo


def _take_attention(encoder: Any) -> Undo:
    before = encoder.config._attn_implementation
    encoder.set_attn_implementation(flat_attention.NAME)
    return lambda: encoder.set_attn_implementation(before)


def _encode_by_class(
    encode: Callable[..., Any], flat: FlatRows, input_ids: Tensor, **named: Any
) -> Any:
    # transformers makes masks of masks with two dimensions, and leaves those with four as they are;
    # the attention function does not read it.
    unread = torch.zeros(1, 1, 1, 1, device=input_ids.device)
    named |= {"position_ids": flat.positions, "flat_rows": flat}
    return encode(input_ids=input_ids, attention_mask=unread, **named)


def _encode_own(
    encoder: Any, flat: FlatRows, input_ids: Tensor, token_type_ids: Tensor | None = None,
    **named: Any,
) -> Any:  # fmt: skip
    states = flat_encoders.encode(encoder, input_ids, flat, token_type_ids)
    return BaseModelOutput(last_hidden_state=states)


# --- pooling and one linear layer -----------------------------------------------------------------


def _attach_own_pooling(model: DocumentClassifier, compute: Callable[..., Any]) -> Undo:
    before = encode, pool = model.encoder.forward, model.pool

    def encode_either(input_ids: Any, attention_mask: Any, **named: Any) -> Any:
        if isinstance(attention_mask, FlatRows):
            return compute(attention_mask, input_ids, **named)
        return encode(input_ids=input_ids, attention_mask=attention_mask, **named)

    def undo() -> None:
        model.encoder.forward, model.pool = before  # type: ignore[method-assign]

    model.encoder.forward = encode_either
    model.pool = partial(_pool, pool, model.config)  # type: ignore[method-assign]
    return undo


def _mean(states: Tensor, flat: FlatRows) -> Tensor:
    # `unsafe`: it need not look at the numbers of rows first, for which a GPU's host would wait.
    means = torch.segment_reduce(states, "mean", offsets=flat.ends.long(), axis=0, unsafe=True)
    return means[: flat.count]


def _first(states: Tensor, flat: FlatRows) -> Tensor:
    return states.index_select(0, flat.ends[: flat.count])


# What `POOLINGS` does with padded rows: (capacity, hidden) → (rows, hidden).
POOLINGS = {"mean": _mean, "cls": _first}


def _pool(pool: Callable[..., Tensor], config: Any, states: Tensor, attention_mask: Any) -> Tensor:
    if not isinstance(attention_mask, FlatRows):
        return pool(states, attention_mask)
    return POOLINGS[config.pooling](states[0].float(), attention_mask)


# --- a class's own head ---------------------------------------------------------------------------


def _attach_own_head(model: PreTrainedModel, compute: Callable[..., Any]) -> Undo:
    """The states are spread out where the layers end, before any pooler of the class reads them."""
    encoder: Any = model.base_model
    encode = encoder.forward
    stack = None if flat_encoders.computes_own_attention(encoder.config) else _stack(encoder)
    stacked = None if stack is None else stack.forward

    def encode_either(input_ids: Any = None, attention_mask: Any = None, **named: Any) -> Any:
        flat = CURRENT.get()
        if flat is None:
            return encode(input_ids=input_ids, attention_mask=attention_mask, **named)
        output = compute(flat, input_ids, **named)
        return output if stack is not None else _spread(output, flat)

    def stack_either(*given: Any, **named: Any) -> Any:
        assert stacked is not None
        output, flat = stacked(*given, **named), CURRENT.get()
        return output if flat is None else _spread(output, flat)

    def take(module: Any, given: Any, named: dict[str, Any]) -> Any:
        CURRENT.set(named.pop(FLAT_ROWS, None))
        return given, named

    def forget(module: Any, given: Any, output: Any) -> None:
        CURRENT.set(None)

    hooks = (
        model.register_forward_pre_hook(take, with_kwargs=True),
        model.register_forward_hook(forget, always_call=True),
    )
    encoder.forward = encode_either
    if stack is not None:
        stack.forward = stack_either

    def undo() -> None:
        encoder.forward = encode
        if stack is not None:
            stack.forward = stacked
        for hook in hooks:
            hook.remove()

    return undo


def _stack(encoder: Any) -> Any:
    """The module that computes an encoder's layers; None: the encoder does so itself."""
    blocks = encoder_layers(encoder)
    around = (part for part in encoder.children() if any(one is blocks for one in part.modules()))
    stack = next(around, None)
    return None if stack is blocks else stack


def _spread(output: Any, flat: FlatRows) -> Any:
    """What layers give, with states of padded rows: (1, capacity, …) → (rows, longest, …)."""
    assert flat.padded is not None
    if isinstance(output, Tensor):
        return output[0].index_select(0, flat.padded.flatten()).unflatten(0, flat.padded.shape)
    if isinstance(output, tuple):
        return (_spread(output[0], flat), *output[1:])
    output.last_hidden_state = _spread(output.last_hidden_state, flat)
    return output
