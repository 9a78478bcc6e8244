"""Texts to compare two copies of a model on, where nobody gave any."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

MAX_TOKENS = 256  # in a text that is drawn
TEST = Path("predictions") / "test.jsonl"  # of a run's folder


def draw_texts(tokenizer: PreTrainedTokenizerBase, count: int) -> list[str]:
    """Texts of random tokens from the whole vocabulary, of every length up to `MAX_TOKENS`."""
    random = np.random.default_rng(0)
    longest = min(int(tokenizer.model_max_length), MAX_TOKENS)
    lengths = np.linspace(1, longest, count).round().astype(int)
    return [
        str(tokenizer.decode(random.integers(len(tokenizer), size=length).tolist()))
        for length in lengths
    ]


def read_test_texts(run: Path, count: int) -> list[str]:
    """The first test documents of a run, as far as its predictions keep them; [] without them."""
    if not (run / TEST).is_file():
        return []
    with (run / TEST).open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, count)]
    return [row["text"] for row in rows if isinstance(row.get("text"), str)]
