"""Whatever stands in a file, training and prediction read the same, and what was written."""

import csv
import gzip
import io
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from finetune.data.columns import ColumnSpec
from finetune.data.formats import (
    arrow,
    delimited,
    frame,
    json_scanner,
    json_text,
    plain_text,
    quoting,
)
from finetune.data.formats.file_row import FileRow, RowProblem
from finetune.data.formats.quoting import uses_quotes
from finetune.data.formats.registry import FORMATS, open_rows, peek_columns
from finetune.data.formats.source import DataSource, ReadProgress, rejoin
from finetune.data.read_rows import read_documents, read_rows
from finetune.data.rows import Rows
from finetune.data.text_store import Store, replace_surrogates
from finetune.inference.records import Record, RequestedColumns, read_records
from finetune.runtime.errors import InputError

SPEC = ColumnSpec(("text",), "label")
# A file with this row can be read with quotes alone.
QUOTED = 'He said "hi",\tand left\n'
ODD = "ab \u2028\u2029\x85\x1c\x1d\x0b\x0c\0\r\n\t\"'\\,;{}[]é😀\ufffd\ufeff\udce9\udcff"


def read_all(source: DataSource) -> list[FileRow]:
    with open_rows(source, ("text", "label")) as reader:
        return list(reader.rows())


def read_training(source: DataSource) -> Rows:
    return read_rows(source, source.name, SPEC)


def read_prediction(source: DataSource) -> list[Record]:
    return list(read_records(source, RequestedColumns(("text",), keep=("label",)), ReadProgress()))


def to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def serialize(kind: str, texts: Sequence[str], labels: Sequence[str]) -> bytes:
    """The bytes of a file; a lone surrogate in a text is a byte that is not UTF-8."""
    records = [
        {"n": i, "text": text, "label": label}
        for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    match kind:
        case "csv" | "tsv":
            out = io.StringIO(newline="")
            writer = csv.DictWriter(
                out, ["n", "text", "label"], delimiter="\t" if kind == "tsv" else ","
            )
            writer.writeheader()
            writer.writerows(records)
            return to_bytes(out.getvalue())
        case "jsonl":
            return to_bytes("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
        case "json":
            return to_bytes(json.dumps(records, ensure_ascii=False))
        case "wrapped":
            tree = {"version": [1, 2], "data": records, "made": {"by": "hand"}}
            return to_bytes(json.dumps(tree, ensure_ascii=False, indent=1))
        case "parquet":
            sink = pa.BufferOutputStream()
            columns = {
                "label": pa.array(labels),
                "text": pa.array([to_bytes(text) for text in texts], pa.binary()),
            }
            pq.write_table(pa.table(columns), sink)
            return bytes(sink.getvalue().to_pybytes())
    raise ValueError(kind)


def reads_as_rows(text: str) -> bool:
    """Whether each line of a quoted cell between two others would be a row by itself."""
    raw = '0\t"' + text.replace('"', '""') + '"\tl'
    lines = [line for line in re.split("[\r\n]+", raw) if line.strip()]
    return len(lines) > 1 and all(line.count("\t") == 2 for line in lines)


def write_source(folder: Path, kind: str, content: bytes, gz: bool = False) -> DataSource:
    kind = {"wrapped": "json"}.get(kind, kind)
    path = folder / f"a.{kind}{'.gz' * gz}"
    path.write_bytes(gzip.compress(content, mtime=0) if gz else content)
    return DataSource(path.name, kind, path)


@pytest.mark.parametrize("gz", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "wrapped", "jsonl", "parquet"])
@given(
    texts=st.lists(st.text(st.sampled_from(ODD)), min_size=1, max_size=6),
    bom=st.booleans(),
    block=st.integers(1, 40),
)
@settings(max_examples=25, deadline=None)
def test_training_and_prediction_read_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    gz: bool,
    texts: list[str],
    bom: bool,
    block: int,
) -> None:
    if kind == "tsv":
        assume(not any(map(reads_as_rows, texts)))
    texts = [QUOTED, *texts]
    labels = [f"l{i % 3}" for i in range(len(texts))]
    content = serialize(kind, texts, labels)
    if bom and kind != "parquet":
        content = b"\xef\xbb\xbf" + content
    source = write_source(tmp_path_factory.mktemp("formats"), kind, content, gz)
    # As bytes that are not UTF-8 are read: those that make up a character are that character.
    written = [to_bytes(text).decode("utf-8", "surrogateescape") for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_scanner, "BLOCK", block)  # wherever a block of the file may end
        raw = [row.cells for row in read_all(source)]
        rows, records = read_training(source), read_prediction(source)
    assert [cells["text"] for cells in raw] == written  # type: ignore[index,call-overload]
    assert rows.texts == [replace_surrogates(text) for text in written]
    assert rows.labels == labels
    broken = [i for i, text in enumerate(written) if replace_surrogates(text) != text]
    assert rows.damaged == broken
    assert [record.beside for record in records] == [(label,) for label in labels]
    for i, (record, text) in enumerate(zip(records, rows.texts, strict=True)):
        if record.error is None:
            assert record.texts == (text,)
            assert i not in broken
        else:
            assert i in broken or not text.strip()
            assert record.error.startswith(f"{rows.places.place(i)}: ")


def test_a_table_of_datasets_reads_the_same() -> None:
    table = datasets.Dataset.from_dict({"label": ["x", "y"], "text": [QUOTED, "b"]})
    source = DataSource("a train", "table", table=table)
    assert read_training(source).texts == [QUOTED, "b"]
    assert [record.texts[0] for record in read_prediction(source)] == [QUOTED, "b"]
    assert peek_columns(source) == ["label", "text"]


@given(st.lists(st.text(st.sampled_from('ab\u2028\x85\x0b\0\r\t"é\udce9')), min_size=1))
@settings(max_examples=25, deadline=None)
def test_lines_of_text(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    lines = [line.rstrip("\r") for line in lines] + ["end"]
    content = to_bytes("\n".join(lines))
    source = write_source(tmp_path_factory.mktemp("lines"), "txt", content)
    written = [to_bytes(line).decode("utf-8", "surrogateescape") for line in lines]
    assert [row.cells for row in read_all(source)] == written
    unlabelled = read_rows(source, "a.txt", ColumnSpec(("text",), "label"))
    assert unlabelled.texts == [replace_surrogates(text) for text in written]
    document = DataSource("a", "document", source.path)
    assert [row.cells for row in read_all(document)] == [content.decode("utf-8", "surrogateescape")]


# --- TSV: with quotes or without ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["5 inch\tx", '5" pipe\ty'], False),
        (['"open\tx', "next\ty", 'closed"\tx'], False),  # quotes would swallow two rows
        (['"open\tx', "next\ty"], False),
        (['"He said ""no"" here"\tx', '"open\ty', "next\tx"], True),
        (['"a\ttab"\tx'], True),
        (['"two', 'lines"\tx'], True),
        (['"two', "", 'lines"\tx'], True),
        (['"whole"\tx', "plain\ty"], True),
        (['"whole"\t"x"', '"Total\t5', 'Thanks"\t"x"'], True),
        (["plain\tx"], True),
    ],
)
def test_quotes_of_tsv(lines: list[str], expected: bool) -> None:
    assert uses_quotes([line + "\n" for line in ["text\tlabel", *lines]], "\t", True) is expected


def test_an_open_quote_swallows_no_row_of_a_tsv(tmp_path: Path) -> None:
    lines = ["text\tlabel", '"open\tx', "next\ty", 'closed"\tx', 'a "b" c\ty']
    source = write_source(tmp_path, "tsv", "\n".join(lines).encode())
    assert read_training(source).texts == ['"open', "next", 'closed"', 'a "b" c']
    assert [record.texts[0] for record in read_prediction(source)] == read_training(source).texts


def test_one_bad_row_of_a_quoted_tsv_costs_that_row(tmp_path: Path) -> None:
    good = [f'"He said ""no"" {i}"\tx' for i in range(9)]
    lines = ["text\tlabel", *good[:4], '"open\ty', *good[4:]]
    source = write_source(tmp_path, "tsv", "\n".join(lines).encode())
    texts = [f'He said "no" {i}' for i in range(9)]
    expected = [*texts[:4], '"open', *texts[4:]]
    assert read_training(source).texts == expected
    assert [record.texts[0] for record in read_prediction(source)] == expected


@pytest.mark.parametrize("quoted", [0, 1, 20])
@given(st.integers(0, 6), st.booleans(), st.data())
@settings(max_examples=25, deadline=None)
def test_rows_never_vanish_from_a_tsv(
    tmp_path_factory: pytest.TempPathFactory,
    quoted: int,
    between: int,
    in_last: bool,
    data: st.DataObject,
) -> None:
    """Whether others are quoted or not, a quote that is open in one row takes no other along.

    Where others are, and it closes in a later row, all of these are told: they may be one.
    """
    good = [f'"He said ""no"" {i}"\tx' for i in range(quoted)]
    plain = [f"row {i}\ty" for i in range(between)]
    last = 'label "z\tz"' if in_last else 'closed"\tz'
    bad = ['"open\tx', *plain, last]
    at = data.draw(st.integers(0, len(good)))
    lines = [*good[:at], *bad, *good[at:]]
    content = "\n".join(["text\tlabel", *lines]).encode()
    source = write_source(tmp_path_factory.mktemp("tsv"), "tsv", content)
    if quoted and not in_last:
        with pytest.raises(InputError) as error:
            read_training(source)
        first, last = at + 2, at + 1 + len(bad)
        assert f"got line {first} (of lines {first} to {last}, which quotes" in str(error.value)
        records = read_prediction(source)
        assert len(records) == len(lines)
        told = [i for i, record in enumerate(records) if record.error is not None]
        assert told == [*range(at, at + len(bad))]
        return
    rows = read_training(source)
    assert len(rows.texts) == len(lines)
    assert [r.texts[0] for r in read_prediction(source)] == rows.texts
    if quoted != 1:
        texts = [f'He said "no" {i}' for i in range(quoted)]
        assert rows.texts == [*texts[:at], *[line.split("\t")[0] for line in bad], *texts[at:]]
    assert sum(note.count for note in rows.notes) >= quoted + 2


def test_lines_of_a_tsv_that_may_be_one_row_or_several_stop(tmp_path: Path) -> None:
    lines = ["text\tlabel", '"He said ""no"""\tx', '"Total\t5', "", 'Thanks"\tx', "last\ty"]
    source = write_source(tmp_path, "tsv", "\n".join(lines).encode())
    doubt = "(of lines 3 to 5, which quotes make one row)"
    with pytest.raises(InputError) as error:
        read_training(source)
    assert error.value.problems == (
        "a.tsv: expected lines that are one row or several, and not both (where a quote is text, "
        "enclose its cell in quotes and double it; where a cell has several lines, join them), got "
        f"line 3 {doubt} at row 2, line 5 {doubt} at row 3",
    )
    records = read_prediction(source)
    assert [record.error is None for record in records] == [True, False, False, True]
    assert records[1].error == (f"a.tsv: row 2: expected {delimited.NO_DOUBT}, got line 3 {doubt}")


@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
@given(
    texts=st.lists(st.text(st.sampled_from('ab \t\n"')), min_size=1, max_size=8),
    at=st.integers(0, 8),
)
@settings(max_examples=100, deadline=None)
def test_what_csv_writes_with_tabs_is_read_or_told(
    tmp_path_factory: pytest.TempPathFactory, quoting: Any, texts: list[str], at: int
) -> None:
    """Once a cell shows that quotes enclose cells: the very rows, or where these are in doubt."""
    texts = [*texts[:at], 'He said "no"', *texts[at:]]
    rows = [[text, f"l{i}"] for i, text in enumerate(texts)]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter="\t", quoting=quoting).writerows([["text", "label"], *rows])
    content = out.getvalue().encode()
    source = write_source(tmp_path_factory.mktemp("written"), "tsv", content)
    found = [row.cells for row in read_all(source)]
    good = [[*cells.values()] for cells in found if not isinstance(cells, RowProblem)]  # type: ignore[union-attr]
    doubtful = []
    for row in rows:
        one = io.StringIO(newline="")
        csv.writer(one, delimiter="\t", quoting=quoting).writerow(row)
        lines = [line for line in re.split("[\r\n]+", one.getvalue()) if line.strip()]
        doubtful.append(len(lines) > 1 and all(line.count("\t") == 1 for line in lines))
    assert good == [row for row, is_doubtful in zip(rows, doubtful, strict=True) if not is_doubtful]
    assert any(doubtful) == (len(good) < len(found))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["plain\tx", "more\ty"], []),
        (['5" pipe\tx', "more\ty"],
         ["1 row holds a quote that is read as text (a.tsv: row 1): kept as they are, as quotes "
          "enclose no cells here"]),
        (['"a ""b"""\tx', '"open\tx', "c\ty"],
         ["1 row has cells in quotes (a.tsv: row 1): read without them, as quotes enclose cells in "
          "this file",
          "1 row holds a quote that is read as text (a.tsv: row 2): kept as they are, as these "
          "enclose no cell, unlike others"]),
    ],
)  # fmt: skip
def test_what_quotes_are_in_a_tsv_is_said(
    tmp_path: Path, lines: list[str], said: list[str]
) -> None:
    source = write_source(tmp_path, "tsv", "\n".join(["text\tlabel", *lines]).encode())
    assert [str(note).removeprefix(": ") for note in read_training(source).notes] == said
    told: list[str] = []
    list(read_records(source, RequestedColumns(("text",)), ReadProgress(), told.append))
    assert told == [f"a.tsv: {one.replace('a.tsv: ', '')}" for one in said]


def test_lines_that_a_csv_makes_one_row_are_said(tmp_path: Path) -> None:
    source = write_source(tmp_path, "csv", b'text,label\n"open,x\nnext,y\nclosed",x\nlast,y\n')
    rows = read_training(source)
    assert rows.texts == ["open,x\nnext,y\nclosed", "last"]
    assert [str(note) for note in rows.notes] == [
        ": 1 row is of several lines, each of which would be a row by itself (a.csv: row 1): read "
        "as one, as quotes enclose its lines"
    ]


def pipe_in(monkeypatch: pytest.MonkeyPatch, content: bytes, kind: str) -> DataSource:
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)), encoding="utf-8")
    )
    return DataSource("standard input", kind)


@pytest.mark.parametrize("ahead", [0, 30, 2**20])
def test_a_piped_tsv_decides_by_its_beginning(monkeypatch: Any, ahead: int) -> None:
    monkeypatch.setattr(delimited, "LOOK_AHEAD", ahead)
    content = serialize("tsv", [QUOTED, "b", 'c "d"'], ["x", "y", "z"])
    source = pipe_in(monkeypatch, content, "tsv")
    assert [row.cells["text"] for row in read_all(source)] == [QUOTED, "b", 'c "d"']  # type: ignore[index,call-overload]


# --- what is not right ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["json", "wrapped", "jsonl"])
def test_json_through_a_pipe(monkeypatch: Any, kind: str) -> None:
    content = serialize(kind, ["a", "b"], ["x", "y"])
    source = pipe_in(monkeypatch, content, "json")  # JSON Lines are often called JSON
    assert [row.cells["text"] for row in read_all(source)] == ["a", "b"]  # type: ignore[index,call-overload]


ROW = '{"text": "a", "label": "x"}'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (f"[{ROW}]\n[{ROW}]", "line 2: expected the end of the file after its array, got "),
        (f"[{ROW}]\n{ROW}\n", "line 2: expected the end of the file after its array, got "),
        (f"[{ROW}\n{ROW}]", "line 2: not valid JSON (Expecting ',' delimiter at column 1)"),
        (f"[{ROW}", "line 1: not valid JSON (Expecting ',' delimiter at column 29)"),
        (f"[{ROW},]", "line 1: not valid JSON (Expecting value at column 30)"),
        (f'[{ROW}, {{"text": "b\n"}}]', "line 1: not valid JSON (Invalid control character at at "
         "column 42)"),
        (f'{{"a": [{ROW}], "b": [{ROW}]}}', "got lists under 'a', 'b'"),
        ('{\n"a": 1}', "got an object without"),
        ('{\n"text": "a", "tags": []}', "got an object without"),
        ("3", "expected an array of objects, or an object with one such array, got 3"),
        (f'{{"a": [{ROW}]}}\n\n]', "expected a JSON object on each line, got invalid JSON"),
    ],
)  # fmt: skip
def test_broken_json_is_refused_by_both(tmp_path: Path, content: str, problem: str) -> None:
    source = write_source(tmp_path, "json", content.encode())
    with pytest.raises(InputError) as error:
        read_training(source)
    assert problem in str(error.value)
    if "each line" in problem:
        assert problem in str([record.error for record in read_prediction(source)])
        return
    with pytest.raises(InputError) as error:
        read_prediction(source)
    assert problem in str(error.value)


@pytest.mark.parametrize("content", ['{"data": []}', '{\n"data": []\n}', "[]"])
def test_an_empty_array_has_no_rows(tmp_path: Path, content: str) -> None:
    source = write_source(tmp_path, "json", content.encode())
    assert read_prediction(source) == []
    with pytest.raises(InputError, match="no rows"):
        read_training(source)


def test_a_broken_array_is_not_read_to_its_end(tmp_path: Path) -> None:
    """What is no JSON at all is known at once, and not looked for a megabyte later."""
    rest = f",{ROW}" * 100_000
    source = write_source(tmp_path, "json", f'[{ROW}, {{"text": nothing}}{rest}]'.encode())
    progress = ReadProgress()
    with pytest.raises(InputError, match="Expecting value"):
        list(read_records(source, RequestedColumns(("text",)), progress))
    assert progress.share() is not None
    assert progress.done < 500_000 < progress.size


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('{"text": "a", "label": "x", "tags": []}', 1),
        (f'{{"data": [{ROW}], "tags": []}}', 1),
        (f"{ROW}\n\n{ROW}\n", 2),
        (f"\n{ROW}", 1),
        (f'{{"n": 1, "data": [{ROW}, {ROW}], "more": ["b", [1]]}}', 2),
        (f'{{"data": [{ROW}]}}', 1),
        (f'\ufeff\n {{"data":\n[\n{ROW}\n]\n}}\n', 1),
        (f'{{"text": "a", "label": "x", "spans": [{{"a": 1}}]}}\n{ROW}', 2),
    ],
)
def test_shapes_of_json(tmp_path: Path, content: str, rows: int) -> None:
    source = write_source(tmp_path, "json", content.encode())
    assert read_training(source).texts == ["a"] * rows
    assert [record.texts for record in read_prediction(source)] == [("a",)] * rows


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_packed_file_that_is_not_called_so(tmp_path: Path, kind: str) -> None:
    content = gzip.compress(serialize(kind, ["a", "b"], ["x", "y"]))
    source = write_source(tmp_path, kind, content)
    assert read_training(source).texts == ["a", "b"]
    assert [record.texts[0] for record in read_prediction(source)] == ["a", "b"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_a_file_called_gz_that_is_not_packed_is_read_as_it_is(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}.gz"
    path.write_bytes(serialize(kind, ["a", "b"], ["x", "y"]))
    source = DataSource(path.name, kind, path)
    assert read_training(source).texts == ["a", "b"]
    assert [record.texts[0] for record in read_prediction(source)] == ["a", "b"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet", "txt"])
@pytest.mark.parametrize(
    "content", [b"", gzip.compress(b"text,label\n" * 9, mtime=0)[:-9]], ids=["empty", "cut off"]
)
def test_a_gzip_file_that_is_empty_or_cut_off(tmp_path: Path, kind: str, content: bytes) -> None:
    path = tmp_path / f"a.{kind}.gz"
    path.write_bytes(content)
    for read in (read_training, read_prediction):
        with pytest.raises(InputError):
            read(DataSource(path.name, kind, path))


@pytest.mark.parametrize("content", ["text, as UTF-16".encode("utf-16"), b"PAR1 of 2, \xff"])
def test_a_document_that_is_not_utf_8_is_a_damaged_row(tmp_path: Path, content: bytes) -> None:
    """The rules for rows decide what becomes of it; the other documents stay."""
    paths = [tmp_path / "news" / name for name in ("1.txt", "2.txt")]
    paths[0].parent.mkdir()
    paths[0].write_bytes(content)
    paths[1].write_text("b", encoding="utf-8")
    labelled = [(path, "news") for path in paths]
    rows = read_documents(tmp_path, labelled, is_labelled=True, store=Store())
    assert (list(rows.damaged), rows.texts[1]) == ([0], "b")
    (record,) = read_prediction(DataSource("1.txt", "document", paths[0]))
    assert record.error == "1.txt: the text is not UTF-8"


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    twice = pa.table([["a"], ["b"], ["x"]], names=["text", "text", "label"])
    pq.write_table(twice, tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("text,text,label\na,b,x\n")
    for kind in ("parquet", "csv"):
        source = DataSource("a", kind, tmp_path / f"a.{kind}")
        for read, key in ((read_training, "data.text"), (read_prediction, "--text")):
            with pytest.raises(InputError) as error:
                read(source)
            assert str(error.value) == f"a: 2 columns are called 'text' ({key})"


def test_problems_of_rows_are_told_by_training_and_cost_prediction_a_row(tmp_path: Path) -> None:
    source = write_source(tmp_path, "csv", b'text,label\na,x\nb\n"c" d,x\n\ne,y\n')
    with pytest.raises(InputError) as error:
        read_training(source)
    assert error.value.problems == (
        "a.csv: expected 2 cells in each row, as in the header, got 1 at row 2",
        "a.csv: expected quoted cells that end with a quote and double the quotes within, got "
        "text behind the quote that ends a cell at row 3",
    )
    assert [record.error is None for record in read_prediction(source)] == [
        True,
        False,
        False,
        True,
    ]
    assert [isinstance(row.cells, RowProblem) for row in read_all(source)] == [
        False, True, True, False,
    ]  # fmt: skip


def test_a_quote_that_does_not_end_is_given_up(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(quoting, "LONGEST_ROW", 20)
    source = write_source(tmp_path, "csv", b'text,label\n"a,x\nb,y\nccccccccc,x\nd,y\n')
    found = read_prediction(source)
    assert [record.texts for record in found] == [(), ("b",), ("ccccccccc",), ("d",)]
    assert str(found[0].error).endswith("got a quote that does not end within 20 characters")


def test_every_format_is_one_entry() -> None:
    rooms = {format.open.__module__ for format in FORMATS.values()}  # type: ignore[attr-defined]
    assert rooms == {room.__name__ for room in (arrow, delimited, frame, json_text, plain_text)}
    assert len(FORMATS) == 9


def test_what_was_read_ahead_comes_again() -> None:
    assert rejoin(b"abc", io.BytesIO(b"defgh")).read() == b"abcdefgh"  # type: ignore[arg-type]
    assert rejoin(b"", io.BytesIO(b"a\nb")).readlines() == [b"a\n", b"b"]  # type: ignore[arg-type]
