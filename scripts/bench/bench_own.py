"""The benches of bench.py that have no opponent: kept states, growing rows, bounded memory."""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from bench_ours import Ours, loaded, pace
from bench_shown import Numbers, peak_memory

from finetune.compute import frozen_cache, micro_batches
from finetune.data import prepare, sources
from finetune.tokenization.token_table import TokenTable
from finetune.training import sampling

SHORT, LONG = 64, 512  # tokens of the documents whose memory is compared
PEAK = 3  # steps after which memory grows no more: gradients and momentum stand since the first


def frozen(known: argparse.Namespace, words: Sequence[str], kept: bool) -> Numbers:
    """A whole epoch after the warm-up, with the encoder frozen."""
    cache = (
        [f"cache.dir={known.folder}", "cache.frozen_states=auto"]
        if kept
        else ["cache.frozen_states=off"]
    )
    choices, corpus, source = loaded(known, [*words, "model.freeze=encoder", *cache])
    made = Ours(choices, source, corpus.labels, passes=2)
    tables = {"train": made.encode(corpus.train.texts)}
    numbers: Numbers = {}
    mean = float(tables["train"].lengths.mean())
    if kept:
        if made.prefix is None:
            raise SystemExit(
                "these frozen states cannot be kept: dropout is on, or see prefix.attach"
            )
        before = time.perf_counter()
        tables = frozen_cache.fill_cache(
            made.prefix, made.model, tables, choices, made.plan, made.accelerator
        )  # as run.py does
        numbers["fill"] = time.perf_counter() - before
    steps = sampling.steps_per_epoch(len(corpus.train), choices.train.batch_size)
    marks = made.fit(made.pack(tables["train"]), corpus.train.labels, known.warmup + steps)
    paced = pace(marks, known.warmup, mean)
    return numbers | paced | {"epoch": paced["seconds"], "tokens_per_row": mean}


def rows(known: argparse.Namespace, words: Sequence[str], many: int) -> Numbers:
    """Seconds a row of each part of a run with so many documents, drawn from the recipe's own.

    Each part runs once on a few rows before, as it would cost more the first time.
    """
    few, file = known.folder / "few.jsonl", known.folder / f"{many}.jsonl"
    choices, corpus, source = loaded(known, words)
    assert corpus.train.labels is not None, "data.prepare refuses train rows without labels"
    draw = np.random.default_rng(0)
    for target, size in ((few, 300), (file, many)):
        with target.open("w") as out:
            for i, row in enumerate(draw.integers(len(corpus.train), size=size)):
                text = f"{i} {corpus.train.texts[row]}"  # else it would repeat another, and go
                label = corpus.labels[corpus.train.labels[row]]
                out.write(json.dumps({choices.data.text: text, choices.data.label: label}) + "\n")
    names = corpus.labels
    del corpus
    made = Ours(choices, source, names)
    prepared(known, words, few, made)
    numbers, table, labels = prepared(known, words, file, made)
    numbers["plan"] = timed(lambda: planned(made, table)) / len(table)
    marks = made.fit(made.pack(table), labels, known.warmup + known.steps)
    paced = pace(marks, known.warmup, float(table.lengths.mean()))
    numbers["train"] = 1 / paced["train"]
    whole = sum(numbers[part] for part in ("prepare", "tokenize", "plan", "train"))
    return numbers | {"row": whole, "rows": many, "train_rows": len(table)}


def prepared(
    known: argparse.Namespace, words: Sequence[str], file: Path, made: Ours
) -> tuple[Numbers, TokenTable, np.ndarray]:
    """Documents in a file → splits → tokens, with the seconds a row of both."""
    from finetune.config import loader

    given = [f"data.source={file}", "data.train=auto", "data.validation=carve", "data.test=carve"]
    choices = loader.load(known.recipe, [*words, *given])
    began = time.perf_counter()
    corpus = prepare.prepare_corpus(sources.load_rows(choices.data), choices.data)
    ready = time.perf_counter()
    tables = [made.encode(split.texts) for split in corpus.splits()]
    ended, many = time.perf_counter(), sum(len(table) for table in tables)
    numbers = {"prepare": (ready - began) / many, "tokenize": (ended - ready) / many}
    assert corpus.train.labels is not None, "data.prepare refuses train rows without labels"
    return numbers, tables[0], corpus.train.labels


def planned(made: Ours, table: TokenTable) -> None:
    """Every micro-batch of an epoch, as the loop plans it."""
    size = made.choices.train.batch_size
    order = sampling.epoch_order(len(table), seed=0, epoch=0)
    for step in range(sampling.steps_per_epoch(len(table), size)):
        taken = sampling.step_rows(order, size, step)
        micro_batches.process_micro_batches(table, taken, 1, 0, made.plan.micro_batch_tokens, False)


def timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def memory(known: argparse.Namespace, words: Sequence[str], kind: str) -> Numbers:
    """Peak memory of training on documents of one length, the same tokens in each step.

    short: 64 tokens each; long: 512; mixed: one long one in each batch's tokens of short ones.
    """
    choices, corpus, source = loaded(known, words)
    made = Ours(choices, source, corpus.labels)
    long = min(LONG, made.length)
    short = min(SHORT, long // 8)
    at_once = 4 * max(made.plan.micro_batch_tokens, long)  # tokens of a step: four times the budget
    lengths = {
        "short": [short] * (at_once // short),
        "mixed": [long] + [short] * ((at_once - long) // short),
        "long": [long] * (at_once // long),
    }[kind]
    train = choices.train.model_copy(update={"batch_size": len(lengths)})
    made.choices = choices.model_copy(update={"train": train})
    all_lengths = np.array(lengths * 2)
    ids = made.encode(corpus.train.texts[:200]).ids
    table = TokenTable(
        ids=np.resize(ids, int(all_lengths.sum())),
        starts=np.concatenate([[0], np.cumsum(all_lengths)]),
        full=all_lengths,
        pad_id=0,
    )
    before = peak_memory()
    labels = np.arange(len(table)) % len(corpus.labels)
    made.fit(made.pack(table), labels, PEAK)
    return {
        "training_memory": peak_memory() - before,
        "longest": int(all_lengths.max()),
        "step_tokens": sum(lengths),
        "budget": made.plan.micro_batch_tokens,
    }
