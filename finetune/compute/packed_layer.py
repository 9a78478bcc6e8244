"""One layer of a BERT-like encoder over many rows without padding, with its gradient by hand.

A layer of BERT (Devlin et al. 2019, after Vaswani et al. 2017) spends nearly all its time in the
products with its weights. Here they run once over the tokens of all rows, end to end; only the
attention between a row's own tokens sees rows as such, in groups of like length:

    x    (tokens, hidden)
    y    = norm(x + out(attention(query(x), key(x), value(x))))
    next = norm(y + down(gelu(up(y))))

The backward pass is written out so that query, key and value are one product, no mask or dropout is
computed that changes nothing, and what is frozen costs nothing. Weights stay fp32; under autocast
they are cast once for as long as they do not change.
"""

# torch's own functions for autograd are not typed.
# mypy: disable-error-code="no-untyped-call,misc"

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from finetune.compute.packed_attention import Layout, attend, attend_backward, attend_only

gelu_backward = torch.ops.aten.gelu_backward
norm_backward = torch.ops.aten.native_layer_norm_backward


@dataclass(frozen=True)
class Parts:
    """The modules of one layer, whichever names the architecture gives them."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    first_norm: nn.LayerNorm
    up: nn.Linear
    down: nn.Linear
    second_norm: nn.LayerNorm
    heads: int

    def linear(self) -> tuple[nn.Module, ...]:
        return (
            self.query, self.key, self.value, self.out, self.first_norm,
            self.up, self.down, self.second_norm,
        )  # fmt: skip

    def parameters(self) -> list[Tensor]:
        """Weight and bias of each part, in the order of the fields. 16 tensors"""
        return [p for part in self.linear() for p in (part.weight, part.bias)]


class Weights(NamedTuple):
    """A layer's weights as they are computed with: (out, in), and (out,)."""

    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    out_bias: Tensor
    norm1: Tensor
    norm1_bias: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor
    norm2: Tensor
    norm2_bias: Tensor


class PackedLayer:
    """A layer's parts, and their weights in the precision that is computed in."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._cast: Weights
        self._cast_of: object = None

    def __call__(self, states: Tensor, layout: Layout, dtype: torch.dtype) -> Tensor:
        """(room, hidden) → (room, hidden), with products in `dtype`.

        Where the layer learns, states are fp32; else they are in `dtype` too.
        """
        parameters = self.parts.parameters()
        weights = self._weights(parameters, dtype)
        eps = self.parts.first_norm.eps, self.parts.second_norm.eps
        learns = states.requires_grad or any(p.requires_grad for p in parameters)
        if not (learns and torch.is_grad_enabled()):
            return only_forward(states.to(dtype), layout, weights, self.parts.heads, eps)
        heads = self.parts.heads
        result: Tensor = _Layer.apply(states.float(), layout, weights, heads, eps, *parameters)
        return result

    def _weights(self, parameters: Sequence[Tensor], dtype: torch.dtype) -> Weights:
        # Every way of changing a tensor's numbers in place raises its version.
        now = dtype, [(p.data_ptr(), p._version) for p in parameters]
        if now != self._cast_of:
            query, query_bias, key, key_bias, value, value_bias, *others = parameters
            together = torch.cat([query, key, value]), torch.cat([query_bias, key_bias, value_bias])
            full = Weights(*(p.detach() for p in (*together, *others)))
            self._cast = Weights(
                *(
                    p if name.startswith("norm") else p.to(dtype)
                    for name, p in full._asdict().items()
                )
            )
            self._cast_of = now
        return self._cast


def only_forward(
    x: Tensor, layout: Layout, w: Weights, heads: int, eps: tuple[float, float]
) -> Tensor:
    """What `_Layer` computes, where no gradient is wanted: nothing is kept for one.

    The states, too, are in the precision of the weights, and each product adds its own to them: in
    bf16 that is rounded to 8 bits once more than in `_Layer`, as the products' inputs always are.
    """
    hidden = x.shape[1:]
    mixed = attend_only(linear(x, w.qkv, w.qkv_bias), layout, heads)
    first = linear(mixed, w.out, w.out_bias, onto=x)
    y = nn.functional.layer_norm(first, hidden, w.norm1, w.norm1_bias, eps[0])
    active = linear(y, w.up, w.up_bias, gelu=True)
    second = linear(active, w.down, w.down_bias, onto=y)
    return nn.functional.layer_norm(second, hidden, w.norm2, w.norm2_bias, eps[1])


class _Layer(torch.autograd.Function):
    """Products in the precision of the weights, sums and norms in fp32, as under autocast."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, layout: Layout, w: Weights, heads: int, eps: tuple[float, float],
        *parameters: Tensor,
    ) -> Tensor:  # fmt: skip
        hidden, low = x.shape[1:], w.qkv.dtype
        x_low = x.to(low)
        mixed, attended = attend(linear(x_low, w.qkv, w.qkv_bias), layout, heads)
        first = x + linear(mixed, w.out, w.out_bias)
        y, *stats1 = torch.native_layer_norm(first, hidden, w.norm1, w.norm1_bias, eps[0])
        y_low = y.to(low)
        wide = linear(y_low, w.up, w.up_bias)  # (room, 4 × hidden)
        active = nn.functional.gelu(wide)
        second = y + linear(active, w.down, w.down_bias)
        result, *stats2 = torch.native_layer_norm(second, hidden, w.norm2, w.norm2_bias, eps[1])
        ctx.given = layout, w
        ctx.made = x_low, attended, mixed, first, stats1, y_low, wide, active, second, stats2
        ctx.wanted = [p.requires_grad for p in parameters]
        return result

    @staticmethod
    def backward(ctx: Any, d_result: Tensor) -> Any:
        layout, w = ctx.given
        x_low, attended, mixed, first, stats1, y_low, wide, active, second, stats2 = ctx.made
        del ctx.made
        hidden, low, wanted = second.shape[1:], w.qkv.dtype, ctx.wanted
        d_second, *d_norm2 = norm_backward(
            d_result.contiguous(), second, hidden, *stats2, w.norm2, w.norm2_bias, (True,) * 3
        )
        d_second_low = d_second.to(low)
        d_wide = gelu_backward(d_second_low @ w.down, wide)
        d_y = d_second + d_wide @ w.up
        d_first, *d_norm1 = norm_backward(
            d_y, first, hidden, *stats1, w.norm1, w.norm1_bias, (True,) * 3
        )
        d_first_low = d_first.to(low)
        d_qkv = attend_backward(d_first_low @ w.out, attended, layout)
        d_x = d_first + d_qkv @ w.qkv if ctx.needs_input_grad[0] else None
        gradients = [
            *of_three(d_qkv, x_low, *wanted[:6]),
            *of_linear(d_first_low, mixed, *wanted[6:8]), *d_norm1,
            *of_linear(d_wide, y_low, *wanted[10:12]),
            *of_linear(d_second_low, active, *wanted[12:14]), *d_norm2,
        ]  # fmt: skip
        asked = [d.float() if want else None for d, want in zip(gradients, wanted, strict=True)]
        return d_x, None, None, None, None, *asked


@cache
def has_fused_linear() -> bool:
    """Whether oneDNN multiplies bf16 here, with bias and GELU added before anything is stored."""
    ops = torch.ops.mkldnn
    return hasattr(ops, "_linear_pointwise") and bool(ops._is_mkldnn_bf16_supported())


def linear(
    given: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False, onto: Tensor | None = None
) -> Tensor:
    """given @ weight.T + bias; its GELU, or added onto something. (tokens, in) → (tokens, out)"""
    if weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and has_fused_linear():
        fused = torch.ops.mkldnn._linear_pointwise
        result: Tensor
        if onto is not None:
            result = fused.binary(given, onto, weight, bias, "add")
        else:
            after, how = ("gelu", "none") if gelu else ("none", "")
            result = fused(given, weight, bias, after, [], how)
        return result
    result = torch.addmm(bias, given, weight.t())
    if onto is not None:
        result += onto
    return torch.ops.aten.gelu_(result) if gelu else result


def of_three(d_output: Tensor, given: Tensor, *wanted: bool) -> list[Tensor | None]:
    """`of_linear` of three layers whose outputs stand side by side."""
    if not any(wanted):
        return [None] * 6
    weights, biases = (d_output.t() @ given).chunk(3), d_output.sum(0).chunk(3)
    return [part for both in zip(weights, biases, strict=True) for part in both]


def of_linear(
    d_output: Tensor, given: Tensor, weight: bool, bias: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of a linear layer's weight (out, in) and bias (out,), where they are wanted."""
    return d_output.t() @ given if weight else None, d_output.sum(0) if bias else None
