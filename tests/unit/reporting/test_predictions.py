"""A file of predictions: what it says of each row, and what is read back from it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from finetune.data.text_store import Texts
from finetune.reporting import predictions
from finetune.runtime.errors import InputError
from tests.unit.reporting.made import made_corpus

LOGITS = np.tile(np.log(np.float32([[0.75, 0.25]])), (6, 1))


def lines_of(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def test_each_row_has_a_line(tmp_path):
    corpus, _ = made_corpus(("a", "b"))
    file = tmp_path / "test.jsonl"
    predictions.write_predictions(file, corpus.test, corpus.labels, LOGITS)
    first, second, *_ = lines_of(file)
    assert (first["label"], first["predicted"]) == ("a", "a")
    assert (second["label"], second["predicted"]) == ("b", "a")
    assert first["probabilities"] == {"a": 0.75, "b": 0.25}
    assert first["text"] == "word0 text"
    assert "texts" not in first
    several = replace(corpus.test, labels=np.tile([1, 0], (6, 1)))
    every = np.full((6, 2), 1.0, np.float32)
    predictions.write_predictions(file, several, corpus.labels, every, True)
    line = lines_of(file)[0]
    assert (line["label"], line["predicted"]) == (["a"], ["a", "b"])


def test_what_is_written_is_read_back(tmp_path):
    labels = ("a\u2028", 'b": "')
    corpus, _ = made_corpus(labels)
    long = "é\u2028" * 300
    pairs = replace(
        corpus.test, texts=Texts.of(["one", long, *"cdef"]), seconds=Texts.of(["two", *"bcdef"])
    )
    file = tmp_path / "test.jsonl"
    predictions.write_predictions(file, pairs, labels, LOGITS)
    found = [*predictions.read_predictions(file, labels)]
    assert [row.row for row in found] == [*pairs.places]
    assert [row.label for row in found] == [*labels] * 3
    assert {row.predicted for row in found} == {labels[0]}
    assert all(row.probabilities == [0.75, 0.25] for row in found)
    assert found[0].text == "one\n\ntwo"
    assert lines_of(file)[0]["texts"] == ["one", "two"]
    assert lines_of(file)[1]["texts"] == [long[: predictions.EXCERPT] + "…", "b"]
    assert found[1].text == long[: predictions.EXCERPT] + "…"
    assert found[0].id is None
    other_order = [*predictions.read_predictions(file, labels[::-1])]
    assert other_order[0].probabilities == [0.25, 0.75]


def test_a_file_of_an_earlier_version_is_read(tmp_path):
    line = {"row": "r", "label": "b", "predicted": "a", "probabilities": [0.75, 0.25]}
    (tmp_path / "test.jsonl").write_text(json.dumps(line) + "\n")
    [found] = predictions.read_predictions(tmp_path / "test.jsonl", ("a", "b"))
    assert found == ("r", None, "b", "a", [0.75, 0.25], "")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"row": "r", "pre', "Invalid control character"),
        ('{"row": "r", "predicted": "a"}', "no 'probabilities'"),
        ('{"row": "r", "predicted": "a", "probabilities": {"a": 1}}', "no 'b'"),
        ("[1]", "list indices must be integers"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, why):
    good = {"row": "r", "predicted": "a", "probabilities": {"a": 1, "b": 0}}
    file = tmp_path / "test.jsonl"
    file.write_text(f"{json.dumps(good)}\n{line}\n")
    with pytest.raises(InputError, match=f"line 2 is damaged \\({why}"):
        [*predictions.read_predictions(file, ("a", "b"))]
    with pytest.raises(InputError, match="the predictions of the run are not there"):
        [*predictions.read_predictions(tmp_path / "none", ("a", "b"))]
