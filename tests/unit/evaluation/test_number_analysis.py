"""The analysis of predictions of numbers, and its baselines."""

import numpy as np
import pytest

from finetune.config.run_sections import Score
from finetune.data.corpus import Corpus, Split
from finetune.data.number_scale import NumberScale
from finetune.data.places import Places
from finetune.evaluation import metrics, number_analysis, number_baselines
from finetune.evaluation.calibration import Temperature
from finetune.evaluation.number_intervals import NumberInterval
from finetune.evaluation.outcome import Outcome
from finetune.evaluation.scoring import Scores, compute_metrics
from finetune.reporting import number_report, number_text
from finetune.tokenization.token_table import TokenTable

WORDS = {"bad": -1.0, "fair": 0.0, "good": 1.0}


def split_of(name, count):
    words = [list(WORDS)[i % 3] for i in range(count)]
    texts = [f"a {word} day {i}" for i, word in enumerate(words)]
    numbers = np.array([10 * WORDS[word] + i % 2 for i, word in enumerate(words)])
    return Split(name, texts, numbers, Places(name, range(1, count + 1), "row"), name)


def table_of(split):
    lengths = np.arange(len(split)) % 5 + 3
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return TokenTable(np.zeros(starts[-1], np.int64), starts, lengths, 0)


@pytest.fixture
def corpus():
    train, validation, test = (
        split_of(*of) for of in (("train", 60), ("validation", 30), ("test", 30))
    )
    scale = NumberScale.of(train.labels)
    return Corpus(("mood",), train, validation, test, (), number=scale)


def test_the_analysis(corpus):
    measured = [metrics.build_metric(name) for name in ("r2", "mae")]
    interval = NumberInterval(0.9, 1.5)
    scores = {}
    for split in (corpus.validation, corpus.test):
        logits = (split.labels + 1).astype(np.float32)[:, None]
        logits[0] += 5
        values = compute_metrics(logits, split.labels, measured, scale=corpus.number.deviation)
        scores[split.name] = Scores(logits, values)
    outcome = Outcome(
        "w", Temperature(1.0, "none"), 1.0, scores["validation"], scores["test"], None,
        interval=interval,
    )  # fmt: skip
    tables = {split.name: table_of(split) for split in corpus.splits()}
    score = Score(metrics=("r2",), monitor="r2")
    found = number_analysis.analyse_numbers(corpus, tables, outcome, measured, score)
    numbers = found.numbers
    assert found.test.metric("mae") == pytest.approx((29 * 1 + 6) / 30)
    assert numbers.bias == pytest.approx((29 * 1 + 6) / 30)
    assert numbers.interval.reached == pytest.approx(29 / 30)
    assert (numbers.largest[0].row, numbers.largest[0].predicted) == ("test: row 1", -4.0)
    assert sum(one.rows for one in numbers.ranges) == sum(one.rows for one in numbers.lengths) == 30
    assert [one.low for one in numbers.ranges] == sorted(one.low for one in numbers.ranges)
    assert found.baselines.majority.metric("r2") == pytest.approx(0, abs=0.02)
    assert found.baselines.tfidf.metric("r2") > 0.8
    assert found.baselines.majority.paired_difference["r2"].interval[0] > 0
    assert found.classes == []
    shown = number_report.section_values(found, "test", "r2")
    assert shown["scatter"].count("<circle") == 30
    assert "of 90.0\N{NO-BREAK SPACE}% of the documents (split conformal)" in shown["interval_text"]
    assert "too high on average" in shown["error_text"]
    nothing = found.model_copy(update={"numbers": numbers.model_copy(update={"interval": None})})
    assert number_text.explain_interval(nothing) == number_text.NO_INTERVAL


def test_a_train_split_without_a_word_has_the_mean(corpus):
    blank = Split("train", ["!"] * 60, corpus.train.labels, corpus.train.places, "train")
    empty = Corpus(("mood",), blank, corpus.validation, corpus.test, (), number=corpus.number)
    ridge = number_baselines.tfidf_ridge_baseline(empty)
    assert (ridge.logits == number_baselines.mean_baseline(empty).logits).all()
