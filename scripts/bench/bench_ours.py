"""The sides `ours` and `limit` of bench.py: this package's loop, and its matrix products alone."""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from bench_shown import Numbers
from torch import nn

from finetune.compute import frozen_prefix, hardware_plan, packing
from finetune.config import loader, schema
from finetune.data import local_paths, prepare, sources
from finetune.data.corpus import Corpus
from finetune.evaluation import scoring
from finetune.modeling import build, freezing, pretrained, saved_model
from finetune.runtime import console
from finetune.tokenization import encoding, token_table
from finetune.training import loop, optimizer, row_losses
from finetune.training.schedule import Schedule
from finetune.training.train_log import TrainLog


class Mark(NamedTuple):
    """When a step ended, and what had been done by then."""

    time: float
    rows: int
    tokens: int


def loaded(known: argparse.Namespace, words: Sequence[str]) -> tuple[schema.Recipe, Corpus, str]:
    """The recipe, its documents, and where the encoder is."""
    console.quiet_libraries()
    console.CONSOLE.is_main = False  # what is printed are the numbers
    if known.optimizer is not None:
        words = [*words, f"optim.name={known.optimizer}", "optim.head_lr_scale=1"]
    choices = loader.load(known.recipe, words)
    corpus = prepare.prepare_corpus(sources.load_rows(choices.data), choices.data)
    return choices, corpus, local_paths.resolve_model_source(choices.model.source)


class Ours:
    """What `finetune/run.py` builds of a recipe."""

    def __init__(
        self, choices: schema.Recipe, source: str, labels: Sequence[str], passes: float = 1
    ) -> None:
        from accelerate import Accelerator

        plan = hardware_plan.plan_hardware(choices.model, choices.train)
        mixed = "no" if plan.precision == "fp32" else plan.precision
        self.accelerator = Accelerator(mixed_precision=mixed)
        hardware_plan.apply_plan(plan)
        self.tokenizer = pretrained.load_tokenizer(source, choices.model)
        config = pretrained.load_config(source, choices.model)
        self.length = encoding.resolve_max_length(
            choices.data.max_length, pretrained.max_positions(config)
        )
        self.tokenizer.model_max_length = self.length
        self.choices, self.plan = choices, packing.plan_packing(plan, choices, config)
        self.bare = build.build_classifier(
            source, choices.model, labels, self.plan.attention, seed=0
        )
        self.prefix = frozen_prefix.attach_frozen_prefix(self.bare, choices, passes)
        self.packing = (
            packing.attach_packing(self.bare, self.plan.precision)
            if self.plan.packed
            else packing.leave_padded(self.bare, self.plan.device)
        )
        self.model, self.optimizer = self.accelerator.prepare(
            self.bare, optimizer.build_optimizer(self.bare, choices.optim)
        )

    def encode(self, texts: Sequence[str]) -> token_table.TokenTable:
        return encoding.encode(texts, self.tokenizer, self.length)

    def pack(self, table: token_table.TokenTable) -> token_table.TokenTable:
        """The table as the run gives it to the loop."""
        return self.packing.table(table, 0 if self.prefix is None else self.prefix.boundary)

    def fit(
        self,
        table: token_table.TokenTable,
        labels: Any,
        steps: int,
        after: Callable[[Mark], None] = lambda mark: None,
    ) -> list[Mark]:
        """Train for so many steps; `after` is called after each."""
        log = TrainLog(self.accelerator, self.choices.optim.max_grad_norm)
        marks = [Mark(time.perf_counter(), 0, 0)]

        def after_step(step: int, scored: bool) -> bool:
            marks.append(Mark(time.perf_counter(), log.rows, log.tokens))
            after(marks[-1])
            return False

        recipe = with_steps(self.choices, steps)
        rows = row_losses.TrainingRows(table, labels, self.plan.micro_batch_tokens)
        loop.fit(
            self.model,
            self.optimizer,
            rows,
            Schedule.of(recipe, len(table)),
            recipe,
            self.accelerator,
            log,
            loop.Callbacks(after_step=after_step),
        )
        return marks

    def logits(self, table: token_table.TokenTable) -> Any:
        return scoring.compute_logits(
            self.model, table, self.accelerator, self.plan.micro_batch_tokens
        )


def with_steps(choices: schema.Recipe, steps: int) -> schema.Recipe:
    """The recipe with a schedule of so many steps, over as many epochs as they need."""
    train = choices.train.model_copy(update={"max_steps": steps, "epochs": steps})
    return choices.model_copy(update={"train": train})


def pace(marks: Sequence[Mark], warmup: int, mean: float) -> Numbers:
    """The timed steps: rows of mean length a second, and what that was made of."""
    began, ended = marks[warmup], marks[-1]
    rate = (ended.tokens - began.tokens) / (ended.time - began.time)
    return {
        "train": rate / mean,
        "tokens_per_second": rate,
        "seconds": ended.time - began.time,
        "rows": ended.rows - began.rows,
        "tokens": ended.tokens - began.tokens,
        "first_step": marks[1].time,
    }


def ours(known: argparse.Namespace, words: Sequence[str]) -> Numbers:
    choices, corpus, source = loaded(known, words)
    made = Ours(choices, source, corpus.labels)
    table = made.pack(made.encode(corpus.train.texts))
    steps = known.warmup + known.steps
    if known.profile:
        profiled(lambda: made.fit(table, corpus.train.labels, steps))
        return {}
    marks = made.fit(table, corpus.train.labels, steps)
    began = time.perf_counter()
    test = made.pack(made.encode(corpus.test.texts[: known.scored]))
    found = made.logits(test).argmax(axis=1)
    seconds = time.perf_counter() - began
    if known.folder is not None:  # for `pipeline`
        saved_model.save_classifier(made.bare, made.tokenizer, known.folder / "model")
        (known.folder / "found.json").write_text(json.dumps(found.tolist()))
    mean = float(table.lengths.mean())
    paced = pace(marks, known.warmup, mean)
    return {
        **paced,
        "flops": paced["tokens_per_second"] * sum(flops(made.bare)),
        **scored(found, corpus.test.labels, seconds),
        "tokens_per_row": mean,
        "plan": list(made.plan.reasons),
    }


def scored(found: Any, labels: Any, seconds: float) -> Numbers:
    """How fast, and how right.

    Args:
        found: the class of each document that was scored. (documents,)
        labels: the true one of as many or more, in the same order.
    """
    assert labels is not None, "the test rows must have labels"
    right = np.asarray(found) == labels[: len(found)]
    return {
        "score": len(found) / seconds,
        "scored": len(found),
        "accuracy": float(right.mean()),
    }


def profiled(fit: Callable[[], object]) -> None:
    """Run under torch's profiler, and print the operators that cost most."""
    from torch.profiler import profile

    with profile() as seen:
        fit()
    print(
        seen.key_averages().table(
            sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=40
        )
    )


class Product(NamedTuple):
    """What the tokens are multiplied with, and which gradients the backward pass needs of it."""

    outputs: int
    inputs: int
    of_input: bool
    of_weight: bool


def products(net: Any) -> Iterator[Product]:
    """The products with the layers' weights, from below; query, key and value are one."""
    below = net.get_input_embeddings().weight.requires_grad  # whether something there is trained
    for block in freezing.encoder_layers(net.base_model):
        for parent in block.modules():
            linear = [part for part in parent.children() if isinstance(part, nn.Linear)]
            for inputs, group in itertools.groupby(linear, lambda part: part.in_features):
                parts = list(group)
                trained = any(part.weight.requires_grad for part in parts)
                yield Product(sum(part.out_features for part in parts), inputs, below, trained)
                below = below or trained


def flops(net: Any) -> tuple[int, int]:
    """Of a token: 2 × weights forward, and for each gradient that is needed again."""
    forward = backward = 0
    for each in products(net):
        forward += 2 * each.outputs * each.inputs
        backward += 2 * each.outputs * each.inputs * (each.of_input + each.of_weight)
    return forward, backward


def limit(known: argparse.Namespace, words: Sequence[str]) -> Numbers:
    """Rows a second if a step were nothing but the products with the encoder's weights.

    The products of each layer (forward, gradient of its input, gradient of its weights) are timed
    in the plan's precision with few tokens and with as many as the loop has; the best time counts.
    """
    choices, corpus, source = loaded(known, words)
    made = Ours(choices, source, corpus.labels)
    mean = float(made.encode(corpus.train.texts[:2000]).lengths.mean())
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    in_step = int(mean * choices.train.batch_size)
    sizes = (512, min(made.plan.micro_batch_tokens, in_step))
    forward = backward = 0.0  # seconds a token
    for each in products(made.bare):
        times = token_seconds(each.outputs, each.inputs, kind[made.plan.precision], sizes)
        forward += times[0]
        backward += each.of_input * times[1] + each.of_weight * times[2]
    return {
        "train": 1 / (mean * (forward + backward)),
        "flops": sum(flops(made.bare)) / (forward + backward),
        "score": 1 / (mean * forward),
        "tokens_per_row": mean,
    }


@lru_cache
def token_seconds(
    outputs: int, inputs: int, kind: torch.dtype, sizes: tuple[int, ...]
) -> tuple[float, float, float]:
    """Seconds a token of the forward product and the gradients of its input and its weight."""
    best = [float("inf")] * 3
    for many in sizes:
        for i, pair in enumerate(factors(outputs, inputs, many, kind)):
            best[i] = min(best[i], best_seconds(torch.mm, *pair) / many)
    return best[0], best[1], best[2]


def factors(
    outputs: int, inputs: int, tokens: int, kind: torch.dtype
) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    """What is multiplied forward, for the gradient of the input, and for that of the weight."""
    weight = torch.randn(outputs, inputs).to(kind)
    states, gradient = (torch.randn(tokens, size).to(kind) for size in (inputs, outputs))
    return (states, weight.t()), (gradient, weight), (gradient.t(), states)


def best_seconds(product: Callable[..., Any], one: Any, other: Any) -> float:
    times = []
    for _ in range(8):
        began = time.perf_counter()
        for _ in range(5):
            product(one, other)
        times.append((time.perf_counter() - began) / 5)
    return min(times)
