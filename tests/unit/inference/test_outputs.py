"""`outputs`: rows of predictions in each format, as whole files."""

import csv
import gzip
import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.inference import outputs
from finetune.inference.outputs import Columns
from finetune.runtime.errors import InputError

ROWS = [
    {"id": 1, "label": "a", "score": 0.5, "probabilities": {"a": 0.5}},
    {"id": 2, "label": None, "score": None, "error": 'a "quote", ü'},
]
KINDS = {"id": frozenset({"int"}), "score": frozenset({"float"})}
COLUMNS = Columns(("id", "label", "score", "probabilities.a", "error"), KINDS)


@pytest.mark.parametrize("name", ["o.csv", "o.tsv", "o.csv.gz"])
def test_tables(tmp_path, name):
    outputs.write_rows(iter(ROWS), tmp_path / name, COLUMNS)
    opened = gzip.open if name.endswith(".gz") else open
    with opened(tmp_path / name, "rt", encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\t" if ".tsv" in name else ","))
    assert rows == [
        list(COLUMNS.names),
        ["1", "a", "0.5", "0.5", ""],
        ["2", "", "", "", 'a "quote", ü'],
    ]


def test_jsonl_and_the_same_bytes_each_time(tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        outputs.write_rows(iter(ROWS), tmp_path / name, COLUMNS)
    packed = (tmp_path / "a.jsonl.gz").read_bytes()
    assert packed == (tmp_path / "b.jsonl.gz").read_bytes()
    assert [json.loads(line) for line in gzip.decompress(packed).splitlines()] == ROWS


def test_parquet_has_the_columns_types(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "GROUP_ROWS", 1)
    outputs.write_rows(iter(ROWS), tmp_path / "o.parquet", COLUMNS)
    table = pq.read_table(tmp_path / "o.parquet")
    assert [str(kind) for kind in table.schema.types[:3]] == ["int64", "string", "double"]
    assert table.column("id").to_pylist() == [1, 2]
    assert table.column("error").to_pylist() == [None, 'a "quote", ü']
    assert pq.ParquetFile(tmp_path / "o.parquet").num_row_groups == 2


def test_an_earlier_file_stays_where_writing_fails(tmp_path):
    (tmp_path / "o.csv").write_text("earlier")

    def rows():
        yield ROWS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outputs.write_rows(rows(), tmp_path / "o.csv", COLUMNS)
    assert [path.name for path in tmp_path.iterdir()] == ["o.csv"]
    assert (tmp_path / "o.csv").read_text() == "earlier"


@pytest.mark.parametrize("name", ["o.xls", "o.parquet.gz", "o", ".gz"])
def test_unknown_endings(tmp_path, name):
    with pytest.raises(InputError, match=r"unknown ending; expected .csv, .tsv, .jsonl, .parquet"):
        outputs.find_ending(tmp_path / name)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, None), (True, "bool"), (3, "int"), (2**63, "text"), (0.5, "float"), ("a", "text"),
        ([1], "text"),
    ],
)  # fmt: skip
def test_kinds_of_values(value, kind):
    assert outputs.json_kind(value) == kind


CELLS = st.one_of(st.none(), st.text(st.sampled_from("a,\t\r\n\"'=+-@ é;"), max_size=5))


@pytest.mark.parametrize("ending", ["csv", "tsv"])
@given(rows=st.lists(st.tuples(CELLS, CELLS), max_size=6))
@settings(max_examples=50, deadline=None)
def test_every_cell_comes_back(tmp_path_factory, ending, rows):
    file = tmp_path_factory.mktemp("cells") / f"o.{ending}"
    dicts = ({"x": x, "y": y} for x, y in rows)
    outputs.write_rows(dicts, file, Columns(("x", "y"), {}))
    with file.open(newline="", encoding="utf-8") as stream:
        back = list(csv.reader(stream, delimiter="\t" if ending == "tsv" else ",", strict=True))
    assert back == [["x", "y"], *([x or "", y or ""] for x, y in rows)]
    # By what Python before 3.11.9 left out: a lone carriage return is in quotes.
    bare = "".join(file.read_bytes().decode().split(chr(34))[::2])
    assert "\r" not in bare


FORMULAS = ["=1+1", "+1 team", "-1 team", "@SUM(1)", "\t=1", " =1", "\r=1", "＝1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_become_text_where_that_is_asked_for(tmp_path, text):
    rows = [{"id": text, "label": text, "score": -0.5, "n": -3, "note": "a = b"}]
    names = ("id", "label", "score", "n", "note")
    for safe in (False, True):
        outputs.write_rows(iter(rows), tmp_path / "o.csv", Columns(names, {}, safe))
        with (tmp_path / "o.csv").open(newline="", encoding="utf-8") as stream:
            row = list(csv.reader(stream))[1]
        first = f"'{text}" if safe else text
        assert row == [first, first, "-0.5", "-3", "a = b"]
