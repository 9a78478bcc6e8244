"""How a source is read that nobody has described yet."""

import gzip

import pytest

from finetune.data.source_survey import survey_source
from finetune.runtime.errors import InputError

ROWS = "text;label\n" + "".join(f"the café number {i};{'ab'[i % 2]}\n" for i in range(40))


def keys(survey):
    return {line.name: line.value for line in survey.lines}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_encoding_and_delimiter_are_found_together(tmp_path, encoding, pack):
    file = tmp_path / "a.csv.gz"
    file.write_bytes(pack(ROWS.encode(encoding)))
    survey = survey_source(str(file))
    expected = {"data.delimiter": "semicolon"}
    if encoding != "utf-8":
        expected["data.encoding"] = encoding
    assert keys(survey) == expected
    assert [column.name for column in survey.columns] == ["text", "label"]
    assert survey.data.encoding == encoding


def test_what_a_person_says_is_kept(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(ROWS.encode("cp1252"))
    survey = survey_source(str(file), "latin-1", ";")
    assert keys(survey) == {"data.encoding": "latin-1", "data.delimiter": "semicolon"}
    file.write_bytes(ROWS.encode("utf-16"))
    with pytest.raises(InputError, match="expected UTF-8, got UTF-16"):
        survey_source(str(file), "utf-8")
