"""Which tokens see each other: rows end to end, and in padded groups of like length for attention.

    qkv (tokens, 3 × hidden), layout → each token's mix of its own row's values (tokens, hidden)

The backward pass is written by hand, as is that of the layer around it (`packed_layer.py`).
"""

# torch's own functions for autograd are not typed.
# mypy: disable-error-code="no-untyped-call"

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finetune.tokenization.token_table import Rows

ROUND = 64  # packed tokens are filled up to a multiple: the libraries plan each shape anew
FEW, ROUND_FEW = 1024, 32  # the multiple without a gradient up to so many: 64 would be much of them
AT_ONCE = 512**2  # rows × length² whose attention is computed at once: what caches hold
MASKED = -1e30  # not -inf, of which a row of padding alone would make NaN


@dataclass(frozen=True)
class Group:
    """Some rows of like length, padded to one length for the attention.

    Attributes:
        start: where its padded tokens begin among those of all groups.
        mask: (rows, 1, 1, length), 0 for a real token and -inf for padding; None: all real.
    """

    start: int
    rows: int
    length: int
    mask: Tensor | None

    @property
    def end(self) -> int:
        return self.start + self.rows * self.length


@dataclass(frozen=True)
class Layout:
    """The places of the tokens of some rows: end to end without padding, and in padded groups.

    Attributes:
        groups: in the order of the rows.
        spread: the packed token at each place of the groups; padding takes the
            packed tokens' last, which belongs to no row. (places,)
        gather: the place in the groups of each packed token. (tokens,)
        tokens: how many packed ones there are, without those that fill up to a round number.
        capacity: the same with them.
        only: the packed tokens whose states are asked for, such as each row's first; None: all.
            (asked,)
    """

    groups: tuple[Group, ...]
    spread: Tensor
    gather: Tensor
    tokens: int
    capacity: int
    only: Tensor | None = None

    def to_groups(self, packed: Tensor) -> Tensor:
        """(capacity, …) → (places, …)"""
        return packed.index_select(0, self.spread)

    def to_packed(self, places: Tensor) -> Tensor:
        """(places, …) → (capacity, …), zeros where no token is."""
        packed = places.new_empty(self.capacity, *places.shape[1:])
        torch.index_select(places, 0, self.gather, out=packed[: self.tokens])
        packed[self.tokens :] = 0
        return packed

    def choose(self, packed: Tensor) -> Tensor:
        """Those that are asked for: (capacity, …) → (asked, …) or, of all, as they are."""
        return packed if self.only is None else packed.index_select(0, self.only)

    def put_back(self, chosen: Tensor) -> Tensor:
        """The gradient of `choose`: (asked, …) → (capacity, …), zeros elsewhere."""
        if self.only is None:
            return chosen
        packed = chosen.new_zeros(self.capacity, *chosen.shape[1:])
        return packed.index_copy_(0, self.only, chosen)


def layout(lengths: Rows, multiple: int | None = None, at_once: int = AT_ONCE) -> Layout:
    """The places of the tokens of rows of these lengths, filled up to such a multiple.

    Args:
        multiple: None: as `ROUND` and `ROUND_FEW` say.
        at_once: rows × length² of the largest group of several rows.
    """
    groups, places, start = [], [], 0
    for first, last, length in like_lengths(lengths, at_once):
        mask = np.arange(length) < lengths[first:last, None]  # (rows, length)
        scores = torch.from_numpy(np.where(mask, 0, MASKED).astype(np.float32))[:, None, None]
        group = Group(start, last - first, length, None if mask.all() else scores)
        groups.append(group)
        places.append(mask.ravel())
        start = group.end
    real = np.concatenate(places)
    tokens = int(real.sum())
    if multiple is None:
        multiple = ROUND if torch.is_grad_enabled() or tokens >= FEW else ROUND_FEW
    capacity = -(-(tokens + 1) // multiple) * multiple
    spread = np.full(len(real), capacity - 1)
    spread[real] = np.arange(tokens)
    gather = np.flatnonzero(real)
    return Layout(
        tuple(groups), torch.from_numpy(spread), torch.from_numpy(gather), tokens, capacity
    )


def like_lengths(lengths: Rows, at_once: int = AT_ONCE) -> Iterator[tuple[int, int, int]]:
    """Rows that follow each other and are padded to one length, for the attention only.

    Few lengths, of which vector instructions leave no rest: for the backward pass fewer.
    """
    step = 32 if torch.is_grad_enabled() else 16
    padded = np.where(lengths > 16, -(-lengths // step) * step, 16)
    start = 0
    for length, run in itertools.groupby(int(length) for length in padded):
        end, most = start + len(list(run)), max(1, at_once // length**2)
        for first in range(start, end, most):
            yield first, min(first + most, end), length
        start = end


Attended = list[tuple[Tensor, Tensor, Tensor, Tensor]]  # of each group: query, key, value, shares


def attend_only(qkv: Tensor, layout: Layout, heads: int, bias: Tensor | None = None) -> Tensor:
    """Each row's tokens look at each other: (capacity, 3 × hidden) → (capacity, hidden).

    Args:
        bias: added to the scores of each row, by the places of two tokens in it; the longest
            row's, of which shorter ones take the first places. (heads or 1, longest, longest)
    """
    size = qkv.shape[1] // (3 * heads)
    places = layout.to_groups(qkv)  # (places, 3 × hidden)
    result = places.new_empty(len(places), heads * size)
    for group in layout.groups:
        here, rows, length = slice(group.start, group.end), group.rows, group.length
        # Views, each (rows, heads, length, size).
        query, key, value = places[here].view(rows, length, 3, heads, size).permute(2, 0, 3, 1, 4)
        mask = group.mask
        if bias is not None:
            own = bias[:, :length, :length].to(query.dtype)
            mask = own[None] if mask is None else mask + own
        looked = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask)
        result[here].view(rows, length, heads, size).copy_(looked.transpose(1, 2))
    return layout.to_packed(result)


def attend(
    qkv: Tensor, layout: Layout, heads: int, bias: Tensor | None = None
) -> tuple[Tensor, Attended]:
    """`attend_only`, with what its gradient needs.

    In plain products: on CPUs they are faster than the fused kernel, whose backward in bf16 took 5
    times as long at 56 tokens a row, and twice as long at 512.
    """
    size = qkv.shape[1] // (3 * heads)
    places = layout.to_groups(qkv)  # (places, 3 × hidden)
    result = places.new_empty(len(places), heads * size)
    attended: Attended = []
    for group in layout.groups:
        here, shape = slice(group.start, group.end), (group.rows, group.length, 3, heads, size)
        query, key, value = (
            places[here].view(shape).permute(2, 0, 3, 1, 4).reshape(3, -1, group.length, size)
        )  # each (rows × heads, length, size)
        shares = query.new_empty(len(query), group.length, group.length)
        torch.baddbmm(shares, query, key.mT, beta=0, alpha=size**-0.5, out=shares)
        if bias is not None:
            scores = shares.view(group.rows, heads, group.length, -1)
            scores.add_(bias[:, : group.length, : group.length])
        if group.mask is not None:
            shares.view(group.rows, heads, group.length, -1).add_(group.mask)
        torch.softmax(shares, -1, out=shares)
        looked = torch.bmm(shares, value).view(group.rows, heads, group.length, size)
        result[here].view(group.rows, group.length, heads, size).copy_(looked.transpose(1, 2))
        attended.append((query, key, value, shares))
    return layout.to_packed(result), attended


def attend_backward(
    d_mixed: Tensor, attended: Attended, layout: Layout, d_bias: Tensor | None = None
) -> Tensor:
    """The gradient of `attend`'s input: (capacity, hidden) → (capacity, 3 × hidden).

    Args:
        d_bias: what the bias's gradient is added to, where it has one. (heads, longest, longest)
    """
    d_places = layout.to_groups(d_mixed)
    result = d_places.new_empty(len(d_places), 3 * d_places.shape[1])
    for group, (query, key, value, shares) in zip(layout.groups, attended, strict=True):
        here, size = slice(group.start, group.end), query.shape[-1]
        rows, length = group.rows, group.length
        heads = len(query) // rows
        d_looked = (
            d_places[here].view(rows, length, heads, size).transpose(1, 2).reshape(query.shape)
        )
        d_value = torch.bmm(shares.mT, d_looked)
        d_shares = torch.bmm(d_looked, value.mT)
        d_scores = torch._softmax_backward_data(
            d_shares, shares, -1, shares.dtype, grad_input=d_shares
        )
        if d_bias is not None:
            d_bias[:, :length, :length] += d_scores.view(rows, heads, length, length).sum(
                0, dtype=torch.float32
            )
        # Not `empty_like`: the query of a row alone is a view, and into its strides each head's
        # product would be computed by itself.
        d_query, d_key = (query.new_empty(query.shape) for _ in range(2))
        torch.baddbmm(d_query, d_scores, key, beta=0, alpha=size**-0.5, out=d_query)
        torch.baddbmm(d_key, d_scores.mT, query, beta=0, alpha=size**-0.5, out=d_key)
        to = result[here].view(rows, length, 3, heads, size).permute(2, 0, 3, 1, 4)
        for part, gradient in zip(to, (d_query, d_key, d_value), strict=True):
            part.copy_(gradient.view(part.shape))
    return layout.to_packed(result)
