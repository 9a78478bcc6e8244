"""Random states, put back, draw the same numbers again."""

import random

import numpy as np
import torch

from finetune.runtime import random_states

CPU = torch.device("cpu")


def drawn():
    return random.random(), np.random.rand(), torch.rand(3).tolist()


def test_the_same_numbers_are_drawn_again():
    states = random_states.get_random_states(CPU)
    first = drawn()
    assert drawn() != first
    random_states.set_random_states(states, CPU)
    assert drawn() == first


def test_a_device_s_own_state_is_put_back_too(monkeypatch):
    kept = [torch.tensor([7], dtype=torch.uint8)]
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: kept[0])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: kept.append(state))
    states = random_states.get_random_states(torch.device("cuda"))
    random_states.set_random_states(states, torch.device("cuda"))
    assert kept[1] is kept[0]
