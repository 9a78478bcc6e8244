"""Arrays reach a device whole, in one copy."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.runtime import device_copies

SHAPES = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), min_size=1, max_size=4)


@given(SHAPES)
def test_several_arrays_go_in_one_copy(shapes):
    arrays = [np.arange(np.prod(shape), dtype=np.int64).reshape(shape) for shape in shapes]
    copies = device_copies.copy_arrays(arrays, torch.device("meta"))
    assert [one.shape for one in copies] == [one.shape for one in arrays]
    assert {one.device.type for one in copies} == {"meta"}
    for one, array in zip(
        device_copies.copy_arrays(arrays, torch.device("cpu")), arrays, strict=True
    ):
        assert np.array_equal(one.numpy(), array)
        assert not array.size or np.shares_memory(one.numpy(), array)


def test_copies_do_not_block_from_pinned_memory_alone(monkeypatch):
    """On MPS, one that does not block may take what comes into the memory next."""
    asked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: asked.append("pinned") or self)
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *given, **named: asked.append((given, named)) or self
    )
    rows = np.arange(3)
    device_copies.copy_rows(rows, torch.device("cuda"))
    device_copies.copy_rows(rows, torch.device("mps"))
    assert asked == [
        "pinned",
        ((torch.device("cuda"),), {"non_blocking": True}),
        ((torch.device("mps"),), {}),
    ]
