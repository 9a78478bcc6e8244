"""Our loop against HF Trainer, and against what the machine's matrix products would allow.

    python scripts/bench.py recipes/ag_news.yaml data.source=FOLDER --steps 40 --rounds 3
    python scripts/bench.py recipes/bbc_news.yaml data.max_length=512 --steps 10

Same encoder, documents, batch size and steps; each side runs in a process of its own, by turns, so
that what else the machine does falls on all alike. The sides:

    ours     this package, with its defaults for this machine
    trainer  transformers.Trainer as it comes
    tuned    the same with what an informed user sets: bf16, rows grouped by length, AdamW at 2e-4
    limit    the encoder's matrix products alone, in our precision: no step can be faster

Prints a table and, with `--json FILE`, writes every number. `--profile` shows where our time goes.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SIDES = ("ours", "trainer", "tuned", "limit")
LEARN_RATE = {"trainer": 5e-5, "tuned": 2e-4}  # the first is Trainer's own default
Numbers = dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--steps", type=int, default=40, help="of training, in each run")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs")
    parser.add_argument("--scored", type=int, default=500, help="test documents to score")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--json", type=Path, help="where to write every number")
    parser.add_argument("--profile", action="store_true", help="the top costs of our steps")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    known, words = parser.parse_known_args()
    if known.side or known.profile:
        return alone(known.side or "ours", known, words)
    found: dict[str, list[Numbers]] = {side: [] for side in known.sides}
    for turn in range(known.rounds):
        for side in known.sides:
            found[side].append(in_a_process(side))
            print(f"round {turn + 1}: {side}: {found[side][-1]}", file=sys.stderr, flush=True)
    print(as_table(found))
    if known.json is not None:
        known.json.write_text(json.dumps({"command": sys.argv[1:], "runs": found}, indent=2) + "\n")
    return 0


def alone(side: str, known: argparse.Namespace, words: Sequence[str]) -> int:
    from finetune.problems import InputError

    try:
        print(json.dumps(measure(side, known, words)))
    except InputError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return 2
    return 0


def in_a_process(side: str) -> Numbers:
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--side", side],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{side} ended with exit code {done.returncode}")
    numbers: Numbers = json.loads(done.stdout.splitlines()[-1])
    return numbers


def as_table(found: dict[str, list[Numbers]]) -> str:
    from finetune import terminal

    rows = [["", "rows/s", "ours is", "scoring, rows/s", "ours is", "accuracy", "peak memory"]]
    for side, runs in found.items():
        row = [side]
        for key in ("train", "score"):
            if key not in runs[0]:
                row += ["", ""]
                continue
            row.append(f"{statistics.median(run[key] for run in runs):.1f}")
            both = zip(found.get("ours", []), runs, strict=False)
            ratios = [ours[key] / run[key] for ours, run in both]
            row.append(f"{statistics.median(ratios):.2f} ×" if ratios and side != "ours" else "")
        row.append(f"{runs[0]['accuracy']:.3f}" if "accuracy" in runs[0] else "")
        row.append(f"{max(run['memory'] for run in runs):,.0f} MB" if "memory" in runs[0] else "")
        rows.append(row)
    return terminal.table(rows)


def measure(side: str, known: argparse.Namespace, words: Sequence[str]) -> Numbers:
    """One side, in this process."""
    began = time.perf_counter()
    if side == "limit":
        return limit(known, words)
    make: Callable[..., Numbers] = ours if side == "ours" else trainer
    numbers = make(side, known, words, began)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return numbers | {"memory": kilobytes / 1024, "seconds": time.perf_counter() - began}


def loaded(known: argparse.Namespace, words: Sequence[str]) -> Any:
    """The recipe and its documents, of test the first few only."""
    from finetune import data, recipe_file, sources, terminal

    terminal.quiet_libraries()
    choices = recipe_file.load(known.recipe, [*words, f"train.max_steps={known.steps}"])
    corpus = data.prepare(sources.load_rows(choices.data), choices.data)
    return choices, corpus, sources.model_source(choices.model.source)


def ours(side: str, known: argparse.Namespace, words: Sequence[str], began: float) -> Numbers:
    from accelerate import Accelerator

    from finetune import hardware, loop, model, optim, packing, pretrained, scoring, tokens
    from finetune.record import Record

    choices, corpus, source = loaded(known, words)
    plan = hardware.plan(choices.model, choices.train)
    accelerator = Accelerator(mixed_precision="no" if plan.precision == "fp32" else plan.precision)
    hardware.set_up(plan)
    tokenizer = pretrained.load_tokenizer(source, choices.model)
    config = pretrained.load_config(source, choices.model)
    length = tokens.max_length(choices.data.max_length, pretrained.max_positions(config))
    train = tokens.encode(corpus.train.texts, tokenizer, length)
    test = tokens.encode(corpus.test.texts[: known.scored], tokenizer, length)
    plan = packing.plan(plan, choices, config)
    classifier = model.build(source, choices.model, corpus.labels, plan.attention, seed=0)
    if plan.packed:
        packing.attach(classifier)
        train, test = packing.PackedTable.of(train), packing.PackedTable.of(test)
    prepared, optimizer = accelerator.prepare(classifier, optim.build(classifier, choices.optim))
    record = Record(accelerator, choices.optim.max_grad_norm)

    def fit() -> None:
        loop.fit(
            prepared, optimizer, train, corpus.train.labels, choices, plan.micro_batch_tokens,
            accelerator, record,
            log=lambda step, line: None,
            validate=lambda step: None,
            pause=lambda step, scored: False,
        )  # fmt: skip

    ready = time.perf_counter()
    if known.profile:
        profiled(fit)
    else:
        fit()
    trained = time.perf_counter()
    logits = scoring.logits_of(prepared, test, accelerator, plan.micro_batch_tokens)
    scored = time.perf_counter()
    right = logits.argmax(axis=1) == corpus.test.labels[: known.scored]
    return {
        "train": record.rows / (trained - ready),
        "score": len(logits) / (scored - trained),
        "accuracy": float(right.mean()),
        "ready": ready - began,
        "tokens": record.tokens / record.rows,
    }


def profiled(fit: Callable[[], None]) -> None:
    """Run under torch's profiler, and print the operators that cost most."""
    from torch.profiler import profile

    with profile() as seen:
        fit()
    print(
        seen.key_averages().table(
            sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=40
        )
    )


def trainer(side: str, known: argparse.Namespace, words: Sequence[str], began: float) -> Numbers:
    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    choices, corpus, source = loaded(known, words)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tokenizer = AutoTokenizer.from_pretrained(source)
    net = AutoModelForSequenceClassification.from_pretrained(
        source, num_labels=len(corpus.labels), dtype=torch.float32
    )
    length = choices.data.max_length or 512

    def encoded(texts: Sequence[str], labels: Any) -> Dataset:
        rows = tokenizer(list(texts), truncation=True, max_length=length)
        return Dataset.from_dict({**rows, "labels": labels})

    train = encoded(corpus.train.texts, corpus.train.labels)
    test = encoded(corpus.test.texts[: known.scored], corpus.test.labels[: known.scored])
    tuned: dict[str, Any] = {"bf16": True, "train_sampling_strategy": "group_by_length"}
    tuned["use_cpu"] = not torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        runner = Trainer(
            model=net,
            args=TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=choices.train.batch_size,
                per_device_eval_batch_size=choices.train.batch_size,
                max_steps=known.steps,
                learning_rate=LEARN_RATE[side],
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                **(tuned if side == "tuned" else {}),
            ),
            train_dataset=train,
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        ready = time.perf_counter()
        runner.train()
        trained = time.perf_counter()
        logits = runner.predict(test).predictions
        scored = time.perf_counter()
    right = np.asarray(logits).argmax(axis=1) == corpus.test.labels[: known.scored]
    return {
        "train": known.steps * choices.train.batch_size / (trained - ready),
        "score": len(right) / (scored - trained),
        "accuracy": float(right.mean()),
        "ready": ready - began,
    }


def limit(known: argparse.Namespace, words: Sequence[str]) -> Numbers:
    """Rows a second if a step were nothing but the products with the encoder's weights.

    Each linear layer's three products (forward, gradient of its input, gradient of its weights) are
    timed at the plan's micro-batch, in the plan's precision, and the best time of several counts.
    """
    import torch

    from finetune import hardware, model, pretrained, tokens

    choices, corpus, source = loaded(known, words)
    plan = hardware.plan(choices.model, choices.train)
    hardware.set_up(plan)
    tokenizer = pretrained.load_tokenizer(source, choices.model)
    config = pretrained.load_config(source, choices.model)
    length = tokens.max_length(choices.data.max_length, pretrained.max_positions(config))
    mean = float(tokens.encode(corpus.train.texts[:2000], tokenizer, length).lengths.mean())
    classifier = model.build(source, choices.model, corpus.labels, plan.attention, seed=0)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[plan.precision]
    many = plan.micro_batch_tokens
    forward = backward = 0.0  # seconds a token
    for layer in classifier.base_model.modules():
        if not isinstance(layer, torch.nn.Linear) or not layer.weight.requires_grad:
            continue
        weight = layer.weight.detach().to(kind)
        states, gradient = (torch.randn(many, size).to(kind) for size in weight.shape[::-1])
        forward += best_seconds(torch.mm, states, weight.t()) / many
        backward += best_seconds(torch.mm, gradient, weight) / many
        backward += best_seconds(torch.mm, gradient.t(), states) / many
    return {"train": 1 / (mean * (forward + backward)), "score": 1 / (mean * forward)}


def best_seconds(product: Callable[..., Any], one: Any, other: Any) -> float:
    times = []
    for _ in range(8):
        began = time.perf_counter()
        for _ in range(5):
            product(one, other)
        times.append((time.perf_counter() - began) / 5)
    return min(times)


if __name__ == "__main__":
    sys.exit(main())
