"""A frame of documents, and a run that was trained on it from Python, made once."""

import json
from pathlib import Path

import pandas as pd
import pytest

import finetune

# A run of 12 steps that writes no checkpoint.
SHORT = {
    "train": {"epochs": 1, "batch_size": 8, "threads": 1, "precision": "fp32"},
    "optim": {"lr": 0.1},
    "checkpoint": {"every": "never"},
    "score": {"every": "epoch"},
}


def read_split(split):
    lines = Path(f"data/{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return pd.DataFrame([json.loads(line) for line in lines])


@pytest.fixture
def frames(here):
    """Of each split of the documents."""
    return {split: read_split(split) for split in ("train", "validation", "test")}


@pytest.fixture
def run(here, shared):
    """A run on a data frame, in a folder of the session's."""

    def train(folder):
        splits = {name: read_split(name) for name in ("train", "validation", "test")}
        trained = finetune.train(data=splits, model="encoder", run={"dir": folder}, **SHORT)
        (folder / "name.txt").write_text(trained.recipe.data.source)

    return finetune.Run(shared("documents/frame", train))
