"""An attention function for transformers' own classes, over rows that lie end to end as one row.

    ids (1, tokens) → the class's embeddings and layers over all tokens at once → states (1, tokens,
    hidden); each token looks only at those of its own row, as `FlatRows` says

It is registered under `NAME` in the table from which transformers' classes take their attention, so
that a class is computed by its own code, and needs no padding. Padded batches go on to
`scaled_dot_product_attention`, as they would without it.
"""

# torch's own functions for autograd are not typed.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from finetune.compute.packed_attention import MASKED, Layout, attend, attend_backward, attend_only
from finetune.compute.window_attention import attend_in_window

NAME = "rows_end_to_end"
BY_HAND_UP_TO = 512  # tokens of a row; above, the scores of all layers would fill the memory
# Of a group of rows, query and key (rows, heads, length, size) each → what their scores get added.
GroupBias = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class FlatRows:
    """Where the rows of a flat batch are. It takes the place of an attention mask.

    Attributes:
        count: of the rows.
        ends: where each row begins in the tokens, and the end; after the last row's comes what
            fills up to a round number of tokens. (rows + 2,) int32
        longest: tokens of the longest row.
        positions: of each token in its row, as the class counts them. (1, capacity)
        layout: the rows in groups of like length; None: `kernel` needs none.
        kernel: which of `KERNELS` computes the attention; None: groups of like length do.
        padded: the token at each place of a padded batch, for what takes no other, padding the
            last, which belongs to no row; None: nothing asks for it. (rows, longest)
        windows: what `window_bias` has made for this batch.
    """

    count: int
    ends: Tensor
    longest: int
    positions: Tensor
    layout: Layout | None
    kernel: str | None
    padded: Tensor | None = None
    windows: dict[int, Tensor] = field(default_factory=dict)

    @property
    def longest_group(self) -> int:
        """The length to which the rows of the longest group are padded for the attention."""
        assert self.layout is not None
        return max(group.length for group in self.layout.groups)

    def window_bias(self, window: int) -> Tensor:
        """0 for tokens that see each other, else `MASKED`; of longer rows, blocks are computed.

        All layers of a batch share it. (1, length, length)
        """
        if window not in self.windows:
            length = min(self.longest_group, max(BY_HAND_UP_TO, 2 * window))
            place = torch.arange(length, device=self.ends.device)
            far = (place[:, None] - place).abs() >= window
            seen = torch.zeros(far.shape, device=far.device).masked_fill_(far, MASKED)
            self.windows[window] = seen[None]
        return self.windows[window]


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    flat_rows: FlatRows | None = None,
    **named: Any,
) -> tuple[Tensor, None]:
    """transformers' interface: (rows, heads, tokens, size) each → (rows, tokens, heads, size).

    Args:
        flat_rows: of a flat batch, where there is one row.
        named: `sliding_window`: a token sees those that are less far away.
    """
    if flat_rows is None:
        mixed, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **named
        )
        return mixed, None
    repeat = query.shape[1] // key.shape[1]  # grouped queries share a key and a value
    key, value = (x.repeat_interleave(repeat, 1) if repeat > 1 else x for x in (key, value))
    rows = [x[0].transpose(0, 1) for x in (query, key, value)]  # (capacity, heads, size)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    window: int | None = named.get("sliding_window")
    if flat_rows.kernel is not None:
        mixed = _in_16_bits(KERNELS[flat_rows.kernel], rows, flat_rows, window, scale)
    else:
        seen = None if window is None else flat_rows.window_bias(window)
        mixed = attend_in_groups(rows, flat_rows, scale, dropout, seen, window=window)
    return mixed[None].to(value.dtype), None


def _in_16_bits(
    kernel: Callable[..., Tensor], rows: list[Tensor], flat: FlatRows, window: int | None,
    scale: float,
) -> Tensor:  # fmt: skip
    dtype = rows[2].dtype  # rotary positions may have made fp32 of the others
    if dtype == torch.float32:
        dtype = torch.get_autocast_dtype(rows[2].device.type)
    seen = (-1, -1) if window is None else (window - 1, window - 1)
    query, key, value = (x.to(dtype).contiguous() for x in rows)
    return kernel(query, key, value, flat.ends, flat.longest, scale, seen)


def _torch_varlen(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: int, scale: float,
    window: tuple[int, int],
) -> Tensor:  # fmt: skip
    from torch.nn.attention.varlen import varlen_attn

    mixed = varlen_attn(
        query, key, value, ends, ends, longest, longest, scale=scale, window_size=window
    )
    return cast(Tensor, mixed)


def _flash_attn(
    query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: int, scale: float,
    window: tuple[int, int],
) -> Tensor:  # fmt: skip
    from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found,unused-ignore]

    mixed: Tensor = flash_attn_varlen_func(
        query, key, value, ends, ends, longest, longest, softmax_scale=scale, window_size=window,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip
    return mixed


# Name → what computes the attention of rows of any lengths in bf16 or fp16 on CUDA:
# (capacity, heads, size) each → the same.
KERNELS: dict[str, Callable[..., Tensor]] = {"torch": _torch_varlen, "flash_attn": _flash_attn}


def find_kernel(head_size: int, precision: str) -> str | None:
    """The kernel for rows of any lengths that is installed and right on this GPU; None: none is."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    installed = {
        "torch": find_spec("torch.nn.attention.varlen"),  # from torch 2.10 on
        "flash_attn": find_spec("flash_attn"),
    }
    for name, kernel in KERNELS.items():
        if installed[name] is not None and is_right(kernel, head_size, dtype, "cuda"):
            return name
    return None


def is_right(
    kernel: Callable[..., Tensor], head_size: int, dtype: torch.dtype, device: str
) -> bool:
    """Whether a kernel gives three short rows their attention within a window, and its gradient."""
    ends, window, heads = [0, 9, 12, 16], 2, 2
    draw = torch.Generator().manual_seed(0)
    given = torch.randn(4, ends[-1], heads, head_size, generator=draw)
    query, key, value, d_mixed = given.to(device, dtype)
    place, row = torch.arange(ends[-1]), torch.repeat_interleave(torch.tensor(ends).diff())
    sees = (row[:, None] == row) & ((place[:, None] - place).abs() <= window)
    found = []
    for way in ("kernel", "reference"):
        inputs = [x.detach().clone().requires_grad_() for x in (query, key, value)]
        try:
            with torch.enable_grad():
                if way == "kernel":
                    places = torch.tensor(ends, dtype=torch.int32, device=device)
                    mixed = kernel(*inputs, places, 9, head_size**-0.5, (window, window))
                else:
                    one, other, own = (x.float().transpose(0, 1) for x in inputs)
                    looked = nn.functional.scaled_dot_product_attention(
                        one, other, own, sees.to(device)
                    )
                    mixed = looked.transpose(0, 1).to(dtype)
                found.append([mixed, *torch.autograd.grad(mixed, inputs, d_mixed)])
        except Exception:  # another GPU, another release, a head of another size
            return False
    near = (torch.allclose(a.float(), b.float(), atol=0.05) for a, b in zip(*found, strict=True))
    return all(near)


def attend_in_groups(
    rows: list[Tensor], flat: FlatRows, scale: float, dropout: float = 0.0,
    bias: Tensor | None = None, bias_of: GroupBias | None = None, window: int | None = None,
) -> Tensor:  # fmt: skip
    """Query, key and value, (capacity, heads, size) each → the same, in groups of like length.

    Args:
        bias: added to the scores of all rows, which take its first places.
            (heads or 1, longest_group, longest_group)
        bias_of: what makes a bias for the rows of each group.
        window: a token sees those that are less far away; `bias` has it for shorter rows.
    """
    layout, value = flat.layout, rows[2]
    assert layout is not None
    is_short = flat.longest_group <= BY_HAND_UP_TO
    if value.device.type == "cpu" and not dropout and is_short and bias_of is None:
        return _by_hand(rows, layout, scale, bias)
    places = [x.to(value.dtype).index_select(0, layout.spread) for x in rows]
    looked = []
    for group in layout.groups:
        here, shape = slice(group.start, group.end), (group.rows, group.length, *value.shape[1:])
        one, other, own_value = (x[here].view(shape).transpose(1, 2) for x in places)
        if window is not None and bias is not None and group.length > bias.shape[-1]:
            mixed = attend_in_window(one, other, own_value, group.mask, window, scale, dropout)
            looked.append(mixed.transpose(1, 2).flatten(0, 1))
            continue
        added = [] if group.mask is None else [group.mask]
        if bias is not None:
            added.append(bias[None, :, : group.length, : group.length])
        if bias_of is not None:
            added.append(bias_of(one, other))
        mixed = nn.functional.scaled_dot_product_attention(
            one, other, own_value, _added(added, value.dtype), dropout_p=dropout, scale=scale
        )
        looked.append(mixed.transpose(1, 2).flatten(0, 1))
    packed = torch.cat(looked).index_select(0, layout.gather)
    return nn.functional.pad(packed, (0, 0, 0, 0, 0, layout.capacity - layout.tokens))


def _added(parts: list[Tensor], dtype: torch.dtype) -> Tensor | None:
    """What is added to scores, in their precision: in fp16, `MASKED` would be minus infinity.

    A token of padding that sees padding alone would make NaN of that.
    """
    if not parts:
        return None
    first, *others = parts
    total = sum(others, first)
    return total.clamp(min=torch.finfo(dtype).min / 2).to(dtype)


def _by_hand(rows: list[Tensor], layout: Layout, scale: float, bias: Tensor | None) -> Tensor:
    query, key, value = rows
    size = query.shape[-1]
    query = query * (scale * size**0.5) if scale != size**-0.5 else query
    qkv = torch.stack([query.to(value.dtype), key.to(value.dtype), value], 1).flatten(1)
    learns = qkv.requires_grad or (bias is not None and bias.requires_grad)
    mixed: Tensor
    if learns and torch.is_grad_enabled():
        mixed = _Attend.apply(qkv, layout, value.shape[1], bias)
    else:
        mixed = attend_only(qkv, layout, value.shape[1], bias)
    return mixed.view(value.shape)


class _Attend(torch.autograd.Function):
    """`attend`, with its gradient by hand: (capacity, 3 × hidden) → (capacity, hidden)."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, layout: Layout, heads: int, bias: Tensor | None) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            mixed, attended = attend(qkv, layout, heads, bias)
        ctx.layout = layout
        ctx.shape = None if bias is None else bias.shape
        ctx.save_for_backward(*(part for group in attended for part in group))
        return mixed

    @staticmethod
    def backward(ctx: Any, d_mixed: Tensor) -> Any:
        saved = iter(ctx.saved_tensors)
        attended = list(zip(saved, saved, saved, saved, strict=True))  # four of each group
        d_bias = (
            d_mixed.new_zeros(ctx.shape, dtype=torch.float32) if ctx.needs_input_grad[3] else None
        )
        with torch.autocast("cpu", enabled=False):
            d_qkv = attend_backward(d_mixed.contiguous(), attended, ctx.layout, d_bias)
        return d_qkv, None, None, d_bias


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, sdpa_mask)
