"""Byte order marks, blank lines, invisible characters, layers of gzip: no row is lost or made.

Standard input and files read alike; what standard input holds is said or refused.
"""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.data.formats.registry import open_rows
from finetune.inference.inputs import InputSpec, find_inputs
from finetune.runtime.errors import InputError
from tests.security.test_standard_input import (
    BLANKS,
    BOM,
    INVISIBLE,
    LINES,
    MARKS,
    ROWS,
    packed,
    read,
)


@pytest.mark.parametrize("layers", [2, 3, 300])
@pytest.mark.parametrize("kind", [None, "csv", "tsv", "json", "jsonl", "txt"])
def test_one_layer_of_gzip_is_unpacked_and_no_more(monkeypatch, tmp_path, layers, kind):
    """As many are refused as Python's stack holds, and a file that unpacks to itself."""
    content = LINES
    for _ in range(layers):
        content = gzip.compress(content)
    with pytest.raises(InputError, match="packed with gzip more than once; unpack it first"):
        read(monkeypatch, content, format=kind)
    file = tmp_path / f"rows.{kind or 'jsonl'}.gz"
    file.write_bytes(content)
    [source] = find_inputs(InputSpec(str(file)))
    with (
        pytest.raises(InputError, match="packed with gzip more than once; unpack it first"),
        open_rows(source, ["text"]),
    ):
        pass


def test_so_it_is_with_parquet(tmp_path):
    file = tmp_path / "rows.parquet.gz"
    once = gzip.compress(
        packed(lambda out: pq.write_table(pa.table({"text": ["one", "two"]}), out))
    )
    file.write_bytes(once)
    [source] = find_inputs(InputSpec(str(file)))
    with open_rows(source, ["text"]) as reader:
        assert [row.cells for row in reader.rows()] == ROWS
    file.write_bytes(gzip.compress(once))
    with pytest.raises(InputError, match="more than once"), open_rows(source, ["text"]):
        pass


JOINED = {
    "jsonl": ([LINES, b'{"text": "three"}\n'], [*ROWS, {"text": "three"}]),
    "txt": ([b"one\ntwo\n", b"three\n"], ["one", "two", "three"]),
}


@pytest.mark.parametrize("mark", [BOM, BOM + BOM])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("kind", JOINED)
def test_joined_files_with_marks_lose_no_row(monkeypatch, tmp_path, kind, pack, mark):
    parts, rows = JOINED[kind]
    content = b"".join(pack(mark + part) for part in parts) + pack(mark)
    assert read(monkeypatch, content) == (kind, rows)
    file = tmp_path / f"rows.{kind}"
    file.write_bytes(content)
    [source] = find_inputs(InputSpec(str(file)))
    with open_rows(source, ["text"]) as reader:
        assert [row.cells for row in reader.rows()] == rows


@pytest.mark.parametrize("before", [*BLANKS, *MARKS, b"sep=;\n\n"])
@pytest.mark.parametrize(("kind", "mark"), [("csv", b","), ("csv", b";"), ("tsv", b"\t")])
@pytest.mark.parametrize("cell", [b'"one"', b'a "quoted" one'])
def test_the_header_of_a_table_follows_blank_lines(monkeypatch, tmp_path, kind, mark, before, cell):
    if mark != b";":
        before = before.replace(b"sep=;", b"")
    content = before + b"text" + mark + b"label\n" + cell.replace(b'"', b"") + mark + b"a\n"
    if kind == "tsv":
        content = content.replace(b"one", cell)
    _, rows = read(monkeypatch, content, format=kind)
    file = tmp_path / f"rows.{kind}"
    file.write_bytes(content)
    [source] = find_inputs(InputSpec(str(file)))
    with open_rows(source, ["text"]) as reader:
        assert [row.cells for row in reader.rows()] == rows
    assert [row["label"] for row in rows] == ["a"]
    assert "one" in rows[0]["text"]


@pytest.mark.parametrize("before", [b"", BOM, BOM + BOM, b"\n" + BOM, b"\n\t\n"])
@pytest.mark.parametrize("quote", [b"", b'"'])
def test_an_empty_first_cell_of_a_header_stays(monkeypatch, before, quote):
    """As pandas writes its index."""
    content = before + b"\t" + quote + b"text" + quote + b"\n0\tone\n1\ttwo\n"
    _, rows = read(monkeypatch, content, format="tsv")
    assert rows == [{"": "0", "text": "one"}, {"": "1", "text": "two"}]


FIRST = [b"# comment", b"// comment", b")]}'", b'"a"', b"while(1);", b"1", b"null", b"[sic]", b"}"]


@pytest.mark.parametrize("most", [1, 10**9])
@pytest.mark.parametrize("sign", [b"", *INVISIBLE])
@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize("lines", [LINES, b'[1, "one"]\n', b"\n\nmore\n" + LINES])
def test_json_below_other_lines_is_refused(monkeypatch, first, lines, sign, most):
    content = first + b"\n" + lines.replace(b"{", sign + b"{").replace(b"[", sign + b"[")
    with pytest.raises(InputError, match=r"got both: .*; --format csv, tsv, json, jsonl or txt"):
        read(monkeypatch, content, most)
    kind, rows = read(monkeypatch, content, format="txt")
    assert kind == "txt"
    assert first.decode() in rows
