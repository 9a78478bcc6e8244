"""Texts to compare two copies of a model on, where nobody gave any."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetune.inference.records import Record

DRAWN = 128  # texts, where there are no documents
MAX_TOKENS = 256  # in a text that is drawn
TEST = Path("predictions") / "test.jsonl"  # of a run's folder


def sample_records(
    run: Path, tokenizer: PreTrainedTokenizerBase, is_pair: bool, count: int
) -> list[Record]:
    """Documents of a run's test split where it keeps them, else drawn ones.

    Args:
        run: a folder, be it that of a run or not.
        is_pair: whether a document has two texts; predictions keep one of them.
    """
    texts = [] if is_pair else read_test_texts(run, count)
    texts = texts or draw_texts(tokenizer, min(count, DRAWN))
    return [Record((text,) * (1 + is_pair), ()) for text in texts]


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
