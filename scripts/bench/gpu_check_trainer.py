r"""transformers' Trainer on the rows of a file: prints ROWS_PER_SECOND and a number.

    python -c "import gpu_check_trainer; gpu_check_trainer.main()" ENCODER train.jsonl \
        '{"batch": 32, "steps": 120, "warm": 20, "more": {}}'

A process of its own, which `gpu_check.py` starts and compares this package's loop with.
"""

import json
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class Clock(TrainerCallback):
    """When some steps ended: a look waits for the GPU, so that no more than these are looked at."""

    def __init__(self, steps: Collection[int]) -> None:
        self.steps = steps
        self.ends: dict[int, float] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step not in self.steps:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends[state.global_step] = time.perf_counter()


def main() -> None:
    """Train for some steps, and time those after the first."""
    encoder, file, given = sys.argv[1:]
    asked = json.loads(given)
    rows = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
    labels = sorted({str(row["label"]) for row in rows})
    tokenizer = AutoTokenizer.from_pretrained(encoder, trust_remote_code=False)
    ids = tokenizer([row["text"] for row in rows], truncation=True, max_length=256)["input_ids"]
    data = [
        {"input_ids": one, "labels": labels.index(str(row["label"]))}
        for one, row in zip(ids, rows, strict=True)
    ]
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder, num_labels=len(labels), trust_remote_code=False
    )
    clock, more = Clock((asked["warm"], asked["steps"])), dict(asked["more"])
    if more:  # rows of like length together, under the name that this release has for it
        by_name = "train_sampling_strategy" in TrainingArguments.__dataclass_fields__
        more |= {"train_sampling_strategy": "group_by_length"} if by_name else {}
        more |= {} if by_name else {"group_by_length": True}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=asked["batch"],
            max_steps=asked["steps"], save_strategy="no", report_to="none", disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(), logging_steps=10**6, **more,
        )  # fmt: skip
        Trainer(
            model=model, args=arguments, train_dataset=data, callbacks=[clock],
            data_collator=DataCollatorWithPadding(tokenizer),
        ).train()  # fmt: skip
    steps, warm = asked["steps"], asked["warm"]
    seconds = clock.ends[steps] - clock.ends[warm]
    print("ROWS_PER_SECOND", (steps - warm) * asked["batch"] / seconds)
