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
        is_pair: whether a document has two texts.
    """
    documents = read_test_texts(run, count, is_pair)
    if not documents:
        drawn = draw_texts(tokenizer, min(count, DRAWN))
        documents = [(text,) * (1 + is_pair) for text in drawn]
    return [Record(texts, ()) for texts in documents]


def draw_texts(tokenizer: PreTrainedTokenizerBase, count: int) -> list[str]:
    """Texts of random tokens from the whole vocabulary, of every length up to `MAX_TOKENS`."""
    random = np.random.default_rng(0)
    longest = min(int(tokenizer.model_max_length), MAX_TOKENS)
    lengths = np.linspace(1, longest, count).round().astype(int)
    return [
        str(tokenizer.decode(random.integers(len(tokenizer), size=length).tolist()))
        for length in lengths
    ]


def read_test_texts(run: Path, count: int, is_pair: bool = False) -> list[tuple[str, ...]]:
    """The first test documents of a run, as far as its predictions keep them; [] without them.

    Args:
        is_pair: whether a document has two texts, which earlier versions did not keep.
    """
    if not (run / TEST).is_file():
        return []
    with (run / TEST).open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, count)]
    found = [row.get("texts") if is_pair else [row.get("text")] for row in rows]
    return [tuple(texts) for texts in found if texts and all(isinstance(t, str) for t in texts)]
