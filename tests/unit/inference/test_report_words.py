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


def test_the_strongest_words_are_those_that_speak_for_a_label_more_than_elsewhere():
    """`the` says as much in the documents of both labels, and `cup` is in one document alone."""
    texts = {
        0: ("Goal! the goal",), 1: ("goal the",), 2: ("the cup, goal",),
        3: ("the bank",), 4: ("the bank rate",), 5: ("rate the",),
    }  # fmt: skip
    told = {"goal": 0.6, "the": 0.9, "cup": 0.8, "bank": 0.5, "rate": 0.7, ",": 9.0, "!": 9.0}

    def words(row, unlike):
        found, at = [], 0
        for part in ("".join(c if c.isalpha() else f" {c} " for c in texts[row][0])).split():
            at = texts[row][0].index(part, at)
            found.append(Word(0, at, at + len(part), told[part.lower()] + unlike))
            at += len(part)
        return found

    explained = {
        label: {row: words(row, 0.01 * (row % 3)) for row in rows}
        for label, rows in ((0, (0, 1, 2)), (7, (3, 4, 5)))
    }
    found = find_strongest(explained, texts)
    assert [(one.word, one.rows) for one in found[0]] == [("goal", 3), ("cup", 1)]
    assert found[0][0].score == pytest.approx((1.2 + 0.61 + 0.62) / 3, abs=1e-3)
    assert {one.word for one in found[7]} == {"bank", "rate"}
    (alone,) = find_strongest({0: {0: [Word(0, 0, 4, 0.5)]}}, texts).values()
    assert [(one.word, one.score) for one in alone] == [("goal", 0.5)]
    against = find_strongest({0: {0: [Word(0, 0, 4, -0.5)]}}, texts)
    assert against == {0: []}


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
