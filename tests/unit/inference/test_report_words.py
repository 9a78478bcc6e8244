"""Words in a run's report: which documents are explained, and which words are the strongest."""

import contextlib
import json

import numpy as np
import pytest

from finetune.data.corpus import Split
from finetune.data.places import Places
from finetune.evaluation.explanations import Word
from finetune.inference.report_words import _decision, _mark, choose_rows, find_strongest
from finetune.reporting.html_report import mark_mistake
from tests.support.runs import results, run_here


def test_documents_come_from_all_labels_in_turn():
    predicted = np.array([0, 0, 0, 2, 0, 1])
    assert choose_rows(predicted, 4) == [(0, 0), (5, 1), (3, 2), (1, 0)]
    assert choose_rows(predicted, 99) == [(0, 0), (5, 1), (3, 2), (1, 0), (2, 0), (4, 0)]
    several = np.array([[1, 1], [0, 0], [0, 1]])
    assert choose_rows(several, 9) == [(0, 0), (2, 1)]


def test_the_strongest_words_are_those_of_the_highest_sum():
    texts = {0: ("Goal! A goal.",), 1: ("goal the",), 2: ("the cup",)}
    explained = {
        0: [Word(0, 0, 4, 1.0), Word(0, 4, 5, 9.0), Word(0, 6, 7, -1.0), Word(0, 8, 12, 0.5)],
        1: [Word(0, 0, 4, 0.5), Word(0, 5, 8, -0.5)],
        2: [Word(0, 0, 3, 0.4), Word(0, 4, 7, 1.9)],
    }
    found = find_strongest(explained, texts)
    assert [(one.word, one.rows, one.score) for one in found] == [("goal", 2, 1.0), ("cup", 1, 1.9)]


def test_marked_words_are_in_the_text_that_is_shown():
    split = Split("test", ["one two"], None, Places("x", ["x: row 1"]), "x", ["three four"])
    words = [Word(0, 4, 7, 2.0), Word(1, 0, 5, 1.0), Word(1, 6, 10, 3.0), Word(0, 0, 3, -1.0)]
    shown = "one two\n\nthree"
    marked = _mark(words, split, 0, len(shown))
    assert [shown[one.start : one.end] for one in marked] == ["two", "three"]


@pytest.fixture(scope="module")
def explained(documents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    for name in ("encoder", "data", "tiny.yaml"):
        (folder / name).symlink_to(documents / name)
    with contextlib.chdir(folder):
        run_here("score.explained_rows=6", "train.max_steps=8", "run.dir=run")
    return folder / "run"


def test_a_run_explains_its_mistakes_and_labels(explained):
    found = results(explained)
    assert found["mistakes"]
    for one in found["mistakes"]:
        assert _decision(type("M", (), one), "abc") == ("abc".index(one["predicted"]), 1)
        for word in one["words"]:
            assert one["text"][word["start"] : word["end"]].strip()
            assert word["score"] > 0
    assert any(one["words"] for one in found["mistakes"])
    assert sum(one["rows"] for one in found["strongest_words"]) == 6
    page = (explained / "report.html").read_text()
    assert '<section id="words">' in page
    assert '<mark class="grade3">' in page
    assert "Underlined are the words" in page


def test_the_text_of_a_mistake_is_whole(explained):
    from finetune.evaluation.analysis_model import Mistake

    for one in results(explained)["mistakes"]:
        segments = mark_mistake(Mistake.model_validate(one))
        assert "".join(part.text for part in segments) == " ".join(one["text"].split())
    assert json.loads((explained / "results.json").read_text())["mistakes"]
