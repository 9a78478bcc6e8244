"""From the scores of tokens to those of words: windows, pairs, and what is explained."""

import numpy as np
import pytest

from finetune.evaluation.explanations import Word, explain_rows, most_telling, weigh_answers
from finetune.tokenization.document_format import DocumentFormat
from tests.support.tiny import tiny_tokenizer


def test_an_answer_is_weighed_against_the_likely_others():
    logits = np.log([[0.5, 0.4, 0.1], [0.2, 0.2, 0.6]])
    np.testing.assert_allclose(
        weigh_answers(logits, [0, None], multi_label=False), [[1, -0.8, -0.2], [0, 0, 0]]
    )
    np.testing.assert_allclose(
        weigh_answers(logits, [1, 2], multi_label=True), [[0, 1, 0], [0, 0, 1]]
    )
    certain = weigh_answers(np.array([[2000.0, 0, 0]]), [0], multi_label=False)
    np.testing.assert_allclose(certain, [[1, -0.5, -0.5]])


def by_id(table, is_text, weights):
    """A token's score is its id times its piece's first weight."""
    return table.ids * np.repeat(weights[:, 0], np.diff(table.starts)) * is_text


def explain(reading, documents, weights, logits=None):
    tokenizer = tiny_tokenizer()
    seconds = [texts[1] for texts in documents] if reading.text_pair else None
    table = reading.encode([texts[0] for texts in documents], seconds, tokenizer)
    known = tokenizer.get_vocab()
    words = explain_rows(
        by_id, reading, tokenizer, documents, table, np.array(weights, float), lambda _: logits
    )
    return words, known


def test_words_have_the_scores_of_their_tokens():
    words, known = explain(DocumentFormat(), [("The unfit team",), ("bank",)], [[1, 0], [0, 0]])
    letters = ["u", "##n", "##f", "##i", "##t"]
    assert words == [
        [
            Word(0, 0, 3, known["the"]),
            Word(0, 4, 9, sum(map(known.__getitem__, letters))),
            Word(0, 10, 14, known["team"]),
        ],
        [],
    ]


def test_pairs_say_in_which_text():
    reading = DocumentFormat(text_pair="other")
    words, known = explain(reading, [("the team", "a bank")], [[1, 0]])
    assert [(one.text, one.start, one.end) for one in words[0]] == [
        (0, 0, 3), (0, 4, 8), (1, 0, 1), (1, 2, 6)
    ]  # fmt: skip
    assert words[0][3].score == known["bank"]


@pytest.mark.parametrize("pooling", ["mean", "max", "softmax"])
def test_a_word_in_several_windows(pooling):
    reading = DocumentFormat(max_length=5, truncation="windows", stride=1, window_pooling=pooling)
    # Windows: "the team win" and "win a match".
    logits = np.array([[1, 9], [3, 0.0]])
    words, known = explain(reading, [("the team win a match",)], [[1, 0]], logits)
    scores = {(one.start, one.end): one.score for one in words[0]}
    if pooling == "mean":
        assert scores[0, 3] == pytest.approx(known["the"] / 2)
        assert scores[9, 12] == pytest.approx(known["win"])
        assert scores[15, 20] == pytest.approx(known["match"] / 2)
    elif pooling == "softmax":
        first, second = np.exp([1, 3]) / np.exp([1, 3]).sum()
        assert scores[0, 3] == pytest.approx(known["the"] * first)
        assert scores[9, 12] == pytest.approx(known["win"])
        assert scores[15, 20] == pytest.approx(known["match"] * second)
    else:  # the second window has the highest first logit
        assert scores[0, 3] == 0
        assert scores[9, 12] == known["win"]
        assert scores[15, 20] == known["match"]


def test_the_most_telling_words():
    words = [Word(0, 0, 1, 0.5), Word(0, 2, 3, -4.0), Word(0, 4, 5, 2.0), Word(0, 6, 7, 0.5)]
    assert most_telling(words, 2) == [words[2], words[0]]
    assert most_telling(words, 9) == [words[2], words[0], words[3]]
