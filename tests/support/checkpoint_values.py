"""Plain values of a checkpoint, as a run writes them."""

import random

import numpy as np

from finetune.training import train_state
from finetune.training.run_state import RunState


def plain_values(**state):
    """A valid `state.json` without its format; `state` sets values of the run's state."""
    random.seed(0)
    np.random.seed(0)
    counts = dict.fromkeys(
        ("steps", "clipped", "rows", "tokens", "rows_before", "tokens_before"), 0
    )
    return {
        "identity": {
            "recipe": {"data": {"source": "rows.csv"}}, "derived": [],
            "data": {"labels": ["a", "b"], "splits": {"train": {"rows": 2, "hash": "00"}}},
            "tokens": "00", "encoder": {}, "start": "00", "ends": [],
        },
        "state": RunState(**state).to_json(),
        "metrics_bytes": 0, "num_processes": 1, "sharded": False, "versions": {"torch": "2.6"},
        "log": counts | {"seconds": 0.5, "seconds_before": 0.0},
        "processes": [train_state._python_rng()], "scaler": None,
    }  # fmt: skip
