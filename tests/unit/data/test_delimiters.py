"""What separates cells: the file's name says it, or its lines show it, or a person sets it."""

import csv
import io
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.config import schema
from finetune.config.section import parse_delimiter
from finetune.data import sources
from finetune.data.column_survey import ColumnSurvey, find_train_tables, survey_columns
from finetune.data.formats.delimiters import WORDS, find_delimiters, name_delimiter
from finetune.data.formats.source import ReadProgress
from finetune.data.rows import Rows
from finetune.inference.inputs import InputSpec, check_inputs, find_inputs
from finetune.inference.records import RequestedColumns, read_records
from finetune.runtime.errors import InputError

TEXTS = ["Hello, you; there", 'He said "no", then left', "two\nlines", "plain", "a | b"]
REQUESTED = RequestedColumns(("text",))


def written(mark: str, quoting: int = csv.QUOTE_MINIMAL, header: str = "text,label") -> str:
    out = io.StringIO(newline="")
    rows = [[text, f"l{i % 2}"] for i, text in enumerate(TEXTS)]
    csv.writer(out, delimiter=mark, quoting=quoting).writerows([header.split(","), *rows])
    return out.getvalue()


def train(path: Path, **keys: str) -> Rows:
    return sources.load_rows(schema.Data(source=str(path), **keys))["train"]


def survey(path: Path) -> list[ColumnSurvey]:
    return survey_columns(find_train_tables(schema.Data(source=str(path))))


def predict(path: Path, delimiter: str = "auto") -> tuple[list[str], list[str]]:
    told: list[str] = []
    texts = []
    found = find_inputs(InputSpec(str(path), delimiter=delimiter))
    check_inputs(found, REQUESTED)
    for source in found:
        records = read_records(source, REQUESTED, ReadProgress(), told.append)
        texts += [record.texts[0] for record in records if record.error is None]
    return texts, told


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("mark", [*WORDS])
def test_the_lines_show_the_delimiter(tmp_path: Path, mark: str, quoting: int, name: str) -> None:
    """Training, prediction and `finetune new` read the same cells, and say where the name errs."""
    path = tmp_path / name
    path.write_text(written(mark, quoting), newline="")
    rows = train(path)
    assert rows.texts == TEXTS
    assert rows.labels == ["l0", "l1", "l0", "l1", "l0"]
    texts, told = predict(path)
    assert texts == TEXTS
    assert [column.name for column in survey(path)] == ["text", "label"]
    said = [str(note) for note in rows.notes if note.kind == "delimiter"]
    if mark == (",", "\t")[name == "a.tsv"]:
        assert said == []
        return
    rule = f"read with {name_delimiter(mark, plural=True)} between cells"
    phrase = "1 file has other delimiters than its name says"
    assert said == [f": {phrase} ({path.name}): {rule} (data.delimiter: auto)"]
    assert any(phrase in one and one.endswith(f"{rule} (--delimiter: auto)") for one in told)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from('ab;|\t, "'), max_size=9), min_size=1, max_size=6))
def test_a_file_whose_header_has_the_columns_is_read_as_its_name_says(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("usual") / "a.csv"
    with path.open("w", newline="") as out:
        csv.writer(out).writerows([["text", "x;y|z"], *([text, "l;m|n"] for text in texts)])
    found, told = predict(path)
    assert found == [text for text in texts if text.strip()]
    assert not [one for one in told if "delimiter" in one]


@pytest.mark.parametrize(
    "content",
    [
        "text;a|label\nx;b|y\nz;c|w\n",  # each of the two divides every row
        "text;x|label\n",
    ],
)
def test_two_delimiters_that_fit_alike_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    said = f"{path}: expected one delimiter, got lines that semicolons and pipes divide equally "
    with pytest.raises(InputError) as error:
        train(path)
    assert error.value.problems == (
        f"{said}well; set data.delimiter=semicolon or data.delimiter=pipe",
    )
    spec = InputSpec(str(path))
    with pytest.raises(InputError, match="set --delimiter semicolon or --delimiter pipe"):
        check_inputs(find_inputs(spec), RequestedColumns(("Text",)))


def test_the_columns_that_are_wanted_decide_between_two() -> None:
    lines = ["text;a|b;label\n", "x;y|z;w\n"]
    assert find_delimiters(lines, ",", ["text", "label"]) == [";"]
    assert find_delimiters(lines, ",", ["b;label"]) == ["|"]
    assert find_delimiters(lines, ",", ()) == [";", "|"]


@pytest.mark.parametrize("lines", [
    ["title, short;label\n", "x;y\n", "z, w;y\n"],  # commas in a name and in some rows
    ['"title, short";label\n', "x;y\n", "z;w\n"],  # which commas cannot read at all
])  # fmt: skip
def test_commas_that_do_not_divide_the_rows_are_text(lines: list[str]) -> None:
    assert find_delimiters(lines, ",", ()) == [";"]
    assert find_delimiters(lines, ",", ("label",)) == [";"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt"])
@pytest.mark.parametrize("word", ["semicolon", ";", "pipe", "tab", "\\t", "^"])
def test_a_delimiter_that_is_set_is_obeyed(tmp_path: Path, word: str, name: str) -> None:
    path = tmp_path / name
    mark = parse_delimiter(word)
    assert mark is not None
    path.write_text(written(mark), newline="")
    rows = train(path, delimiter=word)
    assert rows.texts == TEXTS
    assert [note for note in rows.notes if note.kind == "delimiter"] == []
    assert predict(path, mark)[0] == TEXTS


def test_a_set_delimiter_that_is_wrong_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(written(";"))
    with pytest.raises(InputError) as error:
        train(path, delimiter="tab")
    assert error.value.problems == (
        f"{path}: expected cells separated by tabs, got a header with semicolons; if these "
        "separate the cells, set data.delimiter=semicolon",
    )


def test_a_txt_file_that_looks_like_a_table_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text\tlabel\nI like it, really\tx\nNo\ty\n")
    for read in (train, survey):
        with pytest.raises(InputError) as error:
            read(path)
        hint = "its lines look like a table: to read it so, set data.delimiter=tab; "
        assert str(error.value).startswith(f"{path}: {hint}")
    assert train(path, delimiter="tab").texts == ["I like it, really", "No"]
    path.write_text("one, two\nthree\nfour, five, six\n")
    with pytest.raises(InputError, match=r"files per label$"):
        train(path)


def test_excel_s_line_for_the_delimiter_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for mark in ",;\t":
        path.write_text(f"sep={mark}\r\n" + written(mark), newline="")
        assert train(path).texts == TEXTS
        assert predict(path)[0] == TEXTS


@pytest.mark.parametrize("mark", [";", "\t"])
def test_standard_input(monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    """With --format, its lines show it; with --delimiter alone, it is a table."""
    for spec in (InputSpec("-", format="csv"), InputSpec("-", delimiter=mark)):
        piped = io.BufferedReader(io.BytesIO(written(mark).encode()))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(piped, encoding="utf-8"))
        (source,) = find_inputs(spec)
        assert [r.texts[0] for r in read_records(source, REQUESTED, ReadProgress())] == TEXTS


def test_words_that_separate_nothing() -> None:
    for word in ("", "a", "5", '"', "\n", ";;", "é", "semi"):
        assert parse_delimiter(word) is None
    with pytest.raises(ValueError, match="auto, comma, semicolon, tab, pipe or one other"):
        schema.Data(source="a.csv", delimiter="semi")
