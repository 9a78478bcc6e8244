"""Copies that stay what they were when training changes the tensors that they were made of."""

import torch

from finetune.runtime import held_tensors
from finetune.runtime.held_tensors import hold_tensors


def test_copies_stay_as_they_were():
    tensors = {"w": torch.arange(6.0).view(2, 3).T, "n": torch.tensor(3)}
    held = hold_tensors(tensors)
    for value in tensors.values():
        value.add_(1)
    copies = held()
    assert torch.equal(copies["w"], torch.arange(6.0).view(2, 3).T)
    assert copies["w"].is_contiguous()
    assert copies["n"] == 3
    assert hold_tensors({})() == {}


def test_no_copy_where_there_is_no_room(monkeypatch):
    tensors = {"w": torch.zeros(1000)}
    for bytes_left, fits in ((5999, False), (6000, True), (None, True)):
        monkeypatch.setattr(held_tensors, "available_memory", lambda n=bytes_left: n)
        assert (hold_tensors(tensors) is not None) == fits
