"""Values of cells, as Arrow has them and as messages show them."""

import pyarrow as pa
import pytest

from finetune.data.cells import arrow_values, clip, describe_value, format_rows


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_texts_of_every_type_of_arrow(kind: pa.DataType) -> None:
    assert arrow_values(pa.array(["é", None, ""], kind)) == ["é", None, ""]


def test_bytes_that_are_not_utf8_are_kept_apart() -> None:
    assert arrow_values(pa.array([b"caf\xe9"], pa.binary())) == ["caf\udce9"]


def test_dictionaries_and_numbers() -> None:
    assert arrow_values(pa.array(["a", "b", "a"]).dictionary_encode()) == ["a", "b", "a"]
    assert arrow_values(pa.array([[1, 2], None])) == [[1, 2], None]


def test_values_in_messages() -> None:
    assert describe_value([1]) == "a list [1]"
    assert describe_value({"a": 1}) == 'an object {"a": 1}'
    assert describe_value("a") == "'a'"
    assert clip("x" * 99) == "x" * 39 + "…"
    assert [format_rows(count) for count in (0, 1, 1200)] == ["0 rows", "1 row", "1,200 rows"]
