"""metrics.jsonl: a line an event, cut back to what a checkpoint remembers."""

import json
import math

from accelerate import Accelerator

from finetune.training.event_log import EventLog, tracked_name


def test_lines_are_added_and_cut(tmp_path):
    events = EventLog(tmp_path, Accelerator(cpu=True))
    assert events.synced_size() == 0
    events.write("train", 1, {"loss": 0.5, "grad_norm": math.nan})
    size = events.synced_size()
    events.stage = 2
    events.write("validation", 1, {"accuracy": 1.0})
    first, second = map(json.loads, events.file.read_text().splitlines())
    assert first == {"kind": "train", "step": 1, "loss": 0.5, "grad_norm": None}
    assert second == {"kind": "validation", "step": 1, "accuracy": 1.0, "stage": 2}
    assert events.truncate(size)
    assert len(events.file.read_text().splitlines()) == 1
    assert not events.truncate(size + 1)


def test_trackers_are_given_names_that_they_take():
    assert tracked_name("validation", "f1_macro") == "validation/f1_macro"
    assert tracked_name("test", "topic (old): #1.accuracy") == "test/topic _old__ _1.accuracy"
