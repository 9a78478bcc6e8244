"""The side `prepare` of bench.py: from a file to splits and tokens, and what memory that takes."""

import argparse
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from bench_ours import loaded
from bench_shown import Numbers

from finetune.config import loader
from finetune.data import checks, sources
from finetune.data import prepare as prepare_module
from finetune.data.corpus import Corpus
from finetune.data.word_triples import spans
from finetune.modeling import pretrained
from finetune.runtime.atomic_files import write_json
from finetune.tokenization import document_format, encoding, token_cache

REPLACED = 0.3  # of a document's words, by any others
AT_ONCE = 10_000  # documents that are drawn together
FEW = 300  # rows that go all the way first, so that libraries are loaded and planned


def prepare(known: argparse.Namespace, words: Sequence[str], many: int) -> Numbers:
    """Rows a second and bytes a row of all that comes before training."""
    choices, corpus, source = loaded(known, words)
    tokenizer = pretrained.load_tokenizer(source, choices.model)
    config = pretrained.load_config(source, choices.model)
    length = encoding.resolve_max_length(choices.data.max_length, pretrained.max_positions(config))
    reads = document_format.DocumentFormat.of_recipe(choices.data, length)
    reads.set_up(tokenizer)

    def go(file: Path) -> Numbers:
        given = [f"data.source={file}", "data.text=text", "data.label=label", "data.train=auto"]
        carved = ["data.validation=carve", "data.test=carve"]
        own = loader.load(known.recipe, [*words, *given, *carved])
        began = time.perf_counter()
        prepared = prepare_module.prepare_corpus(
            sources.load_rows(own.data, known.folder), own.data
        )
        write_json(known.folder / "preflight.json", checks.describe_corpus(prepared))
        splits = prepared.splits()
        ready = time.perf_counter()
        tables = [
            token_cache.encode(reads, split.texts, split.seconds, tokenizer, known.folder)
            for split in splits
        ]
        ended = time.perf_counter()
        for split in splits:
            token_cache.encode(reads, split.texts, split.seconds, tokenizer, known.folder)
        return {
            "rows": sum(map(len, tables)),
            "prepare": ready - began,
            "tokenize": ended - ready,
            "found_again": time.perf_counter() - ended,
        }

    go(write(known.folder / "few.jsonl", corpus, FEW))
    file = write(known.folder / f"{many}.jsonl", corpus, many)
    del corpus
    before = own_memory()
    with highest() as peak:
        numbers = go(file)
    return numbers | {"growth": peak[0] - before, "file": file.stat().st_size}


def write(file: Path, corpus: Corpus, many: int) -> Path:
    """So many documents: those of train, drawn again and again, other words in the place of some.

    As in real data, few are alike, and what most share with others is short.
    """
    assert corpus.train.labels is not None, "data.prepare refuses train rows without labels"
    random = np.random.default_rng(0)
    texts = [text.split() for text in corpus.train.texts]
    words = np.array([word for text in texts for word in text], dtype=object)
    sizes = np.array([len(text) for text in texts])
    begins = np.cumsum(sizes) - sizes
    with file.open("w", encoding="utf-8") as out:
        for done in range(0, many, AT_ONCE):
            rows = random.integers(len(texts), size=min(AT_ONCE, many - done))
            at = spans(begins[rows], sizes[rows])
            others = random.integers(len(words), size=len(at))
            drawn = words[np.where(random.random(len(at)) < REPLACED, others, at)].tolist()
            ends = np.cumsum(sizes[rows]).tolist()
            for i, (row, start, end) in enumerate(zip(rows, [0, *ends], ends, strict=False)):
                text = " ".join([*drawn[start:end], str(done + i)])  # its own: repeats are dropped
                label = corpus.labels[corpus.train.labels[row]]
                out.write(json.dumps({"text": text, "label": label}) + "\n")
    return file


@contextmanager
def highest() -> Iterator[list[int]]:
    """The most memory of its own that this process had meanwhile, looked at 50 times a second."""
    found, over = [own_memory()], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            found[0] = max(found[0], own_memory())

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield found
    finally:
        over.set()
        looker.join()


def own_memory() -> int:
    """Bytes that cannot be had again from a file on disk, as pages of a mapped file can."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise SystemExit("--prepare reads /proc, which only Linux has")
