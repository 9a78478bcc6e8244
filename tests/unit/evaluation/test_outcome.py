"""From an outcome, logits alone, to an analysis: what the logits say, and what is left out."""

import dataclasses

import numpy as np
import pytest

from finetune.config.run_sections import Score
from finetune.data.corpus import Corpus, Split
from finetune.data.places import Places
from finetune.evaluation import metrics
from finetune.evaluation.analysis import analyse
from finetune.evaluation.calibration import Temperature
from finetune.evaluation.outcome import Outcome
from finetune.evaluation.scoring import Scores, compute_metrics
from finetune.tokenization.token_table import TokenTable

NAMES = ("a", "b")
MEASURED = metrics.load_metrics(["accuracy", "f1_macro"], "accuracy", False)
LABELS = np.array([0, 0, 0, 1, 1, 1])
TABLE = TokenTable(np.zeros(12, np.int32), np.arange(0, 13, 2), np.full(6, 2), 0)


def made_split(name, labels):
    places = Places(name, range(1, 7), "row")
    return Split(name, [f"{name} word{i} text" for i in range(6)], labels, places, "x")


def made_corpus(test_labels=LABELS):
    splits = [made_split("train", LABELS), made_split("validation", LABELS)]
    return Corpus(NAMES, *splits, made_split("test", test_labels), ())


def scores(wrong=()):
    """Sure logits, of which those of the rows `wrong` are for the other label."""
    predicted = LABELS.copy()
    predicted[list(wrong)] = 1 - predicted[list(wrong)]
    logits = (4 * np.eye(2)[predicted]).astype(np.float32)
    return Scores(logits, compute_metrics(logits, LABELS, MEASURED))


def analysed(corpus, outcome, **score):
    tables = dict.fromkeys(("train", "validation", "test"), TABLE)
    return analyse(corpus, tables, outcome, MEASURED, Score(**score))


OUTCOME = Outcome("hash", Temperature(2.0, "fitted"), 2.0, scores(), scores(wrong=[0, 1]), None)


def test_scores_and_mistakes_are_those_of_test():
    found = analysed(made_corpus(), OUTCOME)
    assert found.analysed == "test"
    assert found.validation.metric("accuracy") == 1.0
    assert found.test.metric("accuracy") == pytest.approx(4 / 6)
    low, high = found.test.intervals["accuracy"]
    assert low < 4 / 6 < high
    assert found.confusion == [[1, 2], [0, 3]]
    assert [(pair.label, pair.predicted, pair.rows) for pair in found.confused_pairs] == [
        ("a", "b", 2)
    ]
    assert {mistake.row for mistake in found.mistakes} == {"test: row 1", "test: row 2"}


def test_a_baseline_knows_train_s_commonest_label():
    found = analysed(made_corpus(), OUTCOME).baselines
    assert found.majority.label in NAMES
    assert found.majority.metric("accuracy") == 0.5
    gap = found.majority.paired_difference["accuracy"]
    assert gap.difference == pytest.approx(4 / 6 - 1 / 2)


def test_before_calibration_logits_were_multiplied_by_the_temperature():
    found = analysed(made_corpus(), OUTCOME).calibration
    assert (found.temperature, found.why) == (2.0, "fitted")
    confidence = [np.exp(x) / (np.exp(x) + 1) for x in (8.0, 4.0)]
    for measured, expected in zip((found.test.before, found.test.after), confidence, strict=True):
        [only] = [one for one in measured.bins if one.rows]
        assert (only.rows, only.accuracy) == (6, pytest.approx(4 / 6))
        assert only.confidence == pytest.approx(expected)


def test_the_target_of_abstention():
    assert analysed(made_corpus(), OUTCOME, target_accuracy=0.9).abstention.target == 0.9
    half = dataclasses.replace(OUTCOME, validation=scores(wrong=[0, 5]))
    assert analysed(made_corpus(), half).abstention.target == pytest.approx(1 - 2 / 6 / 2)


def test_without_a_target_the_threshold_is_only_reported():
    half = dataclasses.replace(OUTCOME, validation=mixed())
    found = analysed(made_corpus(), half).abstention
    assert 0 < found.threshold < 1
    assert not found.saved
    assert analysed(made_corpus(), half, target_accuracy=0.9).abstention.saved
    kept = analysed(made_corpus(), half, target_accuracy=0.9, abstain=False).abstention
    assert (kept.saved, kept.threshold) == (False, pytest.approx(0.9, abs=0.1))


def mixed():
    """Scores whose two mistakes are less sure than the rest."""
    predicted = LABELS.copy()
    predicted[[0, 5]] = 1 - predicted[[0, 5]]
    sure = np.where(predicted == LABELS, 4.0, 1.0)[:, None]
    logits = (sure * np.eye(2)[predicted]).astype(np.float32)
    return Scores(logits, compute_metrics(logits, LABELS, MEASURED))


def test_without_validation_nobody_picks_a_threshold():
    found = analysed(made_corpus(), dataclasses.replace(OUTCOME, validation=None))
    assert found.abstention is None
    assert (found.validation.rows, found.validation.labelled) == (0, False)
    assert found.calibration.validation is None


def test_without_test_labels_validation_is_analysed():
    unscored = dataclasses.replace(OUTCOME, test=Scores(OUTCOME.test.logits, {}))
    found = analysed(made_corpus(test_labels=None), unscored)
    assert (found.analysed, found.baselines, found.mistakes) == ("validation", None, [])
    assert (found.test.rows, found.test.labelled) == (6, False)
