"""INPUT → the sources to read."""

import io
import sys
from pathlib import Path

import pytest

from finetune.inference.inputs import InputSpec, check_inputs, find_inputs
from finetune.inference.records import RequestedColumns
from finetune.runtime.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a-10.csv", "a-9.jsonl.gz", "b.txt", "notes.md", ".hidden.csv", "_SUCCESS"):
        (tmp_path / name).write_text("text\nx\n")
    return tmp_path


def kinds(where: InputSpec) -> list[tuple[str, str]]:
    return [(Path(source.name).name, source.kind) for source in find_inputs(where)]


def test_a_folder_a_glob_and_a_file(folder: Path) -> None:
    assert kinds(InputSpec(str(folder))) == [
        ("a-9.jsonl.gz", "jsonl"),
        ("a-10.csv", "csv"),
        ("b.txt", "document"),
    ]
    assert kinds(InputSpec(f"{folder}/a-*.csv")) == [("a-10.csv", "csv")]
    assert kinds(InputSpec(str(folder / "b.txt"))) == [("b.txt", "txt")]
    assert kinds(InputSpec(str(folder / "b.txt"), txt="documents")) == [("b.txt", "document")]
    assert kinds(InputSpec(str(folder), split="b", txt="lines")) == [("b.txt", "txt")]
    assert kinds(InputSpec(str(folder / "notes.md"), format="ndjson")) == [("notes.md", "jsonl")]


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b'{"text"', "jsonl"), (b' [\n {"text"', "json"), (b"[sic] a text", "txt"), (b"text", "txt")],
)
def test_a_pipe(monkeypatch: pytest.MonkeyPatch, content: bytes, kind: str) -> None:
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)), encoding="utf-8")
    )
    assert [source.kind for source in find_inputs(InputSpec("-"))] == [kind]
    assert [source.kind for source in find_inputs(InputSpec("-", format="tsv"))] == ["tsv"]
    with pytest.raises(InputError, match="a parquet file is read from its end"):
        find_inputs(InputSpec("-", format="parquet"))


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{}/none*.csv", "no file is called so"),
        (
            "{}/notes.md",
            "found notes.md; save the text of each document as a .txt file; --fo",
        ),
        ("{}/a.csv", "no such file or folder"),
    ],
)
def test_nothing_to_read(folder: Path, source: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        find_inputs(InputSpec(source.format(folder)))


def test_columns_are_looked_at_before_anything_is_read(folder: Path) -> None:
    (folder / "c.json").write_text('{"data": [{"txt": "a"}]}')
    found = [source for source in find_inputs(InputSpec(str(folder))) if "gz" not in source.name]
    with pytest.raises(InputError) as error:
        check_inputs(found, RequestedColumns(("text",), keep=("n",)))
    assert [problem.removeprefix(f"{folder}/") for problem in error.value.problems] == [
        "a-10.csv: no column 'n' (--keep) (columns: 'text')",
        "b.txt: a .txt file has no columns (--keep)",
        "c.json: no column 'text' (--text); did you mean 'txt'? (columns: 'txt')",
        "c.json: no column 'n' (--keep) (columns: 'txt')",
    ]
