"""The opponents of bench.py: transformers' Trainer, as it comes and tuned, and its pipeline."""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from bench_ours import Mark, flops, loaded, pace, scored
from bench_shown import Numbers

from finetune.config import schema
from finetune.modeling import freezing, pretrained
from finetune.tokenization import encoding

LEARN_RATE = {False: 5e-5, True: 2e-4}  # as it comes: Trainer's own default; tuned


def trainer(known: argparse.Namespace, words: Sequence[str], tuned: bool) -> Numbers:
    """Trainer on the recipe's rows, as it comes or tuned."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    choices, corpus, source = loaded(known, words)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    net = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=len(corpus.labels), dtype=torch.float32, trust_remote_code=False
    )
    limit = pretrained.max_positions(net.config)
    length = encoding.resolve_max_length(choices.data.max_length, limit)

    def encoded(texts: Sequence[str], labels: Any) -> Dataset:
        rows = tokenizer(list(texts), truncation=True, max_length=length)
        return Dataset.from_dict({**rows, "labels": labels})

    train = encoded(corpus.train.texts[:], corpus.train.labels)
    with tempfile.TemporaryDirectory() as folder:
        runner, marks = timed_trainer(known, choices, net, tokenizer, train, folder, tuned)
        runner.train()
        assert corpus.test.labels is not None, "the test rows must have labels"
        began = time.perf_counter()
        test = encoded(corpus.test.texts[: known.scored], corpus.test.labels[: known.scored])
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
    net: Any,
    tokenizer: Any,
    train: Any,
    folder: str,
    tuned: bool,
) -> tuple[Any, list[Mark]]:
    """A Trainer, and the marks that it sets at the end of each step."""
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    more: dict[str, Any] = {}
    if tuned:
        more = {"bf16": True, "train_sampling_strategy": "group_by_length"}
        more["use_cpu"] = not torch.cuda.is_available()
    optimizer: Any = None
    rate = LEARN_RATE[tuned]
    if known.optimizer is not None:
        rate, optimizer = same_optimizer(known, choices, net)
    pad, made, marks = DataCollatorWithPadding(tokenizer), [], [Mark(0, 0, 0)]

    def collate(rows: list[Any]) -> Any:
        batch = pad(rows)
        made.append((len(rows), sum(len(row["input_ids"]) for row in rows)))
        return batch

    class Clock(TrainerCallback):
        def on_step_end(self, *given: Any, **named: Any) -> None:
            rows, many = made[len(marks) - 1]  # batches are made ahead, in the steps' order
            last = marks[-1]
            marks.append(Mark(time.perf_counter(), last.rows + rows, last.tokens + many))

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
    runner = Trainer(
        model=net,
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
