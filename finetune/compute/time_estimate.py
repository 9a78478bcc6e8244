"""How long training may take here, from one short pass through an encoder of the same shape.

    estimate = estimate_training(config, stages, table, plan)
    estimate.seconds, estimate.timed_tokens, estimate.timed_seconds

Nothing is loaded: the weights are random numbers, which take as long to compute with. Some
documents of usual length are computed forward and backward, as each stage freezes the encoder. What
a run does beside that (the optimizer, scoring, saving) is not in it, nor that layers which stay
frozen may be computed once.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import MODEL_MAPPING, AutoModel, PretrainedConfig, PreTrainedModel

from finetune.compute.hardware_plan import Hardware
from finetune.modeling import freezing
from finetune.tokenization.token_table import TokenTable

TIMED_TOKENS = 1024  # of the pass, about
QUICK = 0.25  # seconds, below which a pass is timed again


@dataclass(frozen=True)
class PlannedTraining:
    """A part of training: how much is frozen, and how many documents are read in all."""

    freeze: str | int
    documents: int


@dataclass(frozen=True)
class TimeEstimate:
    """What a short pass took, and what all of training would.

    Attributes:
        seconds: of all passes through the encoder.
        tokens: of the documents that are read in all, each as often as it is read.
        timed_seconds, timed_tokens: of the pass, of the first part of training.
    """

    seconds: float
    tokens: int
    timed_seconds: float
    timed_tokens: int


def estimate_training(
    config: PretrainedConfig,
    parts: Sequence[PlannedTraining],
    table: TokenTable,
    plan: Hardware,
    processes: int = 1,
) -> TimeEstimate | None:
    """Time a pass for each way in which the encoder is frozen; None for an encoder with own code.

    Args:
        config: the encoder's.
        table: train's documents.
    """
    if type(config) not in MODEL_MAPPING:
        return None
    by_length = np.argsort(table.padded_tokens, kind="stable")
    usual = by_length[len(by_length) // 2 :]
    count = max(1, TIMED_TOKENS // int(table.padded_tokens[usual[0]]))
    rows = usual[:count]
    took: dict[str | int, float] = {}
    for part in parts:
        if part.freeze not in took:
            took[part.freeze] = _time_pass(config, part.freeze, table, rows, plan)
    timed = int(table.lengths[rows].sum())
    mean = float(table.lengths.mean())
    tokens = {part: round(part.documents * mean) for part in parts}
    seconds = sum(took[part.freeze] / timed * many for part, many in tokens.items())
    first = took[parts[0].freeze]
    return TimeEstimate(seconds / processes, sum(tokens.values()), first, timed)


def _random_encoder(config: PretrainedConfig, attention: str) -> PreTrainedModel:
    """An encoder of this shape; with eager attention where it has not the planned one."""
    build: Any = AutoModel.from_config  # which writes the attention into its config
    try:
        model: PreTrainedModel = build(copy.deepcopy(config), attn_implementation=attention)
    except (ImportError, ValueError):
        model = build(copy.deepcopy(config), attn_implementation="eager")
    return model


def _time_pass(
    config: PretrainedConfig,
    freeze: str | int,
    table: TokenTable,
    rows: NDArray[np.int64],
    plan: Hardware,
) -> float:
    """Seconds of a pass forward and backward, the second of two."""
    device = torch.device(plan.device)
    with torch.random.fork_rng(devices=[]):
        model = _random_encoder(config, plan.attention)
        freezing.freeze(model, freeze)
        torch.nn.Module.to(model, device)
        model.train()
        head = torch.nn.Linear(int(config.hidden_size), 2).to(device)
        inputs = table.batch(rows, device)
        half = torch.float16 if plan.precision == "fp16" else torch.bfloat16
        seconds = 0.0
        for _ in range(3):
            began = time.perf_counter()
            with torch.autocast(plan.device, half, enabled=plan.precision != "fp32"):
                states = model(**inputs).last_hidden_state
                loss = head(states.mean(dim=1)).float().square().sum()
            loss.backward()
            if plan.device == "cuda":
                torch.cuda.synchronize()
            before, seconds = seconds, time.perf_counter() - began
            if before and seconds > QUICK:  # the first pass also plans and allocates
                break
    return seconds
