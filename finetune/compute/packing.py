"""Which runs compute their rows end to end, without padding, and by which of two ways.

    plan = plan_packing(plan, recipe, config)     # before the model is there
    packing = attach_packing(model, precision)    # tries it on a few short rows
    table = packing.table(table)                  # its batches are packed

BERT-like layers are computed by hand on CPUs (`packed_table.py`), which is the fastest; those of
other encoders, and all on CUDA, by their own class over one long row (`flat_table.py`). Either way
each product with the weights runs over the tokens of many rows at once.
"""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from finetune.compute import flat_attention, packed_encoders
from finetune.compute.flat_table import FlatTable, attach_flat_rows, why_not_flat
from finetune.compute.hardware_plan import Hardware
from finetune.compute.packed_table import PackedTable, attach_packed_layers
from finetune.config import schema
from finetune.modeling.modeling_document_classifier import DocumentClassifier
from finetune.tokenization.token_table import TokenTable

PACKED_TOKENS = 4096  # at once on a CPU, where the recipe leaves it open; more is hardly faster
PACKED = "sequence packing: rows end to end, without padding"
PROBE = (3, 7, 5)  # tokens of the rows on which packing is tried


def plan_packing(plan: Hardware, recipe: schema.Recipe, config: PretrainedConfig) -> Hardware:
    """The plan, with rows packed where this encoder and this recipe allow it, and why (not)."""
    why_not = _why_not(plan, recipe, config)
    if why_not is not None:
        return dataclasses.replace(plan, reasons=(*plan.reasons, f"rows padded: {why_not}"))
    tokens = plan.micro_batch_tokens
    if plan.device == "cpu" and recipe.train.micro_batch_tokens is None:
        tokens = PACKED_TOKENS
    *reasons, _ = plan.reasons
    return dataclasses.replace(
        plan,
        packed=True,
        micro_batch_tokens=tokens,
        reasons=(*reasons, PACKED, plan.reason_for(tokens)),
    )


def _why_not(plan: Hardware, recipe: schema.Recipe, config: PretrainedConfig) -> str | None:
    if recipe.train.packing == "off":
        return "the recipe says so"
    if recipe.train.compile:
        return "torch.compile is on (train.compile)"
    if recipe.model.head != "linear":
        return "the architecture's own head takes them so"
    why_not = why_not_packable(plan.device, config)
    if why_not is None and recipe.model.dropout != 0 and plan.device == "cpu":
        return "dropout is on (model.dropout)"
    return why_not


def why_not_packable(device: str, config: PretrainedConfig) -> str | None:
    """Why the rows of this encoder, which computes no dropout, cannot be packed; None: they can."""
    inner = getattr(config, "encoder", config)
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "NO").upper() != "NO":
        return "torch.compile is on"
    if device not in ("cpu", "cuda"):
        return f"packing is made for CPUs and CUDA, and this is {device}"
    if device == "cpu" and packed_encoders.why_no_packed_layers(inner) is None:
        return None
    return why_not_flat(inner)


@dataclass(frozen=True)
class Packing:
    """How a model was taught packed batches.

    Attributes:
        why_not: it was not, and computes padded ones; None: it was.
        by_hand: whether its layers are computed by hand.
        kernel: of the attention of flat batches; None: groups of rows.
    """

    model: DocumentClassifier
    by_hand: bool
    kernel: str | None = None
    why_not: str | None = None

    def table(self, table: TokenTable, boundary: int = 0) -> TokenTable:
        """The same rows, whose batches are packed.

        Args:
            boundary: how many frozen layers are skipped where the table has their states.
        """
        if self.why_not is not None:
            return table
        if self.by_hand:
            return PackedTable.of(table, boundary)
        return FlatTable.of(table, self.model, self.kernel)

    def apply(self, plan: Hardware) -> Hardware:
        """The plan as it is after all."""
        if self.why_not is None or not plan.packed:
            return plan
        reasons = (f"rows padded: {self.why_not}" if r == PACKED else r for r in plan.reasons)
        return dataclasses.replace(plan, packed=False, reasons=tuple(reasons))


def attach_packing(model: PreTrainedModel, precision: str) -> Packing:
    """Teach a model packed batches, if it then computes of them what it does of padded ones.

    Tried on a few short rows, as a class may ignore what it is told of rows, or count positions in
    a way of its own. Padded batches it computes as before.

    Args:
        model: on its device.
        precision: of its matrix products: fp32, bf16 or fp16.
    """
    assert isinstance(model, DocumentClassifier)
    config: Any = model.encoder.config
    device = model.classifier.weight.device.type
    by_hand = device == "cpu" and packed_encoders.why_no_packed_layers(config) is None
    kernels = [None] if by_hand else flat_kernels(device, precision, config)
    before = model.encoder.forward, model.pool, config._attn_implementation
    with _evaluating(model):
        expected = _probe(model, _probe_table(model), precision)
        (attach_packed_layers if by_hand else attach_flat_rows)(model)
        for kernel in kernels:
            packing = Packing(model, by_hand, kernel)
            if _is_sound(packing, expected, precision):
                return packing
    model.encoder.forward, model.pool = before[:2]  # type: ignore[method-assign]
    if not by_hand:
        model.encoder.set_attn_implementation(before[2])
    name = type(model.encoder).__name__
    return Packing(model, by_hand, why_not=f"{name} computes something else of packed rows")


def _is_sound(packing: Packing, expected: Tensor, precision: str) -> bool:
    """Whether packed rows get the pooled states of padded ones."""
    try:
        found = _probe(packing.model, packing.table(_probe_table(packing.model)), precision)
    except Exception:  # whatever a class or a kernel does with what it did not expect
        return False
    atol = 1e-5 if precision == "fp32" else 0.05
    return torch.allclose(found, expected, rtol=1e-4, atol=atol)


def flat_kernels(device: str, precision: str, config: Any) -> list[str | None]:
    """What can compute the attention of flat batches, the fastest first; None: groups of rows.

    Kernels for rows of any lengths take 16 bits and no dropout.
    """
    names = ("attention_dropout", "attention_probs_dropout_prob")
    if device != "cuda" or precision == "fp32" or any(getattr(config, n, 0) for n in names):
        return [None]
    kernel = flat_attention.find_kernel(config.hidden_size // config.num_attention_heads, precision)
    return [None] if kernel is None else [kernel, None]


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _probe_table(model: DocumentClassifier) -> TokenTable:
    """A few short rows, one of them longer than a sliding window, if there is one."""
    config: Any = model.encoder.config
    window = getattr(config, "sliding_window", None) or 0
    limit = getattr(config, "max_position_embeddings", None) or 2 * window
    lengths = np.array([*PROBE, min(2 * window, limit // 2)] if window else PROBE)
    pad = getattr(config, "pad_token_id", None) or 0
    known = np.arange(min(12, config.vocab_size))
    known = known[known != pad]
    ids = np.resize(known, lengths.sum()).astype(np.int32)
    return TokenTable(ids, np.concatenate([[0], np.cumsum(lengths)]), lengths, pad)


def _probe(model: DocumentClassifier, table: TokenTable, precision: str) -> Tensor:
    """The pooled states of all rows of a small table. (rows, hidden)"""
    low = torch.float16 if precision == "fp16" else torch.bfloat16
    device = model.classifier.weight.device
    batch = table.batch(np.argsort(-table.lengths, kind="stable"), device)
    with torch.autocast(device.type, low, enabled=precision != "fp32"):
        return model.pool(model.encoder(**batch).last_hidden_state, batch["attention_mask"])
