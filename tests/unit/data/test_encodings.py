"""Bytes that are not UTF-8: named, decoded as the recipe says, and in labels never repaired."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.config.schema import Data
from finetune.data.formats.encodings import (
    find_wide_encoding,
    likely_encodings,
    suggest_encodings,
    to_utf_8,
)
from finetune.data.formats.source import DataSource, ReadProgress
from finetune.data.prepare import prepare_corpus
from finetune.data.sources import load_rows
from finetune.inference.inputs import InputSpec, find_inputs
from finetune.inference.records import RequestedColumns, read_records
from finetune.runtime.errors import InputError

WORDS = {
    "gb18030": ["体育", "财经", "科技"],
    "big5": ["體育", "財經", "科技"],
    "cp932": ["スポーツ", "経済", "政治"],
    "euc_jp": ["スポーツ", "経済", "政治"],
    "cp949": ["스포츠", "경제", "정치"],
    "cp1251": ["спорт", "экономика", "политика"],
    "cp1252": ["café", "économie", "fußball"],
    "cp1253": ["αθλητικά", "οικονομία", "τέχνη"],
    "cp874": ["กีฬา", "เศรษฐกิจ", "การเมือง"],
}
SCRIPTS = ["text,label\n", "abc de, ", "спорт и", "体育财经", "αθλη", "รกีฬ", "ספורט", "😀", "é€"]


def write(folder: Path, kind: str, encoding: str, labels: list[str]) -> Path:
    rows = [(f"the text {i} of {i * 7}", labels[i % len(labels)]) for i in range(60)]
    if kind == "jsonl":
        lines = [json.dumps({"text": t, "label": n}, ensure_ascii=False) for t, n in rows]
    else:
        mark = "," if kind == "csv" else "\t"
        lines = [mark.join(row) for row in [("text", "label"), *rows]]
    path = folder / f"train.{kind}"
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


def prepared(path: Path, **keys: Any) -> Any:
    data = Data(source=str(path), **keys)
    return prepare_corpus(load_rows(data), data)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("encoding", WORDS)
def test_labels_are_never_repaired(tmp_path: Path, encoding: str, kind: str) -> None:
    """The message names the likely encoding, and with it the labels are what was written."""
    path = write(tmp_path, kind, encoding, WORDS[encoding])
    with pytest.raises(InputError) as error:
        prepared(path)
    (problem,) = error.value.problems
    assert problem.startswith("train: ")
    assert "labels are never repaired; set data.encoding (perhaps " in problem
    assert encoding in problem
    assert prepared(path, encoding=encoding).labels == tuple(sorted(WORDS[encoding]))


@pytest.mark.parametrize("rule", ["replace", "stop"])
def test_half_a_pair_of_escapes_is_no_label(tmp_path: Path, rule: str) -> None:
    lines = [f'{{"text": "text {i}", "label": "{"ab"[i % 2]}\\ud83d"}}' for i in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"train: 40 rows"):
        prepared(tmp_path / "a.jsonl", on_undecodable=rule)


def test_a_few_broken_labels_may_be_dropped_and_texts_are_marked(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", "utf-8", ["a", "b"])
    path.write_bytes(path.read_bytes() + b"\nthe last,c\xe9\ncaf\xe9 noir,a")
    with pytest.raises(InputError, match=r"train: 1 row has a label that is not UTF-8"):
        prepared(path)
    corpus = prepared(path, on_undecodable="drop")
    assert corpus.labels == ("a", "b")
    found = [str(finding) for finding in corpus.findings if finding.kind == "undecodable"]
    assert found[0].startswith("train: 2 rows are not UTF-8 (train.csv: row 61, train.csv: row 62)")
    assert "the encoding is perhaps " in found[0]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["no mark", "mark"])
@given(st.lists(st.sampled_from(SCRIPTS), min_size=1, max_size=20))
@settings(max_examples=20, deadline=None)
def test_wide_encodings_are_told(encoding: str, mark: str, parts: list[str]) -> None:
    content = f"{mark}text,label\n{''.join(parts)},a\n".encode(encoding)
    found = find_wide_encoding(content)
    assert found == (encoding[:6] if mark else encoding)


@given(st.text(st.sampled_from("abc, \n\0\x01é体😀\u2028"), max_size=60), st.binary(max_size=1))
def test_utf_8_is_not_taken_for_a_wide_encoding(text: str, rest: bytes) -> None:
    rest = rest.replace(b"\0", b"")
    content = f"text,label\n{text}".encode() + rest
    if content.count(b"\0") + content.count(b"\1") < len(content) / 12:
        assert find_wide_encoding(content) is None


@pytest.mark.parametrize("encoding", [*WORDS, "utf-16", "utf-16-le", "utf-32", "utf-7"])
@given(st.data())
@settings(max_examples=10, deadline=None)
def test_a_stream_in_another_encoding(encoding: str, data: st.DataObject) -> None:
    words = WORDS.get(encoding, ["体育", "café", "😀"])
    text = "\n".join(data.draw(st.lists(st.sampled_from(["text", ",", *words]), max_size=30)))
    stream = to_utf_8(io.BytesIO(text.encode(encoding)), encoding)  # type: ignore[arg-type]
    assert stream.read() == text.encode()


def test_what_the_encoding_does_not_know_is_marked() -> None:
    stream = to_utf_8(io.BytesIO(b"a\xff,\xd2\xbb"), "gb18030")  # type: ignore[arg-type]
    assert stream.read() == b"a\xff," + "一".encode()
    cut = to_utf_8(io.BytesIO("ab".encode("utf-16-le")[:3]), "utf-16-le")  # type: ignore[arg-type]
    assert cut.read() == b"a\xff"


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16", "utf-32-be"])
def test_wide_files_are_refused_until_the_encoding_is_named(
    tmp_path: Path, kind: str, encoding: str
) -> None:
    path = write(tmp_path, kind, encoding, ["a", "b"])
    with pytest.raises(InputError, match=f"set data.encoding={encoding}, or save it as UTF-8"):
        prepared(path)
    assert prepared(path, encoding=encoding).labels == ("a", "b")
    (source,) = find_inputs(InputSpec(str(path)))
    with pytest.raises(InputError, match=f"set --encoding {encoding}, or save it as UTF-8"):
        list(read_records(source, RequestedColumns(("text",)), ReadProgress()))
    (source,) = find_inputs(InputSpec(str(path), encoding=encoding))
    records = list(read_records(source, RequestedColumns(("text",)), ReadProgress()))
    assert [record.error for record in records] == [None] * 60


def test_utf_8_is_not_read_in_another_encoding(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", "utf-8-sig", ["a", "b"])
    with pytest.raises(InputError, match=r"expected gb18030 \(data.encoding=gb18030\), got UTF-8"):
        prepared(path, encoding="gb18030")


def test_a_wide_document_without_a_mark_is_damaged(tmp_path: Path) -> None:
    for i in range(40):
        path = tmp_path / "ab"[i % 2] / f"{i}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"the text {i}, of {i * 7}\n".encode("utf-16-le" if i == 3 else "utf-8"))
    rows = load_rows(Data(source=str(tmp_path)))["train"]
    assert [rows.places.place(i) for i in rows.damaged] == ["b/3.txt"]


def test_prediction_says_how_many_texts_and_kept_values_are_broken(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\n体育,体育\na,财经\n".encode("gb18030"))
    told: list[str] = []
    source = DataSource("a.csv", "csv", path, encoding_option="--encoding ")
    records = list(
        read_records(
            source, RequestedColumns(("text",), keep=("label",)), ReadProgress(), told.append
        )
    )
    assert records[0].error == "a.csv: row 1: 'text' is not UTF-8"
    assert [note.split("; ")[0] for note in told] == [
        "a.csv: 1 text is not UTF-8: no prediction",
        "a.csv: 2 kept values are not UTF-8, with U+FFFD where bytes were broken",
    ]
    assert all(
        "; set --encoding (perhaps gb18030, as which the first reads '体育'" in n for n in told
    )


def test_nothing_is_suggested_for_what_is_no_text() -> None:
    assert suggest_encodings([]) is None


def test_a_quoted_text_that_is_cut_keeps_its_quotes() -> None:
    said = suggest_encodings(["Die Rechnung Nr. 121 über Straßenarbeiten ist da".encode("cp1252")])
    assert said is not None
    # Cut to where the readings differ.
    assert said.startswith("perhaps cp1252, as which the first reads '…")
    assert "ung Nr. 121 über Straßenarbeiten ist…'" in said
    assert said.count("'") % 2 == 0


@pytest.mark.parametrize("escape", ["\\ud800", "\\ud83d", "\\udfff", "\\ude00 \\u00e9"])
def test_half_of_a_surrogate_pair_is_no_matter_of_the_encoding(tmp_path, escape):
    """JSON can write one; what it is, is said, and no encoding is proposed."""
    lines = [f'{{"text": "text number {i}", "label": "{"ab"[i % 2]}"}}' for i in range(60)]
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join([*lines, f'{{"text": "one {escape}", "label": "a"}}']))
    corpus = prepare_corpus(load_rows(Data(source=str(file))), Data(source=str(file)))
    assert [str(one) for one in corpus.findings if "half" in one.kind] == [
        "train: 1 row holds half of a surrogate pair, such as \\ud83d alone, which is no character "
        "(train.jsonl: line 61): U+FFFD put in place (data.on_undecodable: replace)"
    ]
    assert not [one for one in corpus.findings if one.kind == "undecodable"]
    told = []
    source = DataSource("a.jsonl", "jsonl", file)
    *_, last = read_records(source, RequestedColumns(("text",)), ReadProgress(), told.append)
    assert last.error.endswith(
        "'text' holds half of a surrogate pair, such as \\ud83d alone, which is no character"
    )
    assert told == []
    file.write_text("\n".join([*lines, f'{{"text": "one", "label": "a{escape}"}}']))
    with pytest.raises(InputError) as error:
        prepare_corpus(load_rows(Data(source=str(file))), Data(source=str(file)))
    assert "has a label with half of a surrogate pair" in str(error.value)
    assert "correct the \\u escapes" in str(error.value)


@pytest.mark.parametrize("opening", ["", "ticket {} ", "Die Rechnung wurde zweimal abgebucht, {} "])
@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1252", "für Ärger"),
        ("cp1252", "mañana también"),
        ("cp1251", "очень плохо"),
        ("mac_roman", "für Ärger"),
    ],
)
def test_letters_in_words_tell_the_encoding(encoding: str, words: str, opening: str) -> None:
    samples = [(opening.format(i) + words).encode(encoding) for i in range(40)]
    assert next(iter(likely_encodings(samples))) == encoding


@pytest.mark.parametrize("encoding", ["cp1252"])
@pytest.mark.parametrize("length", [0, 10, 60, 300])
def test_previews_show_where_readings_differ(encoding: str, length: int) -> None:
    text = ("plain words " * 40)[:length] + WORDS[encoding][2] + " and more words" * 9
    hint = suggest_encodings([text.encode(encoding)])
    assert hint is not None
    previews = hint.split("'")[1::2]
    assert len(previews) == len({*previews}) > 0
    assert any(WORDS[encoding][2] in preview for preview in previews)
