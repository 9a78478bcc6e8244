"""A run's plain state goes through JSON and back, seen by all who hold it."""

import json

from finetune.training.run_state import RunState


def test_it_goes_through_json_and_back():
    state = RunState(trained=["a"], best={"loss": 0.5, "step": 3}, waited=2, rate_scale=0.25)
    held = RunState()
    assert held.run_id != state.run_id
    held.load(json.loads(json.dumps(state.to_json())))
    assert held == state
