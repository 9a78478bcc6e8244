"""One layer of a BERT-like encoder over many rows without padding, with its gradient by hand.

A layer of BERT (Devlin et al. 2019, after Vaswani et al. 2017) spends nearly all its time in the
products with its weights. Here they run once over the tokens of all rows, end to end; only the
attention between a row's own tokens sees rows as such, in groups of like length:

    x    (tokens, hidden)
    y    = norm(x + out(attention(query(x), key(x), value(x))))
    next = norm(y + down(gelu(up(y))))

DistilBERT's layers are the same under other names. MPNet's have a bias on the attention's scores,
which depends on how far apart two tokens are, and which all layers share and train.

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
LAID_OUT_FOR = 2048  # tokens; the layout suits other numbers as well


@dataclass(frozen=True)
class LayerModules:
    """The modules of one layer, whichever names the architecture gives them."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    first_norm: nn.LayerNorm
    up: nn.Linear
    down: nn.Linear
    second_norm: nn.LayerNorm

    def parameters(self) -> list[Tensor]:
        """Weight and bias of each module, in the order of the fields. 16 tensors"""
        modules = (
            self.query, self.key, self.value, self.out, self.first_norm,
            self.up, self.down, self.second_norm,
        )  # fmt: skip
        return [p for module in modules for p in (module.weight, module.bias)]


class Affine(NamedTuple):
    """Of a linear layer (out, in) and (out,); of a norm (hidden,) and (hidden,)."""

    weight: Tensor
    bias: Tensor


class LayerWeights(NamedTuple):
    """A layer's weights as they are computed with; query, key and value in one."""

    qkv: Affine
    out: Affine
    norm1: Affine
    up: Affine
    down: Affine
    norm2: Affine


class PackedLayer:
    """A layer's modules, and their weights in the precision that is computed in."""

    def __init__(self, modules: LayerModules, heads: int) -> None:
        self.modules, self.heads = modules, heads
        self._cast: tuple[object, LayerWeights] | None = None  # what of; replaced as a whole

    def __call__(
        self, states: Tensor, layout: Layout, dtype: torch.dtype, bias: Tensor | None = None,
        recomputes: bool = False,
    ) -> Tensor:  # fmt: skip
        """(capacity, hidden) → (capacity, hidden), with products in `dtype`.

        Of the tokens that the layout asks for alone: (rows, hidden). All of them are looked at, but
        what follows the attention, three quarters of the layer, is not computed of the others.

        Where the layer learns, states are fp32; else they are in `dtype` too.

        Args:
            bias: of the attention's scores (heads, longest, longest), as `attend_only` has it.
            recomputes: whether the layer is computed again for its gradient, and keeps its input
                alone until then.
        """
        parameters = self.modules.parameters()
        eps = self.modules.first_norm.eps, self.modules.second_norm.eps
        learns = torch.is_grad_enabled() and (
            any(p.requires_grad for p in (states, *parameters))
            or (bias is not None and bias.requires_grad)
        )
        weights = self._weights(parameters, dtype, learns)
        if not learns:
            return forward_only(states.to(dtype), layout, weights, self.heads, eps, bias)
        given = states.float(), layout, weights, self.heads, eps, bias, recomputes
        result: Tensor = _Layer.apply(*given, *parameters)
        return result

    def _weights(
        self, parameters: Sequence[Tensor], dtype: torch.dtype, learns: bool
    ) -> LayerWeights:
        # Every way of changing a tensor's numbers in place raises its version.
        now = dtype, learns, [(p.data_ptr(), p._version) for p in parameters]
        cast = self._cast
        if cast is None or cast[0] != now:
            cast = self._cast = now, _cast_weights(parameters, dtype, learns)
        return cast[1]


def _cast_weights(parameters: Sequence[Tensor], dtype: torch.dtype, learns: bool) -> LayerWeights:
    query, query_bias, key, key_bias, value, value_bias, *others = (p.detach() for p in parameters)
    qkv = torch.cat([query, key, value]), torch.cat([query_bias, key_bias, value_bias])
    out, norm1, up, down, norm2 = (Affine(*others[i : i + 2]) for i in range(0, len(others), 2))
    linear = [Affine(weight.to(dtype), bias.to(dtype)) for weight, bias in (qkv, out, up, down)]
    if not learns:
        linear = [Affine(lay_out(weight), bias) for weight, bias in linear]
    return LayerWeights(
        qkv=linear[0], out=linear[1], norm1=norm1, up=linear[2], down=linear[3], norm2=norm2
    )


def forward_only(
    x: Tensor, layout: Layout, w: LayerWeights, heads: int, eps: tuple[float, float],
    bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """What `_Layer` computes, where no gradient is needed: nothing is kept for one.

    The states, too, are in the precision of the weights, and each product adds its own to them: in
    bf16 that is rounded to 8 bits once more than in `_Layer`, as the products' inputs always are.
    """
    hidden = x.shape[1:]
    mixed = attend_only(linear(x, *w.qkv), layout, heads, bias)
    first = linear(layout.choose(mixed), *w.out, onto=layout.choose(x))
    y = nn.functional.layer_norm(first, hidden, *w.norm1, eps[0])
    active = linear(y, *w.up, gelu=True)
    second = linear(active, *w.down, onto=y)
    return nn.functional.layer_norm(second, hidden, *w.norm2, eps[1])


class _Layer(torch.autograd.Function):
    """Products in the precision of the weights, sums and norms in fp32, as under autocast."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, layout: Layout, w: LayerWeights, heads: int, eps: tuple[float, float],
        bias: Tensor | None, recomputes: bool, *parameters: Tensor,
    ) -> Tensor:  # fmt: skip
        result, made = _Layer.compute(x, layout, w, heads, eps, bias)
        ctx.given = layout, w
        ctx.bias = bias
        ctx.again = (x, layout, w, heads, eps, bias) if recomputes else None
        ctx.made = None if recomputes else made
        ctx.learns = [p.requires_grad for p in parameters]
        return result

    @staticmethod
    def compute(
        x: Tensor, layout: Layout, w: LayerWeights, heads: int, eps: tuple[float, float],
        bias: Tensor | None,
    ) -> tuple[Tensor, tuple[Any, ...]]:  # fmt: skip
        """The layer's output, and what its gradient needs."""
        hidden, low = x.shape[1:], w.qkv.weight.dtype
        x_low = x.to(low)
        mixed, attended = attend(linear(x_low, *w.qkv), layout, heads, bias)
        mixed = layout.choose(mixed)
        first = layout.choose(x) + linear(mixed, *w.out)
        y, *stats1 = torch.native_layer_norm(first, hidden, *w.norm1, eps[0])
        y_low = y.to(low)
        wide = linear(y_low, *w.up)  # (capacity, 4 × hidden)
        active = nn.functional.gelu(wide)
        second = y + linear(active, *w.down)
        result, *stats2 = torch.native_layer_norm(second, hidden, *w.norm2, eps[1])
        return result, (
            x_low, attended, mixed, first, stats1, y_low, wide, active, second, stats2,
        )  # fmt: skip

    @staticmethod
    def backward(ctx: Any, d_result: Tensor) -> Any:
        layout, w = ctx.given
        made = ctx.made if ctx.again is None else _Layer.compute(*ctx.again)[1]
        x_low, attended, mixed, first, stats1, y_low, wide, active, second, stats2 = made
        del ctx.made, ctx.again
        hidden, low, learns = second.shape[1:], w.qkv.weight.dtype, ctx.learns
        d_second, *d_norm2 = norm_backward(
            d_result.contiguous(), second, hidden, *stats2, *w.norm2, (True,) * 3
        )
        d_second_low = d_second.to(low)
        d_wide = gelu_backward(d_second_low @ w.down.weight, wide)
        d_y = d_second + d_wide @ w.up.weight
        d_first, *d_norm1 = norm_backward(d_y, first, hidden, *stats1, *w.norm1, (True,) * 3)
        d_first_low = d_first.to(low)
        d_bias = torch.zeros_like(ctx.bias) if ctx.needs_input_grad[5] else None
        d_mixed = layout.put_back(d_first_low @ w.out.weight)
        d_qkv = attend_backward(d_mixed, attended, layout, d_bias)
        d_x = layout.put_back(d_first) + d_qkv @ w.qkv.weight if ctx.needs_input_grad[0] else None
        gradients = [
            *qkv_gradients(d_qkv, x_low, *learns[:6]),
            *linear_gradients(d_first_low, mixed, *learns[6:8]), *d_norm1,
            *linear_gradients(d_wide, y_low, *learns[10:12]),
            *linear_gradients(d_second_low, active, *learns[12:14]), *d_norm2,
        ]  # fmt: skip
        kept = [
            d.float() if learned else None for d, learned in zip(gradients, learns, strict=True)
        ]
        return d_x, None, None, None, None, d_bias, None, *kept


@cache
def has_fused_linear() -> bool:
    """Whether oneDNN multiplies bf16 here, with bias and GELU added before anything is stored."""
    ops = torch.ops.mkldnn
    return hasattr(ops, "_linear_pointwise") and bool(ops._is_mkldnn_bf16_supported())


def lay_out(weight: Tensor) -> Tensor:
    """A weight that does not change as oneDNN multiplies by it, which else does so at each product.

    Of 256 tokens that is 8 % of a product's time, of 2,048 4 %. The numbers stay the same.
    """
    if not _is_fused(weight) or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return weight
    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, LAID_OUT_FOR)
    return laid_out


def _is_fused(weight: Tensor) -> bool:
    return weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and has_fused_linear()


def linear(
    given: Tensor, weight: Tensor, bias: Tensor, gelu: bool = False, onto: Tensor | None = None
) -> Tensor:
    """given @ weight.T + bias; its GELU, or added onto something. (tokens, in) → (tokens, out)"""
    if _is_fused(weight):
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


def qkv_gradients(d_output: Tensor, given: Tensor, *learns: bool) -> list[Tensor | None]:
    """`linear_gradients` of query, key and value, whose outputs are side by side."""
    if not any(learns):
        return [None] * 6
    weights, biases = (d_output.t() @ given).chunk(3), d_output.sum(0).chunk(3)
    return [part for both in zip(weights, biases, strict=True) for part in both]


def linear_gradients(
    d_output: Tensor, given: Tensor, weight: bool, bias: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of a linear layer's weight (out, in) and bias (out,), where they learn."""
    return d_output.t() @ given if weight else None, d_output.sum(0) if bias else None
