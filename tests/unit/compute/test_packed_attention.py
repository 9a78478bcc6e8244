"""Attention over packed rows against torch's own, row by row."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from finetune.compute import packed_attention

HEADS, SIZE = 2, 4
LENGTHS = np.array([20, 17, 5, 3, 1])


def drawn(layout, width):
    """Packed rows of random numbers; zeros where no token is. (room, width)"""
    packed = torch.randn(layout.capacity, width, generator=torch.Generator().manual_seed(0))
    packed[layout.tokens :] = 0
    return packed


def one_row_at_a_time(qkv):
    """(tokens, 3 × hidden) → (tokens, hidden)"""
    mixed = []
    for row in qkv.split(LENGTHS.tolist()):
        query, key, value = row.view(-1, 3, HEADS, SIZE).permute(1, 2, 0, 3)
        looked = F.scaled_dot_product_attention(query, key, value)  # (heads, tokens, size)
        mixed.append(looked.transpose(0, 1).flatten(1))
    return torch.cat(mixed)


def test_each_row_attends_to_itself_alone():
    layout = packed_attention.layout(LENGTHS)
    qkv = drawn(layout, 3 * HEADS * SIZE)
    expected = one_row_at_a_time(qkv[: layout.tokens])
    mixed, _ = packed_attention.attend(qkv, layout, HEADS)
    for packed in (mixed, packed_attention.attend_only(qkv, layout, HEADS)):
        torch.testing.assert_close(packed[: layout.tokens], expected)
        assert not packed[layout.tokens :].any()


def test_the_gradient_is_that_of_autograd():
    layout = packed_attention.layout(LENGTHS)
    qkv, gradient = drawn(layout, 3 * HEADS * SIZE), drawn(layout, HEADS * SIZE)
    plain = qkv[: layout.tokens].clone().requires_grad_()
    one_row_at_a_time(plain).backward(gradient[: layout.tokens])
    _, attended = packed_attention.attend(qkv, layout, HEADS)
    found = packed_attention.attend_backward(gradient, attended, layout)
    torch.testing.assert_close(found[: layout.tokens], plain.grad)


@pytest.mark.parametrize("lengths", [[1], [16, 16], [40, 33, 2]])
def test_packed_rows_come_back_from_their_groups(lengths):
    layout = packed_attention.layout(np.array(lengths))
    packed = drawn(layout, 3)
    assert layout.tokens == sum(lengths)
    assert torch.equal(layout.to_packed(layout.to_groups(packed)), packed)
