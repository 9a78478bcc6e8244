"""Whatever is passed as documents → records; what is wrong with one stays its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.inference.documents import DocumentReader
from finetune.runtime.errors import InputError
from finetune.tokenization.document_format import DocumentFormat

ONE = DocumentReader(DocumentFormat())
PAIR = DocumentReader(DocumentFormat(text=("premise",), text_pair="claim"))


def test_texts_rows_and_tuples_of_one_column():
    same = ["a text", {"text": "a text"}, ("a text",), ["a text"], np.str_("a text")]
    assert [record.texts for record in ONE.read(same)] == [("a text",)] * 5
    assert ONE.read("a text") == ONE.read({"text": "a text"}) == ONE.read(["a text"])
    assert ONE.read(row for row in ()) == []


def test_pairs_by_name_and_by_place():
    rows = [{"claim": "b", "premise": "a", "more": 1}, ("a", "b"), ["a", "b"]]
    assert [record.texts for record in PAIR.read(rows)] == [("a", "b")] * 3
    assert [record.error for record in PAIR.read(["a", ("a",), ("a", 3)])] == [
        "documents: number 1: expected a row with the columns premise, claim, got 'a'",
        "documents: number 2: expected 2 texts (the columns premise, claim), got 1 text",
        "documents: number 3: 'claim' should be text, and is 3",
    ]


def test_columns_and_names_of_the_callers_own():
    reader = DocumentReader(DocumentFormat(), ("body",), "inputs", "row")
    good, bad = reader.read([{"body": "a text"}, {"text": "a text"}])
    assert good.texts == ("a text",)
    assert bad.error == "inputs: row 2: 'body' is missing"


@pytest.mark.parametrize("documents", [None, 3, 2.5])
def test_what_is_neither_a_document_nor_some(documents):
    with pytest.raises(InputError, match="documents: expected a text or several, got a"):
        ONE.read(documents)


CELLS = st.one_of(st.text(), st.none(), st.integers(), st.floats(), st.binary(), st.booleans())
ROWS = st.one_of(CELLS, st.lists(CELLS), st.tuples(CELLS, CELLS), st.dictionaries(st.text(), CELLS))


@given(st.lists(ROWS))
def test_every_row_has_either_its_texts_or_its_error(rows):
    for reader, columns in ((ONE, 1), (PAIR, 2)):
        records = reader.read(rows)
        assert len(records) == len(rows)
        for record in records:
            assert (len(record.texts) == columns) == (record.error is None)
            assert record.error is None or len(record.error) < 500
