"""Logits of several tasks → the scores of each are those of a model of that task alone."""

import numpy as np
import pytest

from finetune.evaluation import confusion, metrics
from finetune.evaluation.calibration import fit_temperature
from finetune.evaluation.probabilities import row_losses
from finetune.evaluation.scoring import compute_metrics
from finetune.evaluation.task_scores import TaskTemperatures, constant_guess_of_tasks, task_losses
from tests.unit.data.test_label_tasks import TASKS, drawn

WANTED = ("f1_macro", "accuracy", "log_loss")


def logits_of(outputs):
    return TASKS.log_odds([outputs[:, task.block] for task in TASKS])


def alone(outputs, labels, task):
    has = labels[:, task.block].any(axis=1)
    return outputs[has][:, task.block], labels[has][:, task.block].argmax(axis=1), has


def test_metrics_are_those_of_each_task_alone_and_their_mean():
    outputs, labels = drawn(1, rows=60)
    measured = metrics.load_metrics(WANTED, "f1_macro", False)
    found = compute_metrics(logits_of(outputs), labels, measured, scale=TASKS)
    for name in WANTED:
        of_tasks = []
        for task in TASKS:
            its, ids, _ = alone(outputs, labels, task)
            of_tasks.append(metrics.measure(measured, its, ids)[name])
            assert found[f"{task.name}.{name}"] == pytest.approx(of_tasks[-1])
        assert found[name] == pytest.approx(np.mean(of_tasks))
    assert metrics.is_better("topic.log_loss", {"topic.log_loss": 0.1}, {"topic.log_loss": 0.2})


def test_the_loss_is_the_weighted_mean_and_a_missing_label_costs_nothing():
    outputs, labels = drawn(2, rows=40)
    expected = np.zeros(len(labels))
    for task in TASKS:
        its, ids, has = alone(outputs, labels, task)
        expected[has] += task.weight / 1.5 * row_losses(its, ids)
    assert task_losses(logits_of(outputs), labels, TASKS) == pytest.approx(expected)
    even = constant_guess_of_tasks(np.eye(5, dtype=np.int8), np.ones(5), TASKS)
    weighted = 3 * np.log(3) / 1.5 + 2 * np.log(2) * 0.5 / 1.5
    assert even == pytest.approx(weighted / 5)


def test_each_task_has_the_temperature_of_it_alone():
    draw = np.random.default_rng(0)
    outputs, labels = drawn(3, rows=400, missing=0.1)
    outputs = 0.3 * outputs + 9 * labels * (draw.random((400, 5)) < 0.7)
    found = TaskTemperatures.fit(TASKS, logits_of(outputs), labels)
    assert not found.are_one
    divided = found.divide(logits_of(outputs))
    for task, one in zip(TASKS, found.each, strict=True):
        its, ids, _ = alone(outputs, labels, task)
        assert one.value == pytest.approx(fit_temperature(its, ids).value, rel=1e-6)
        assert found.value[task.block] == pytest.approx(one.value)
        expected = row_losses(its / one.value, ids)
        view, _ = TASKS.view(divided, labels, task)
        assert row_losses(view, ids) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_interval_of_the_mean_takes_the_tasks_together():
    """Of one task, it is about that of the task; of two equal ones, as wide; of two, narrower."""
    outputs, _ = drawn(4, rows=200)
    labels = np.zeros((200, 5), dtype=np.int8)
    of_topic = (outputs[:, :3] + 3 * np.random.default_rng(1).standard_normal((200, 3))).argmax(1)
    labels[np.arange(200), of_topic] = 1
    predicted = TASKS.predict(outputs)
    block = slice(0, 3)
    single = confusion.Confusion.from_labels(of_topic, predicted[:, block].argmax(axis=1), 3)
    for name in ("accuracy", "f1_macro"):
        alone = confusion.interval_of_tasks(name, labels, predicted, [block])
        assert alone == pytest.approx(single.interval(name), abs=0.015)
        twice = confusion.interval_of_tasks(name, labels, predicted, [block, block])
        assert twice == pytest.approx(alone)
    labels[np.arange(200), 3 + (outputs[:, 3] < 0.5)] = 1
    both = confusion.interval_of_tasks("accuracy", labels, predicted, [block, slice(3, 5)])
    assert both[1] - both[0] < alone[1] - alone[0]
