"""Standard input in disguise: what it holds is recognised, or refused. It never passes for text."""

import bz2
import gzip
import io
import json
import lzma
import subprocess
import sys
import zipfile

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.formats.registry import open_rows
from finetune.inference import standard_input
from finetune.inference.inputs import InputSpec, check_inputs, find_inputs
from finetune.inference.job_options import has_column
from finetune.inference.records import RequestedColumns
from finetune.runtime.errors import InputError

BOM = b"\xef\xbb\xbf"
LINES = b'{"text": "one"}\n{"text": "two"}\n'
ARRAY = b'[{"text": "one"}, {"text": "two"}]'
WRAPPED = b'{\n  "data": [\n{"text": "one"},\n{"text": "two"}]\n}'


class Drip(io.RawIOBase):
    """A pipe that gives few bytes at a time."""

    def __init__(self, content, most):
        self.content, self.most = io.BytesIO(content), most

    def readable(self):
        return True

    def readinto(self, buffer):
        block = self.content.read(min(len(buffer), self.most))
        buffer[: len(block)] = block
        return len(block)


def read(monkeypatch, content, most=10**9, **options):
    stdin = io.TextIOWrapper(io.BufferedReader(Drip(content, most)), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stdin)
    [source] = find_inputs(InputSpec("-", **options))
    check_inputs([source], RequestedColumns(("text",)))
    with open_rows(source, ["text"]) as reader:
        return source.kind, [row.cells for row in reader.rows()]


def test_its_name_in_messages(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES), encoding="utf-8"))
    assert standard_input.open_standard_input(None, "utf-8").name == standard_input.NAME


ROWS = [{"text": "one"}, {"text": "two"}]
BLANKS = [b"", b"\n", b"\r\n \t\r\n", BOM, BOM + b"\n\n", b" " * 100_000 + b"\n"]
MARKS = [b"\n" + BOM, BOM + BOM, b"\n" + BOM + b"\n", b" " + BOM + b" "]
INVISIBLE = [sign.encode() for sign in "\xa0\u2028\u200b\x0b\x1e\u2060\x85"]


@pytest.mark.parametrize("most", [1, 3, 10**9])
@pytest.mark.parametrize("before", [*BLANKS, *MARKS, *INVISIBLE])
@pytest.mark.parametrize("packed", [0, 1])
@pytest.mark.parametrize(
    ("content", "kind"), [(LINES, "jsonl"), (ARRAY, "json"), (WRAPPED, "json")]
)
def test_json_is_recognised(monkeypatch, content, kind, packed, before, most):
    if most == 1 and len(before) > 10:
        most = 7
    content = before + content
    for _ in range(packed):
        content = gzip.compress(content)
    assert read(monkeypatch, content, most) == (kind, ROWS)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize(
    ("content", "kind"), [(LINES, "jsonl"), (ARRAY, "json"), (b"\none", "txt")]
)
def test_in_the_encoding_that_was_asked_for(monkeypatch, content, kind, encoding):
    kind_read, rows = read(monkeypatch, content.decode().encode(encoding), encoding=encoding)
    assert kind_read == kind
    assert rows == (ROWS if kind != "txt" else ["", "one"])


def packed(pack):
    stream = io.BytesIO()
    pack(stream)
    return stream.getvalue()


def zipped(stream):
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("rows.jsonl", LINES)


TABLE = pa.table({"text": ["one", "two"]})
BINARY = {
    "a Parquet file; write it to a file called .parquet first": packed(
        lambda out: pq.write_table(TABLE, out)
    ),
    "an Arrow file": packed(lambda out: pa.feather.write_feather(TABLE, out)),
    "a zip archive or a spreadsheet": packed(zipped),
    "a bzip2 archive; unpack it": bz2.compress(LINES),
    "an xz archive; unpack it first, or pack it with gzip": lzma.compress(LINES),
    "a Zstandard archive; unpack it": bytes(pa.Codec("zstd").compress(LINES)),
    "an LZ4 archive; unpack it": bytes(pa.Codec("lz4").compress(LINES)),
    "UTF-16; set --encoding utf-16": LINES.decode().encode("utf-16"),
    "UTF-16-LE without a byte order mark": LINES.decode().encode("utf-16-le"),
    "UTF-32": LINES.decode().encode("utf-32"),
    "the file is empty": b"",
    "bytes that are neither": bytes(range(1, 32)) * 9,
}


@pytest.mark.parametrize("packs", [0, 1])
@pytest.mark.parametrize("problem", BINARY)
def test_what_is_no_text_is_refused(monkeypatch, problem, packs):
    content = gzip.compress(BINARY[problem]) if packs else BINARY[problem]
    with pytest.raises(InputError, match=problem):
        read(monkeypatch, content)


@pytest.mark.parametrize("problem", list(BINARY)[:7])
def test_and_so_in_a_file_or_with_a_format(tmp_path, monkeypatch, problem):
    file = tmp_path / "rows.txt"
    file.write_bytes(BINARY[problem])
    [source] = find_inputs(InputSpec(str(file)))
    in_file = problem.replace("write it to a file called .parquet first", "call it .parquet")
    with pytest.raises(InputError, match=in_file), open_rows(source, ["text"]):
        pass
    for kind in ("csv", "tsv", "jsonl", "json", "txt"):
        with pytest.raises(InputError, match=problem):
            read(monkeypatch, BINARY[problem], format=kind)


@given(st.binary(min_size=200, max_size=400))
def test_random_bytes_are_never_lines_of_text(content):
    """Nearly all have a zero byte or many control characters; gzip's and others' beginnings too."""
    controls = sum(byte < 32 and byte not in b"\t\r\n\f" for byte in content)
    if content.lstrip(BOM + b" \t\r\n")[:1] in (b"[", b"{") or controls <= 0.2 * len(content):
        return
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError):
        read(patch, content)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"text,label\none,a\n", "csv"),
        (b'\n"label","text"\na,one\n', "csv"),
        (b"label\ttext\na\tone\n", "tsv"),
        (BOM + b"text\none\n", "csv"),
    ],
)
def test_a_table_is_not_read_as_lines(monkeypatch, content, kind):
    with pytest.raises(InputError, match=f"the header of a table .* add --format {kind}, or --for"):
        read(monkeypatch, content)
    assert len(read(monkeypatch, content, format="txt")[1]) >= 2
    assert [row["text"] for row in read(monkeypatch, content.strip(), format=kind)[1]] == ["one"]


@pytest.mark.parametrize(
    "content",
    [
        b"one\ntwo",
        b"[sic] a text",
        b"\n\nthe text of 'text'",
        "日本語\n".encode(),
        b"\x1b[31mred\n",
    ],
)
def test_text_stays_text(monkeypatch, content):
    kind, rows = read(monkeypatch, content)
    assert kind == "txt"
    assert len(rows) == len(content.rstrip(b"\n").split(b"\n"))


def test_other_json_is_refused_too(monkeypatch):
    for content in (b'["one", "two"]', b"[\n1,\n2]"):
        try:
            kind, rows = read(monkeypatch, content)
        except InputError:
            continue
        assert kind == "json"
        assert all(not isinstance(row, str | dict) for row in rows)  # a problem of each


def test_a_real_pipe(tmp_path):
    """The process that writes it gives the blank line first."""
    program = (
        "import json, sys; from finetune.inference.inputs import InputSpec, find_inputs\n"
        "from finetune.data.formats.registry import open_rows\n"
        "[source] = find_inputs(InputSpec('-'))\n"
        "with open_rows(source) as reader: print(json.dumps([r.cells for r in reader.rows()]))"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert reader.stdin is not None
    for part in (b"\xef", b"\xbb\xbf", b"\n", LINES):
        reader.stdin.write(part)
        reader.stdin.flush()
    out, _ = reader.communicate(timeout=120)
    assert json.loads(out) == ROWS


LONG = "word " * 40_000  # a row that is longer than what is looked at first
PIPED = [{"text": "one", "ticket": "T-1"}, {"text": LONG, "ticket": "T-2"}]
ID_FIRST = json.dumps(PIPED[::-1])
TABLE = "text\tticket\none\tT-1\n"


@pytest.mark.parametrize("most", [700, 10**9])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("".join(json.dumps(row) + "\n" for row in PIPED), {}),
        ("".join(json.dumps(row) + "\n" for row in PIPED[::-1]), {"format": "jsonl"}),
        ("\n\n" + json.dumps(PIPED), {}),
        (ID_FIRST, {"format": "json"}),
        (json.dumps(PIPED, indent=2), {}),
        (json.dumps({"data": PIPED}, indent=2), {}),
        ('{"text": "no ticket"}\n{"text": "one", "ticket": "T-1"}\n', {}),
        (TABLE, {"format": "tsv"}),
        (TABLE.replace("\t", ","), {"format": "csv"}),
        (TABLE.replace("\t", ";"), {"delimiter": ";"}),
    ],
)
def test_the_column_of_ids_is_found_and_nothing_is_lost(monkeypatch, content, options, pack, most):
    expected = read(monkeypatch, pack(content.encode()), most, **options)[1]
    stdin = io.TextIOWrapper(
        io.BufferedReader(Drip(pack(content.encode()), most)), encoding="utf-8"
    )
    monkeypatch.setattr(sys, "stdin", stdin)
    [source] = find_inputs(InputSpec("-", **options))
    assert has_column([source], "ticket")
    assert not has_column([source], "other")
    with open_rows(source, ["text"]) as reader:
        assert [row.cells for row in reader.rows()] == expected


def test_utf_16_and_what_has_no_ids(monkeypatch):
    def find(content, **options):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
        return has_column(find_inputs(InputSpec("-", **options)), "ticket")

    rows = '{"text": "one", "ticket": "T-1"}\n' * 3000
    assert find(rows.encode("utf-16"), encoding="utf-16")
    assert not find(b"ticket\nT-1\n", format="txt")
    assert not find(LINES)
    assert not find(b"", format="jsonl")
    assert not find(b"[", format="json")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes among its files")
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_named_pipe_too(tmp_path, pack):
    import os
    import threading

    pipe, content = tmp_path / "x.jsonl", LINES.replace(b"{", b'{"ticket": "T-1", ') * 9000
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(pack(content),), daemon=True)
    writer.start()
    sources = find_inputs(InputSpec(str(pipe)))
    assert has_column(sources, "ticket")
    with open_rows(sources[0], ["text"]) as reader:
        assert len([*reader.rows()]) == 18000
    writer.join()
