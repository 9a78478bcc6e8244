"""Scores by the values of a column: every document in one slice, and an honest test."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from finetune.data.corpus import Split
from finetune.data.identifiers import Ids
from finetune.data.places import Places, Shards
from finetune.evaluation import metrics, slices
from finetune.evaluation.analysis_model import Slicing
from finetune.evaluation.probabilities import predict_labels
from finetune.evaluation.scoring import Scores, compute_metrics
from finetune.evaluation.slice_comparison import Compared, compare_slices, find_worst
from finetune.tokenization.token_table import TokenTable


def scored(values, right, places=None, classes=2, multi_label=False, names=("accuracy",),
    ordered=False):  # fmt: skip
    """A split with a column, its tokens, and the logits of a model that has these rows right."""
    rows = len(values)
    labels = np.arange(rows) % classes
    answers = np.where(right, labels, (labels + 1) % classes)
    logits = (3 * np.eye(classes)[answers] - 1.5).astype(np.float32)
    if multi_label:
        labels = np.eye(classes, dtype=np.int8)[labels]
    split = Split(
        "test", ["a text"] * rows, labels, places or Places("x", range(rows), "row"), "x",
        attributes={"of": Ids.of(values)},
    )  # fmt: skip
    lengths = 3 + np.arange(rows) % 7
    starts = np.concatenate([[0], lengths.cumsum()])
    table = TokenTable(np.zeros(starts[-1], np.int32), starts, lengths, 0)
    measured = metrics.load_metrics([*names], "accuracy", False, multi_label=multi_label)
    compared = Compared.of_labels(labels, predict_labels(logits, multi_label), ordered)
    scores = Scores(logits, compute_metrics(logits, labels, measured))
    found = slices.score_slices(split, table, scores, measured, ["of"], compared)
    return [Slicing.model_validate(one) for one in found]


@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.integers(0, 99), st.sampled_from("abc")), st.booleans()),
        min_size=1, max_size=40,
    )
)  # fmt: skip
def test_every_document_is_in_one_slice_of_each_column(rows):
    values, right = zip(*rows, strict=True)
    by_column, by_length = scored(values, np.array(right))
    for one in (by_column, by_length):
        assert sum(part.rows for part in one.slices) == len(rows)
        assert len(one.slices) <= slices.MOST_VALUES
        hits = sum(part.rows * part.metric("accuracy") for part in one.slices)
        assert hits == pytest.approx(sum(right))
        for part in one.slices:
            low, high = part.intervals["accuracy"]
            assert low <= part.metric("accuracy") <= high


def test_the_worst_is_told_with_a_p_value_that_is_corrected_for_all_of_them():
    values = ["mail"] * 60 + ["web"] * 60 + ["phone"] * 60
    right = np.array([i % 10 < 9 for i in range(120)] + [i % 2 == 0 for i in range(60)])
    by_column, by_length = scored(values, right)
    assert [(part.value, part.rows) for part in by_column.slices] == [
        ("mail", 60), ("phone", 60), ("web", 60)]  # fmt: skip
    assert by_column.worst == "phone"
    phone = by_column.slices[1]
    assert phone.difference == pytest.approx(0.5 - 0.9)
    assert phone.difference_interval[1] < 0
    tests = len(by_column.slices) + len(by_length.slices)
    alone = stats.fisher_exact([[30, 30], [108, 12]]).pvalue
    assert phone.p_value == pytest.approx(tests * alone)
    assert by_length.kind == "length"
    assert all(part.p_value == 1 for part in by_length.slices)


def test_where_nothing_differs_few_reports_say_so():
    draw = np.random.default_rng(0)
    said = 0
    for _ in range(60):
        found = scored([*draw.integers(0, 6, 150).tolist()], draw.random(150) < 0.8, names=())
        said += any(part.p_value < 0.05 for one in found for part in one.slices)
    assert said <= 6  # of 60, 3 are expected at most


def test_numbers_and_times_are_bucketed_and_many_values_are_the_most_frequent():
    numbers, _ = scored([str(i / 2) for i in range(100)], np.ones(100, bool))
    assert numbers.slices[0].value == "0.0 to 9.5"
    assert [part.rows for part in numbers.slices] == [20] * 5
    days = [f"2024-0{1 + i % 9}-{1 + i % 28:02}" for i in range(100)]
    times, _ = scored([*days, None], np.ones(101, bool))
    assert times.slices[-1].value == "no value"
    assert times.slices[0].value.startswith("2024-01-0")
    words, _ = scored(["often"] * 50 + [f"w{i}" for i in range(50)], np.ones(100, bool))
    assert words.slices[0].value == "often"
    assert words.slices[-1].value == "other values (32)"
    assert len(words.slices) == 20


def test_files_are_slices_where_there_are_several():
    places = Places(
        "a.csv and 1 more",
        Shards([Places("a.csv", range(1, 5), "row"), Places("b.csv", range(1, 7), "row")]),
    ).take([0, 3, 4, 5, 9])
    *_, by_file = scored([None] * 5, np.ones(5, bool), places)
    assert (by_file.by, by_file.kind) == ("file", "file")
    assert [(part.value, part.rows) for part in by_file.slices] == [("b.csv", 3), ("a.csv", 2)]
    assert len(scored([None] * 5, np.ones(5, bool))) == 2


def test_several_labels_and_one_slice_alone():
    names = ("accuracy", "f1_macro", "log_loss")
    by_column, _ = scored(["x"] * 8, np.arange(8) < 6, None, 3, True, names)
    (only,) = by_column.slices
    assert (only.metric("accuracy"), only.difference, only.p_value) == (0.75, None, None)
    assert by_column.worst is None
    assert {*only.intervals} == {*names, "loss"}
    assert 0.7 < only.metric("f1_macro") < 0.8


def test_ordered_labels_are_compared_by_how_far_they_are_off():
    """The slices are right equally often, and one is off by more."""
    draw, slice_of = np.random.default_rng(1), np.arange(120) % 3
    labels = draw.integers(0, 5, 120)
    wrong = np.arange(120) % 2
    predicted = np.where(slice_of == 2, (labels + 2 * wrong) % 5, labels)
    predicted = np.where(slice_of < 2, np.clip(labels + wrong, 0, 4), predicted)
    compared = Compared.of_labels(labels, predicted, ordered=True)
    found = compare_slices(compared, slice_of, 3)
    errors = np.abs(predicted - labels)
    for index, one in enumerate(found):
        inside = slice_of == index
        gap = errors[inside].mean() - errors[~inside].mean()
        assert one["difference"] == pytest.approx(gap)
        welch = stats.ttest_ind(errors[inside], errors[~inside], equal_var=False)
        assert one["difference_interval"] == pytest.approx(tuple(welch.confidence_interval()))
        exact = stats.permutation_test(
            (errors[inside], errors[~inside]), lambda a, b, axis: a.mean(axis) - b.mean(axis),
            vectorized=True, n_resamples=4000, random_state=0,
        ).pvalue  # fmt: skip
        assert one["p_value"] == pytest.approx(exact, abs=0.03)
    named = [{"value": str(i)} | one for i, one in enumerate(found)]
    assert find_worst(named, compared) == "2"
    assert found[2]["p_value"] < 0.01


def test_numbers_that_nothing_tells_apart():
    compared = Compared.of_numbers(np.zeros(6), np.ones(6))
    for one in compare_slices(compared, np.array([0, 0, 0, 1, 1, 2]), 3):
        assert (one["difference"], one["difference_interval"], one["p_value"]) == (0, None, 1)
    (alone,) = compare_slices(compared, np.zeros(6, int), 1)
    assert alone["p_value"] is None
    assert find_worst([{"value": "x"} | alone], compared) is None


def test_where_errors_do_not_differ_few_tests_say_so():
    draw, said = np.random.default_rng(0), 0
    for _ in range(60):
        compared = Compared.of_numbers(np.zeros(90), draw.lognormal(size=90))
        chances = [one["p_value"] for one in compare_slices(compared, draw.integers(0, 3, 90), 3)]
        said += min(chances) < 0.05 / 3
    assert said <= 6
