"""A loaded classifier → an engine of torch: by this machine's plan, packed where it can be."""

import dataclasses
import os
import threading
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from finetune.compute import attribution, forward, hardware_plan, packing
from finetune.compute.padding_masks import kept_padding_masks
from finetune.config import schema
from finetune.inference.engine import Engine, count_workers, describe_batches
from finetune.inference.engines import EngineOptions, LoadedModel, ModelSource
from finetune.modeling import saved_model
from finetune.modeling.head import find_head
from finetune.modeling.modeling_document_classifier import DocumentClassifier
from finetune.tokenization.document_format import KEY as DOCUMENT
from finetune.tokenization.token_table import Rows, TokenTable

PACKED_TOKENS = 2048  # of a batch; half of training's, as every worker has its own
PRIMITIVES = 128  # products that oneDNN keeps planned


def load(source: ModelSource, options: EngineOptions) -> LoadedModel:
    """The model with its weights.

    Raises:
        InputError: where there is no such model, or it is no classifier.
    """
    model, tokenizer = saved_model.load_classifier(
        source.name, trust_remote_code=source.trust_remote_code, revision=source.revision
    )
    document = getattr(model.config, DOCUMENT, None)  # whoever reads all of it refuses what is none
    has_detector = isinstance(document, dict) and bool(document.get("out_of_scope"))
    hidden = find_head(model).in_features if has_detector else 0
    baseline = attribution.baseline_token(tokenizer)

    def build(states: bool = False) -> Engine:
        return torch_engine(model, dataclasses.replace(options, states=states), baseline)

    return LoadedModel(model.config, tokenizer, build, hidden)


def torch_engine(model: PreTrainedModel, options: EngineOptions, baseline: int = 0) -> Engine:
    """Runs a loaded classifier as scoring does.

    Args:
        baseline: the token that says nothing, for explanations.
    """
    settings: dict[str, Any] = {
        "precision": options.precision,
        "threads": options.threads,
        "micro_batch_tokens": options.tokens,
    }
    plan = hardware_plan.plan_hardware(schema.Model(), schema.Train(**settings))
    _limit_primitive_cache()
    hardware_plan.apply_plan(plan)
    device = options.device or torch.device(plan.device)
    identity = f"{saved_model.weights_hash(model.state_dict())} {plan.precision}"
    model.to(device).eval()  # type: ignore[arg-type]
    by_hand = isinstance(model, DocumentClassifier)
    why_not = packing.why_not_packable(device.type, model.config, by_hand)
    if why_not is None and not options.packing:
        why_not = "as in the model's run"
    if why_not is None:
        packed = packing.attach_packing(model, plan.precision, learns=False)
        why_not = packed.why_not
    else:
        packed = packing.leave_padded(model, device.type, why_not)
    budget = options.tokens or plan.micro_batch_tokens
    if options.tokens is None and why_not is None and device.type == "cpu":
        budget = PACKED_TOKENS
    if options.tokens is None and packing.is_static(model.config):
        budget = max(budget, packing.STATIC_TOKENS)
    many = device.type == "cpu" and not options.in_turn
    workers = count_workers(plan.threads) if many else 1
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[plan.precision]
    recorder = _StateRecorder(model) if options.states else None

    @torch.inference_mode()
    def run(table: TokenTable, rows: Rows, threads: int) -> Tensor:
        torch.set_num_threads(threads)  # those of the calling thread
        autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
        with autocast, kept_padding_masks(device.type):
            logits = forward.forward_rows(model, table, rows, device)
        return logits if recorder is None else torch.cat([logits, recorder.take()], dim=1)

    why = plan.reasons[0] if options.precision == "auto" else f"{plan.precision}: as requested"
    layout = f"padded: {why_not}" if why_not else "end to end, without padding"
    return Engine(
        run=run,
        classes=int(model.config.num_labels or 0),
        budget=budget,
        threads=plan.threads,
        workers=workers,
        reasons=(why, f"rows {layout}", describe_batches(budget, plan.threads, workers)),
        identity=identity,
        prepare=packed.table,
        hidden=0 if recorder is None else recorder.hidden,
        attribute=partial(_attribute, model, baseline, device, plan.threads),
    )


def _attribute(
    model: PreTrainedModel,
    baseline: int,
    device: torch.device,
    threads: int,
    table: TokenTable,
    is_text: Any,
    weights: Any,
) -> Any:
    """The score of each token, as of `explanations.Attribute`."""
    if device.type == "cpu":
        torch.set_num_threads(threads)
    return attribution.attribute_tokens(model, table, is_text, weights, baseline, device)


class _StateRecorder:
    """Keeps what a model's head reads of the rows that a thread computes.

    Attributes:
        hidden: numbers of a row.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        head = find_head(model)
        self.hidden = head.in_features
        self._of_thread = threading.local()
        head.register_forward_pre_hook(self._keep)

    def _keep(self, head: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._of_thread.states = inputs[0]

    def take(self) -> Tensor:
        """Those of this thread's last rows, on their device. (rows, hidden) float32"""
        states: Tensor = self._of_thread.states
        del self._of_thread.states
        return states.float()


def _limit_primitive_cache() -> None:
    """Have oneDNN forget all but the products that it computed last.

    It plans a product anew for each number of tokens and keeps 1,024 plans, each with a buffer of
    the weights' size. Nearly every window of a long job ends in a number of its own. Both are read
    once, before the first product; what the user has set stays.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(PRIMITIVES))
