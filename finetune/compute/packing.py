"""Which runs compute their rows end to end, without padding, and by which of two ways.

    plan = plan_packing(plan, recipe, config)     # before the model is there
    packing = attach_packing(model, precision)    # tries it on a few short rows
    table = packing.table(table)                  # its batches are packed, or padded

BERT-like layers are computed by hand on CPUs (`packed_table.py`), which is the fastest; those of
other encoders, those with dropout or under a class's own head, and all on CUDA, by their own class
over one long row (`flat_model.py`). Either way each product with the weights runs over the tokens
of many rows at once.
"""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from finetune.compute import flat_attention, packed_encoders, packing_probe
from finetune.compute.flat_encoders import computes_own_attention
from finetune.compute.flat_model import attach_flat_rows, why_not_flat
from finetune.compute.flat_table import FlatTable
from finetune.compute.frozen_prefix import has_dropout
from finetune.compute.hardware_plan import Hardware
from finetune.compute.packed_table import PackedTable, attach_packed_layers
from finetune.config import schema
from finetune.modeling import pretrained
from finetune.modeling.modeling_document_classifier import DocumentClassifier, StaticEncoderConfig
from finetune.tokenization.token_table import TokenTable

PACKED_TOKENS = 4096  # at once on a CPU, where the recipe leaves it open; more is hardly faster
STATIC_TOKENS = 16384  # at once of static embeddings, of which a token takes a kilobyte
MULTIPLE = 8  # tokens: what a GPU's matrix products ask of the length of padded rows
PACKED = "sequence packing: rows end to end, without padding"


def plan_packing(plan: Hardware, recipe: schema.Recipe, config: PretrainedConfig) -> Hardware:
    """The plan, with rows packed where this encoder and this recipe allow it, and why (not)."""
    why_not = _why_not(plan, recipe, config)
    tokens = plan.micro_batch_tokens
    *reasons, _ = plan.reasons
    if why_not is not None:
        if is_static(config):
            if recipe.train.micro_batch_tokens is None:
                tokens = max(tokens, STATIC_TOKENS)
            said = [reason for reason in reasons if not reason.startswith("attention ")]
            plan = dataclasses.replace(
                plan, micro_batch_tokens=tokens, reasons=(*said, plan.reason_for(tokens))
            )
        return dataclasses.replace(plan, reasons=(*plan.reasons, f"rows padded: {why_not}"))
    if plan.device == "cpu" and recipe.train.micro_batch_tokens is None:
        tokens = PACKED_TOKENS
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
    by_hand = recipe.model.head == "linear" and recipe.model.dropout == 0
    return why_not_packable(plan.device, config, by_hand)


def is_static(config: PretrainedConfig) -> bool:
    """Whether an encoder, or that of a classifier, is a table of static embeddings."""
    return isinstance(getattr(config, "encoder", config), StaticEncoderConfig)


def why_not_packable(device: str, config: PretrainedConfig, by_hand: bool = True) -> str | None:
    """Why the rows of this encoder cannot be packed; None: they can, and `attach_packing` tries.

    Args:
        by_hand: whether its layers may be computed by hand, which leaves dropout out.
    """
    inner = getattr(config, "encoder", config)
    if is_static(config):
        return "static embeddings have no layers, for which packing is made"
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "NO").upper() != "NO":
        return "torch.compile is on"
    if device not in ("cpu", "cuda"):
        return f"packing is made for CPUs and CUDA, and this is {device}"
    if by_hand and device == "cpu" and packed_encoders.why_no_packed_layers(inner) is None:
        return None
    return why_not_flat(inner)


@dataclass(frozen=True)
class Packing:
    """How a model was taught packed batches.

    Attributes:
        device: of the model.
        by_hand: whether its layers are computed by hand.
        kernel: of the attention of flat batches; None: groups of rows.
        why_not: it was not, and computes padded ones; None: it was.
    """

    model: PreTrainedModel
    device: str
    by_hand: bool = False
    kernel: str | None = None
    why_not: str | None = None

    def table(self, table: TokenTable, boundary: int = 0) -> TokenTable:
        """The same rows, whose batches are packed; else those that are padded as suits the device.

        Args:
            boundary: how many frozen layers are skipped where the table has their states.
        """
        if self.why_not is not None:
            if self.device == "cpu":
                return table
            longest = pretrained.max_positions(self.model.config)
            return dataclasses.replace(table, multiple=MULTIPLE, longest=longest)
        if self.by_hand:
            return PackedTable.of(table, boundary)
        return FlatTable.of(table, self.model, self.kernel)

    def apply(self, plan: Hardware) -> Hardware:
        """The plan as it is after all."""
        if self.why_not is None or not plan.packed:
            return plan
        reasons = (f"rows padded: {self.why_not}" if r == PACKED else r for r in plan.reasons)
        return dataclasses.replace(plan, packed=False, reasons=tuple(reasons))


def leave_padded(model: PreTrainedModel, device: str, why_not: str = "as planned") -> Packing:
    """For a model that computes padded rows: their lengths as suits its device."""
    return Packing(model, device, why_not=why_not)


def attach_packing(model: PreTrainedModel, precision: str, learns: bool = True) -> Packing:
    """Teach a model packed batches, if it then computes of them what it does of padded ones.

    Tried on a few rows (`packing_probe.py`). Padded batches it computes as before.

    Args:
        model: on its device.
        precision: of its matrix products: fp32, bf16 or fp16.
        learns: whether it is trained, and not only computed.
    """
    config: Any = model.base_model.config
    device = model.device.type
    by_hand = (
        isinstance(model, DocumentClassifier)
        and device == "cpu"
        and packed_encoders.why_no_packed_layers(config) is None
        and not (learns and has_dropout([model.encoder], config))
    )
    name = type(model.base_model).__name__
    probe = packing_probe.Probe(model, learns)
    undo = (attach_packed_layers if by_hand else attach_flat_rows)(model)
    packing = Packing(model, device, by_hand)
    if not probe.is_passed_by(packing.table):
        undo()
        return leave_padded(model, device, f"{name} computes something else of packed rows")
    low = torch.float16 if precision == "fp16" else torch.bfloat16
    for kernel in flat_kernels(device, precision, config):
        faster = Packing(model, device, by_hand, kernel)
        if kernel is not None and probe.is_passed_in(low, faster.table):
            return faster
    return packing


def flat_kernels(device: str, precision: str, config: Any) -> list[str | None]:
    """What can compute the attention of flat batches, the fastest first; None: groups of rows.

    Kernels for rows of any lengths take 16 bits, no dropout and no bias of the scores.
    """
    names = ("attention_dropout", "attention_probs_dropout_prob")
    if device != "cuda" or precision == "fp32" or any(getattr(config, n, 0) for n in names):
        return [None]
    if computes_own_attention(config):
        return [None]
    kernel = flat_attention.find_kernel(config.hidden_size // config.num_attention_heads, precision)
    return [None] if kernel is None else [kernel, None]
