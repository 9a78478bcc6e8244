"""Attention in blocks is the attention that sees all tokens and masks what is too far away."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.compute.packed_attention import MASKED
from finetune.compute.window_attention import attend_in_window


@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=3),
    window=st.integers(1, 30),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_blocks_compute_what_a_mask_does(lengths, window, seed):
    longest, heads, size = max(lengths), 2, 4
    draw = torch.Generator().manual_seed(seed)
    shape = len(lengths), heads, longest, size
    inputs = [torch.randn(shape, generator=draw).requires_grad_() for _ in range(3)]
    real = torch.arange(longest) < torch.tensor(lengths)[:, None]
    mask = None if real.all() else torch.where(real, 0.0, MASKED)[:, None, None]
    place = torch.arange(longest)
    near = (place[:, None] - place).abs() < window
    seen = near & real[:, None, None]
    seen = seen | torch.eye(longest, dtype=torch.bool)  # padding sees itself
    expected = torch.nn.functional.scaled_dot_product_attention(*inputs, seen, scale=0.3)
    found = attend_in_window(*inputs, mask, window, 0.3)
    kept = real[:, None, :, None]
    torch.testing.assert_close(found * kept, expected * kept)
    weights = torch.randn(shape, generator=draw) * kept
    gradients = (torch.autograd.grad((x * weights).sum(), inputs) for x in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_padding_alone_is_finite_in_16_bits(dtype):
    inputs = [torch.randn(2, 1, 40, 4).to(dtype) for _ in range(3)]
    mask = torch.full((2, 1, 1, 40), MASKED)
    mask[..., :1] = 0
    assert attend_in_window(*inputs, mask, 3, 0.5).isfinite().all()
