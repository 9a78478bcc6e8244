"""Seconds by stage and by part of a step, of a host and of a device that works behind it."""

import torch

from finetune.runtime.cost_meter import CostMeter, StepTimer


def test_the_meter_counts_inner_stages_apart(monkeypatch):
    now = iter([0.0, 1.0, 3.0, 8.0, 9.0, 10.0])
    monkeypatch.setattr("finetune.runtime.cost_meter.time.perf_counter", lambda: next(now))
    meter = CostMeter()
    with meter("train"):
        meter.timed("validate", lambda: None)()
    found = meter.cost()
    assert found["seconds"] == {"train": 3.0, "validate": 5.0, "prepare": 2.0}
    assert found["peak_memory"] > 10**6


class Queue:
    """A device that works behind the host: what it is given takes time when one waits for it."""

    now = 0.0
    waited = 0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        Queue.now += 2.0
        self.at = Queue.now

    def synchronize(self):
        Queue.waited += 1

    def elapsed_time(self, later):
        return 1000 * (later.at - self.at)


def test_marks_of_a_device_that_works_behind_are_read_late(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Queue)
    monkeypatch.setattr(StepTimer, "MOST_OPEN", 5)
    timer = StepTimer(torch.device("cuda"))
    for part in ("data", "forward", "data", "forward"):
        timer.end_part(part)
    assert (timer.seconds, Queue.waited) == ({}, 0)
    timer.start()  # what came between is no part's
    timer.end_part("step")
    assert (timer.seconds, Queue.waited) == ({"data": 4.0, "forward": 4.0, "step": 2.0}, 1)
    assert timer.read() == timer.seconds
    assert sum(timer.seconds.values()) == 10


def test_marks_of_the_host(monkeypatch):
    now = iter([0.0, 1.0, 3.0, 8.0])
    monkeypatch.setattr("finetune.runtime.cost_meter.time.perf_counter", lambda: next(now))
    timer = StepTimer(torch.device("cpu"))
    for part in ("data", "forward", "data"):
        timer.end_part(part)
    assert timer.read() == {"data": 6.0, "forward": 2.0}
