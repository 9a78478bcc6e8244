"""The opponents of bench.py: transformers' Trainer, as it comes and tuned, and its pipeline."""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from bench_ours import Mark, flops, loaded, pace, scored
from bench_shown import Numbers

from finetune.compute import hardware_plan
from finetune.config import schema
from finetune.modeling import freezing, pretrained
from finetune.tokenization import encoding

LEARN_RATE = {False: 5e-5, True: 2e-4}  # as it comes: Trainer's own default; tuned


class Theirs:
    """The model, the tokenizer and the rows that Trainer gets of a recipe."""

    def __init__(self, choices: schema.Recipe, source: str, labels: Sequence[str]) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        torch.set_num_threads(choices.train.threads or len(os.sched_getaffinity(0)))
        self.tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        self.net = AutoModelForSequenceClassification.from_pretrained(
            source, num_labels=len(labels), dtype=torch.float32, trust_remote_code=False
        )
        limit = pretrained.max_positions(self.net.config)
        self.length = encoding.resolve_max_length(choices.data.max_length, limit)

    def encode(self, texts: Sequence[str], labels: Any) -> Any:
        from datasets import Dataset

        rows = self.tokenizer(list(texts), truncation=True, max_length=self.length)
        return Dataset.from_dict({**rows, "labels": labels})


def choose_attention(theirs: Theirs, train: Any, rows: int) -> None:
    """Give the model the faster of its attentions, by one step's gradient with each."""
    from transformers import DataCollatorWithPadding

    batch = DataCollatorWithPadding(theirs.tokenizer)([train[i] for i in range(rows)])
    took = {}
    for name in ("eager", "sdpa"):
        try:
            theirs.net.set_attn_implementation(name)
        except ValueError:  # the class has no such attention
            continue
        theirs.net.train()
        began = time.process_time()
        theirs.net(**batch).loss.backward()
        theirs.net.zero_grad()
        took[name] = time.process_time() - began
    theirs.net.set_attn_implementation(min(took, key=took.__getitem__))


def trainer(known: argparse.Namespace, words: Sequence[str], tuned: bool) -> Numbers:
    """Trainer on the recipe's rows, as it comes or tuned."""
    choices, corpus, source = loaded(known, words)
    theirs = Theirs(choices, source, corpus.labels)
    net = theirs.net
    train = theirs.encode(corpus.train.texts[:], corpus.train.labels)
    with tempfile.TemporaryDirectory() as folder:
        runner, marks = timed_trainer(known, choices, theirs, train, folder, tuned)
        runner.train()
        assert corpus.test.labels is not None, "the test rows must have labels"
        began = time.perf_counter()
        test = theirs.encode(corpus.test.texts[: known.scored], corpus.test.labels[: known.scored])
        predicted = runner.predict(test)  # in an order of its own where it groups by length
        found = np.asarray(predicted.predictions).argmax(axis=1)
        seconds = time.perf_counter() - began
    mean = float(np.mean([len(ids) for ids in train["input_ids"]]))
    paced = pace(marks, known.warmup, mean)
    return {
        **paced,
        "flops": paced["tokens_per_second"] * sum(flops(net)),
        **scored(found, predicted.label_ids, seconds),
        "tokens_per_row": mean,
    }


def timed_trainer(
    known: argparse.Namespace,
    choices: schema.Recipe,
    theirs: Theirs,
    train: Any,
    folder: str,
    tuned: bool,
    after: Callable[[Mark], None] = lambda mark: None,
) -> tuple[Any, list[Mark]]:
    """A Trainer, and the marks that it sets at the end of each step; `after` is called then."""
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    class LengthsMixed(Trainer):
        """Has batches of like length in random order, not the longest first: few tell of all."""

        def _get_train_sampler(self, *given: Any) -> Any:
            sampler: Any = super()._get_train_sampler(*given)
            rows, size = list(sampler), self.args.train_batch_size
            batches = [rows[i : i + size] for i in range(0, len(rows), size)]
            random.Random(0).shuffle(batches)
            return [row for batch in batches for row in batch]

    more: dict[str, Any] = {}
    if tuned:
        precision = hardware_plan.plan_hardware(choices.model, choices.train).precision
        more = {"bf16": precision == "bf16", "train_sampling_strategy": "group_by_length"}
        more["use_cpu"] = not torch.cuda.is_available()
    optimizer: Any = None
    rate = LEARN_RATE[tuned]
    if known.optimizer is not None:
        rate, optimizer = same_optimizer(known, choices, theirs.net)
    pad, made, marks = DataCollatorWithPadding(theirs.tokenizer), [], [Mark(0, 0, 0)]

    def collate(rows: list[Any]) -> Any:
        batch = pad(rows)
        made.append((len(rows), sum(len(row["input_ids"]) for row in rows)))
        return batch

    class Clock(TrainerCallback):
        def on_step_end(self, *given: Any, **named: Any) -> None:
            rows, many = made[len(marks) - 1]  # batches are made ahead, in the steps' order
            last = marks[-1]
            marks.append(Mark(time.perf_counter(), last.rows + rows, last.tokens + many))
            after(marks[-1])

        def on_train_begin(self, *given: Any, **named: Any) -> None:
            marks[0] = Mark(time.perf_counter(), 0, 0)

    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=choices.train.batch_size,
        per_device_eval_batch_size=choices.train.batch_size,
        max_steps=known.warmup + known.steps,
        learning_rate=rate,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **more,
    )
    runner = (LengthsMixed if tuned else Trainer)(
        model=theirs.net,
        args=arguments,
        train_dataset=train,
        data_collator=collate,
        callbacks=[Clock()],
        optimizer_cls_and_kwargs=optimizer,
    )
    return runner, marks


def same_optimizer(
    known: argparse.Namespace, choices: schema.Recipe, net: Any
) -> tuple[float, Any]:
    """The rate and optimizer that `ours` has; freezes what it freezes."""
    freezing.freeze(net, choices.model.freeze)
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[known.optimizer]
    momentum = {"momentum": choices.optim.momentum} if known.optimizer == "sgd" else {}
    assert isinstance(choices.optim.lr, float), "bench.py names a rate"
    return choices.optim.lr, (kind, {"lr": choices.optim.lr, **momentum})


def pipeline(known: argparse.Namespace, words: Sequence[str]) -> Numbers:
    """The model that `ours` saved in this round, and the same texts."""
    from transformers import pipeline as make

    _, corpus, _ = loaded(known, words)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    classify: Any = make(
        "text-classification", model=str(known.folder / "model"), dtype=torch.float32
    )

    def found_in(texts: Sequence[str]) -> list[int]:
        named = classify(list(texts), batch_size=32, truncation=True)
        return [corpus.labels.index(one["label"]) for one in named]

    texts = corpus.test.texts[: known.scored]
    found_in(texts[: 32 * known.warmup])
    began = time.perf_counter()
    found = found_in(texts)
    seconds = time.perf_counter() - began
    same = np.array(found) == json.loads((known.folder / "found.json").read_text())
    return {**scored(found, corpus.test.labels, seconds), "same": float(same.mean())}
