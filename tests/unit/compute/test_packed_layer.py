"""One packed layer against the same layer in plain torch: its output and every gradient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from finetune.compute import packed_attention
from finetune.compute.packed_layer import LayerModules, PackedLayer

HIDDEN, INNER, HEADS = 16, 32, 4
LENGTHS = np.array([20, 5, 3])


def drawn_modules():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        query, key, value, out = (nn.Linear(HIDDEN, HIDDEN) for _ in range(4))
        return LayerModules(
            query=query,
            key=key,
            value=value,
            out=out,
            first_norm=nn.LayerNorm(HIDDEN),
            up=nn.Linear(HIDDEN, INNER),
            down=nn.Linear(INNER, HIDDEN),
            second_norm=nn.LayerNorm(HIDDEN),
        )


def plain_layer(modules, states):
    """Post-norm, as BERT has it, one row at a time. (tokens, hidden) → (tokens, hidden)"""
    results = []
    for x in states.split(LENGTHS.tolist()):
        query, key, value = (
            project(x).view(-1, HEADS, HIDDEN // HEADS).transpose(0, 1)
            for project in (modules.query, modules.key, modules.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(0, 1).flatten(1)
        y = modules.first_norm(x + modules.out(mixed))
        results.append(modules.second_norm(y + modules.down(F.gelu(modules.up(y)))))
    return torch.cat(results)


def drawn(layout):
    generator = torch.Generator().manual_seed(1)
    states, gradient = torch.randn(2, layout.capacity, HIDDEN, generator=generator)
    states[layout.tokens :] = gradient[layout.tokens :] = 0
    return states, gradient


def test_output_and_gradients_are_those_of_the_plain_layer():
    modules, layout = drawn_modules(), packed_attention.layout(LENGTHS)
    states, gradient = drawn(layout)
    plain = states[: layout.tokens].clone().requires_grad_()
    expected = plain_layer(modules, plain)
    expected.backward(gradient[: layout.tokens])
    wanted = [p.grad.clone() for p in modules.parameters()]
    for parameter in modules.parameters():
        parameter.grad = None

    states.requires_grad_()
    result = PackedLayer(modules, HEADS)(states, layout, torch.float32)
    torch.testing.assert_close(result[: layout.tokens], expected, rtol=1e-5, atol=1e-5)
    result.backward(gradient)
    torch.testing.assert_close(states.grad[: layout.tokens], plain.grad, rtol=1e-4, atol=1e-5)
    for parameter, other in zip(modules.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, other, rtol=1e-4, atol=1e-5)


def test_what_is_frozen_gets_no_gradient():
    modules, layout = drawn_modules(), packed_attention.layout(LENGTHS)
    modules.up.requires_grad_(False)
    modules.query.requires_grad_(False)
    states, gradient = drawn(layout)
    PackedLayer(modules, HEADS)(states, layout, torch.float32).backward(gradient)
    frozen = {*modules.up.parameters(), *modules.query.parameters()}
    for parameter in modules.parameters():
        assert (parameter.grad is None) == (parameter in frozen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_gradient_it_computes_the_same(dtype):
    modules, layout = drawn_modules(), packed_attention.layout(LENGTHS)
    layer, (states, _) = PackedLayer(modules, HEADS), drawn(layout)
    learning = layer(states, layout, dtype)
    with torch.no_grad():
        scoring = layer(states, layout, dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(scoring.float(), learning, rtol=tolerance, atol=tolerance)


def test_weights_are_cast_again_where_they_changed():
    modules, layout = drawn_modules(), packed_attention.layout(LENGTHS)
    layer, (states, _) = PackedLayer(modules, HEADS), drawn(layout)
    with torch.no_grad():
        before = layer(states, layout, torch.float32)
        modules.down.weight.zero_()
        after = layer(states, layout, torch.float32)
        expected = plain_layer(modules, states[: layout.tokens])
    assert not torch.equal(before, after)
    torch.testing.assert_close(after[: layout.tokens], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("recomputes", [False, True])
def test_of_the_tokens_that_are_asked_for_it_computes_the_same(recomputes):
    modules, layout = drawn_modules(), packed_attention.layout(LENGTHS)
    firsts = torch.tensor([0, 20, 25])
    layer, found = PackedLayer(modules, HEADS), []
    states, gradient = drawn(layout)
    for only in (None, firsts):
        given = states.clone().requires_grad_()
        result = layer(given, replace(layout, only=only), torch.float32, recomputes=recomputes)
        if only is None:
            result = result[firsts]
        result.backward(gradient[firsts])
        found.append([result.detach(), given.grad, *(p.grad for p in modules.parameters())])
        for parameter in modules.parameters():
            parameter.grad = None
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        scored = layer(states, replace(layout, only=firsts), torch.float32)
    torch.testing.assert_close(scored, found[0][0], rtol=1e-5, atol=1e-6)
