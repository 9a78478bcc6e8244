"""Files as blocks of Ray Data: rows in order, in any encoding, and what is wrong with them."""

import csv
from pathlib import Path

import pyarrow as pa
import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")

from finetune.data.formats.source import DataSource
from finetune.inference import ray_reader
from finetune.inference.ray_reader import PROBLEM, FileReader, read_blocks


def write(path: Path, encoding: str, mark: str, texts: list[str]) -> str:
    with path.open("w", encoding=encoding, newline="") as out:
        csv.writer(out, delimiter=mark).writerows(
            [["text", "n"], *zip(texts, range(len(texts)), strict=True)]
        )
    return str(path)


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_files_are_read_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, mark: str
) -> None:
    monkeypatch.setattr(ray_reader, "BLOCK_ROWS", 2)
    texts = ["café; crème", "plain, text", "two\nlines"]
    paths = [write(tmp_path / f"{i}.csv", encoding, mark, texts) for i in range(2)]
    reader = FileReader(DataSource("files", "csv", encoding=encoding), ["text"])
    blocks = [*reader(pa.table({"path": paths}))]
    assert [block.num_rows for block in blocks] == [2, 1, 2, 1]
    rows = [row for block in blocks for row in block.to_pylist()]
    assert [row["text"] for row in rows] == texts * 2
    assert [row["n"] for row in rows] == ["0", "1", "2"] * 2
    assert {row[PROBLEM] for row in rows} == {None}


def test_a_row_that_cannot_be_read_stays_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,n\nfine,1\nshort\ncaf\xe9,3\n")
    (block,) = read_blocks(DataSource(str(path), "csv", path), ["text"])
    assert block.column("text").to_pylist() == ["fine", None, "caf\ufffd"]
    assert block.column(PROBLEM).to_pylist() == [
        None,
        f"{path}: row 2: expected 2 cells in each row, as in the header, got 1",
        f"{path}: row 3: 'text' is not UTF-8",
    ]


def test_json_lines_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('{"text": "体育", "n": 1}\n{"text": "房产", "more": [2]}\n'.encode("gb18030"))
    (block,) = read_blocks(DataSource(str(path), "jsonl", path, encoding="gb18030"), ["text"])
    assert block.to_pylist() == [
        {"text": "体育", "n": 1, "more": None, PROBLEM: None},
        {"text": "房产", "n": None, "more": [2], PROBLEM: None},
    ]
