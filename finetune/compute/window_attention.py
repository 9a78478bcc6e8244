"""Attention within a sliding window, in blocks: its cost grows with the tokens, not their square.

    query, key, value (rows, heads, length, size) → (rows, heads, length, size)

The tokens are cut into blocks as long as the window reaches, so that those of a block see none
beyond the two next to it (local attention as Longformer has it, Beltagy et al. 2020, arXiv
2004.05150). A row of 8,192 tokens with a window of 65 computes 195 scores a token instead of 8,192.
"""

import torch
from torch import Tensor, nn

from finetune.compute.packed_attention import MASKED


def attend_in_window(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, window: int, scale: float,
    dropout: float = 0.0,
) -> Tensor:  # fmt: skip
    """A token sees those of its row that are less far away than `window`.

    Args:
        mask: (rows, 1, 1, length), 0 for a real token and `MASKED` for padding; None: all real.
    """
    rows, heads, length, size = query.shape
    blocks = -(-length // window)
    rest = blocks * window - length
    asking = nn.functional.pad(query, (0, 0, 0, rest)).view(rows, heads, blocks, window, size)
    around = window, window + rest
    keys, values = (
        nn.functional.pad(x, (0, 0, *around)).unfold(2, 3 * window, window).permute(0, 2, 1, 4, 3)
        for x in (key, value)
    )  # (rows, blocks, heads, 3 × window, size)
    bias = _bias(mask, rows, length, window, query)
    mixed = nn.functional.scaled_dot_product_attention(
        asking.transpose(1, 2).flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1), bias,
        dropout_p=dropout, scale=scale,
    )  # fmt: skip
    whole = mixed.view(rows, blocks, heads, window, size).transpose(1, 2).flatten(2, 3)
    return whole[:, :, :length]


def _bias(mask: Tensor | None, rows: int, length: int, window: int, like: Tensor) -> Tensor:
    """What the scores of each block get added. (rows × blocks, 1, window, 3 × window)"""
    real = mask[:, 0, 0].float() if mask is not None else like.new_zeros(rows, length).float()
    rest = -length % window
    near = nn.functional.pad(real, (window, window + rest), value=MASKED)
    near = near.unfold(1, 3 * window, window).flatten(0, 1)[:, None, None]
    place = torch.arange(3 * window, device=like.device)
    far = (place[window : 2 * window, None] - place).abs() >= window
    # MASKED would be minus infinity in fp16: NaN for padding that sees padding alone.
    least = torch.finfo(like.dtype).min / 2
    return near.masked_fill(far, MASKED).clamp(min=least).to(like.dtype)
