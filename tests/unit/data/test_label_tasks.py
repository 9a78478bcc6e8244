"""Several label columns → the blocks of one label space, and what each task is of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.config.schema import Data
from finetune.data.label_cells import name_tasks
from finetune.data.label_tasks import Tasks, check_task_labels, order_tasks
from finetune.data.prepare import prepare_corpus
from finetune.data.sources import load_rows
from finetune.evaluation.probabilities import sigmoid, softmax
from finetune.evaluation.task_analysis import task_corpus
from finetune.runtime.errors import InputError

SPACE = ("topic: art", "topic: sport", "topic: war", "urgent: no", "urgent: yes")
TASKS = Tasks.of(SPACE, {"topic": 1.0, "urgent": 0.5})


def drawn(seed, rows=7, missing=0.3):
    """Outputs of a head, and labels, of which some are missing."""
    draw = np.random.default_rng(seed)
    labels = np.zeros((rows, 5), dtype=np.int8)
    for row in labels:
        for task in TASKS:
            if draw.random() > missing:
                row[task.first + draw.integers(len(task.labels))] = 1
    return 5 * draw.standard_normal((rows, 5)), labels


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_log_odds_hold_the_softmax_of_each_task(seed):
    outputs, labels = drawn(seed)
    logits = TASKS.log_odds([outputs[:, task.block] for task in TASKS])
    predicted = TASKS.predict(logits)
    for number, task in enumerate(TASKS):
        expected = softmax(outputs[:, task.block])
        assert sigmoid(logits)[:, task.block] == pytest.approx(expected, abs=1e-12)
        assert np.exp(TASKS.log_probabilities(logits, task)) == pytest.approx(expected, abs=1e-12)
        assert (predicted[:, task.block].sum(axis=1) == 1).all()
        assert (TASKS.choose(logits)[:, number] == expected.argmax(axis=1)).all()
        wide, ids = TASKS.view(logits, labels, task)
        has = labels[:, task.block].any(axis=1)
        assert len(wide) == len(ids) == has.sum()
        assert (ids == labels[has][:, task.block].argmax(axis=1)).all()


def test_equal_logits_still_give_one_label_of_each_task():
    assert TASKS.predict(np.zeros((2, 5))).tolist() == [[1, 0, 0, 1, 0]] * 2


def test_the_config_holds_the_tasks_in_their_order():
    given = TASKS.as_config()
    assert [one["name"] for one in given] == ["topic", "urgent"]
    assert Tasks.of_config(given, SPACE) == TASKS
    for wrong in (
        given[:1],
        given[::-1],
        [given[0] | {"labels": 2}, given[1]],
        [],
    ):
        with pytest.raises(ValueError, match="expected the tasks"):
            Tasks.of_config(wrong, SPACE)


def test_the_label_space_is_in_the_order_of_the_tasks():
    mixed = ("a: x", "A: y", "a: z", "A: w")
    assert order_tasks(mixed, {"A": 1, "a": 1}) == ("A: y", "A: w", "a: x", "a: z")
    assert order_tasks(mixed, {}) == mixed
    assert Tasks.of(mixed, {}) is None


def test_cells_are_named_after_their_columns():
    cells = [("art", True), (" war ", None), (None, None), (3, False), ("", "yes")]
    sets, problems = name_tasks(cells, ("topic", "urgent"), lambda i: f"row {i}")
    assert sets == [
        ("topic: art", "urgent: true"),
        ("topic: war",),
        None,
        ("topic: 3", "urgent: false"),
        ("urgent: yes",),
    ]
    assert problems == []
    _, problems = name_tasks([(["a"], 1.5)], ("topic", "urgent"), lambda i: f"row {i}")
    assert problems == [
        "data.tasks: expected labels that are text, whole numbers or true or false, got a list "
        "[\"a\"] in 'topic' at row 0, 1.5 in 'urgent' at row 0"
    ]


def test_each_task_needs_labels():
    labels = np.eye(5, dtype=np.int8)
    check_task_labels(TASKS, {"train": labels, "test": None})
    one = Tasks.of(SPACE[:4], {"topic": 1.0, "urgent": 1.0})
    with pytest.raises(
        InputError, match=r"2 labels or more in 'urgent' \(data.tasks\), found 'no'"
    ):
        check_task_labels(one, {"train": labels[:, :4]})
    with pytest.raises(InputError, match=r"validation: no row has a label in 'urgent'"):
        check_task_labels(TASKS, {"train": labels, "validation": labels[:3]})
    names = tuple(f"id: {i:03}" for i in range(60))
    many = Tasks.of((*names, *SPACE[3:]), {"id": 1.0, "urgent": 1.0})
    wide = np.c_[np.eye(60, dtype=np.int8), np.ones(60, np.int8), np.zeros(60, np.int8)]
    with pytest.raises(InputError, match="60 different labels in 'id' in 60 rows"):
        check_task_labels(many, {"train": wide})


def test_rows_of_one_text_conflict_where_a_task_has_two_labels_of_it(tmp_path):
    rows = [
        ("same", "art", ""),
        ("same", "", "yes"),
        ("other", "art", "no"),
        ("other", "war", "no"),
    ]
    rows += [(f"text {i}", ("art", "war")[i % 2], ("yes", "no")[i % 2]) for i in range(60)]
    file = tmp_path / "rows.csv"
    file.write_text("text,topic,urgent\n" + "".join(f"{','.join(row)}\n" for row in rows))
    data = Data(source=str(file), tasks=("topic", "urgent"))
    corpus = prepare_corpus(load_rows(data), data)
    (found,) = [one for one in corpus.findings if one.kind == "conflicting labels"]
    assert (found.count, [place.rpartition(" ")[2] for place in found.places]) == (2, ["3", "4"])
    missing = [one for one in corpus.findings if one.kind == "no label of a task"]
    assert [(one.count, one.other) for one in missing] == [(1, "'topic'"), (1, "'urgent'")]
    assert corpus.tasks.names == ("topic", "urgent")
    assert corpus.train.labels.sum() < 2 * len(corpus.train)
    urgent = corpus.tasks.each[1]
    alone = task_corpus(corpus, urgent)
    assert (alone.labels, alone.tasks, alone.multi_label) == (("no", "yes"), None, False)
    has = corpus.train.labels[:, urgent.block].any(axis=1)
    assert len(alone.train) == has.sum()
    assert alone.train.labels.tolist() == corpus.train.labels[has][:, urgent.first + 1].tolist()
    assert [*alone.train.texts] == [corpus.train.texts[int(i)] for i in np.flatnonzero(has)]
