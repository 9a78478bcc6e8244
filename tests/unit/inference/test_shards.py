"""`shards.ShardStore`: what was written is read back, and what is damaged is not."""

import json

import pytest

from finetune.inference.shards import ShardStore
from finetune.runtime.errors import InputError

FOOTER = {"errors": 1, "abstained": 0, "input": "hash", "counts": {"a": 1}, "kinds": {"id": []}}
LINES = ['{"id": 1}', '{"id": 2, "error": "é"}']
JOB = {"model": "m", "columns": ["text"]}


@pytest.fixture
def store(tmp_path):
    store = ShardStore(tmp_path / "out.csv")
    assert store.begin(JOB, resume=False) is False
    return store


def test_a_shard_is_read_as_it_was_written(store):
    store.write(0, LINES, FOOTER)
    store.write(1, [], FOOTER)
    lines, footer = store.read(0)
    assert [line.decode().rstrip("\n") for line in lines] == LINES
    assert (footer.rows, footer.errors, footer.counts) == (2, 1, {"a": 1})
    assert [json.loads(line)["id"] for line in store.lines(2)] == [1, 2]
    assert store.footer(2) is None
    assert not list(store.folder.glob(".*.new"))


@pytest.mark.parametrize("damage", [lambda b: b[:-30], lambda b: b[1:], lambda b: b""])
def test_a_damaged_shard_is_refused(store, damage):
    store.write(0, LINES, FOOTER)
    file = store.folder / "00000000.jsonl"
    file.write_bytes(damage(file.read_bytes()))
    assert store.footer(0) is None
    with pytest.raises(InputError, match=r"the shard is damaged; delete it and run again with"):
        store.read(0)


def test_an_unfinished_job_is_continued_only_by_the_same_job(store, tmp_path):
    store.write(0, LINES, FOOTER)
    store.release()
    again = ShardStore(tmp_path / "out.csv")
    with pytest.raises(InputError, match=r"an unfinished job exists in .*; continue it with --res"):
        again.begin(JOB, resume=False)
    with pytest.raises(InputError, match=r'--resume: model: the unfinished job of .* has "m", th'):
        again.begin(JOB | {"model": "other"}, resume=True)
    (again.folder / ".00000001.jsonl.new").write_text("half")
    assert again.begin(JOB, resume=True) is True
    assert [path.name for path in sorted(again.folder.iterdir())] == ["00000000.jsonl", "job.json"]


def test_one_process_at_a_time(store, tmp_path):
    with pytest.raises(InputError, match=r"another process is writing this file"):
        ShardStore(tmp_path / "out.csv").replace()
    store.drop_if_empty()
    assert not store.folder.exists()
    store.release()


def test_replacing_drops_the_unfinished_job(store, tmp_path):
    store.write(0, LINES, FOOTER)
    store.drop_if_empty()  # it is not
    assert store.footer(0) is not None
    store.release()
    ShardStore(tmp_path / "out.csv").replace()
    assert not store.folder.exists()
