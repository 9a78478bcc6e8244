"""Trackers that are not installed are named before anything starts."""

import pytest

from finetune.runtime.errors import InputError
from finetune.training import trackers


def test_what_is_not_installed_is_named(monkeypatch):
    trackers.validate_trackers([])
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        trackers.validate_trackers(["wandb", "trackio"])
    assert caught.value.problems == (
        "run.trackers: 'wandb' is not installed here; run: pip install wandb",
        "run.trackers: 'trackio' is not installed here; run: pip install trackio",
    )
