"""`chunks`: which rows go together, what is read ahead, and the line on progress."""

import json

import numpy as np
import pytest

from finetune.data.formats.source import DataSource
from finetune.inference import chunks
from finetune.inference.records import RequestedColumns
from finetune.runtime.errors import InputError

ROWS = 300


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(
        "".join(json.dumps({"text": "word " * (1 + i % 9)}) + "\n" for i in range(ROWS))
    )
    return DataSource("a", "jsonl", file)


def test_chunks_are_read_ahead_and_no_further(source):
    """What bounds memory: at most one chunk waits, and one is being made."""
    made = []

    def noted():
        for chunk in chunks.read_chunks([source], RequestedColumns(("text",)), 10):
            made.append(chunk.index)
            yield chunk

    for used, chunk in enumerate(chunks.read_ahead(noted()), start=1):
        assert len(chunk.rows) == 10
        assert len(made) <= used + 2
    assert made == list(range(ROWS // 10))

    def fails():
        yield 1
        raise InputError("no")

    with pytest.raises(InputError, match=r"no"):
        list(chunks.read_ahead(fails()))


def test_long_documents_make_small_chunks(source, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_CHARACTERS", 500)
    made = list(chunks.read_chunks([source, source], RequestedColumns(("text",)), 10**6))
    sizes = [sum(len(row.texts[0]) for row in chunk.rows) for chunk in made]
    assert len(made) > 20
    assert max(sizes) < 500 + 5 * 9
    firsts = np.cumsum([1, *[len(chunk.rows) for chunk in made]])
    assert [chunk.first for chunk in made] == firsts[:-1].tolist()
    assert made[-1].last == 2 * ROWS
    assert made[-1].share == 1.0


def test_the_same_rows_have_the_same_hash(source):
    columns = RequestedColumns(("text",))
    first, again = (next(chunks.read_chunks([source], columns, most)) for most in (20, 20))
    other = next(chunks.read_chunks([source], columns, 21))
    assert first.input == again.input != other.input


def test_progress_is_printed_now_and_then(monkeypatch, capsys):
    now = iter((0.0, 1.0, 20.0, 25.0))
    monkeypatch.setattr(chunks.time, "perf_counter", lambda: next(now))
    throughput = chunks.Throughput()
    made = [chunks.Chunk(i, 1 + 100 * i, [None] * 100, (i + 1) / 10) for i in range(4)]
    throughput.skip(made[0])
    for chunk in made[1:]:
        throughput.show(chunk)
    assert capsys.readouterr().out.splitlines() == [
        "       Resuming: skipping the shards of an earlier run",
        "          300 rows  10 rows/s   30 %  1:10 left",
    ]
