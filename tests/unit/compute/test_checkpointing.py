"""Layers computed again for their gradients: the same gradients, of less memory."""

import numpy as np
import pytest
import torch

from finetune.compute import checkpointing, packed_layer, packed_table
from finetune.config import schema
from finetune.modeling import build, pretrained
from finetune.tokenization import encoding
from tests.support.tiny import LAYERS, tiny_encoder

CPU = torch.device("cpu")
TEXTS = ["good film " * n for n in (2, 9, 5, 1, 7)]


def parts(folder, architecture="bert", **how):
    encoder = str(tiny_encoder(folder / architecture, architecture))
    of = schema.Model(source=encoder, freeze="embeddings", head_init="normal", **how)
    model = build.build_classifier(encoder, of, ["a", "b", "c"], "sdpa", seed=0)
    return model.train(), encoding.encode(TEXTS, pretrained.load_tokenizer(encoder, of), 64)


def gradients(model, table, dtype=torch.float32):
    """Of the squared logits, and how many numbers the graph kept for them."""
    kept = []

    def count(tensor):
        kept.append(tensor.numel())
        return tensor

    torch.manual_seed(3)
    model.zero_grad()
    with (
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
        torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
    ):
        logits = model(**table.batch(np.arange(len(TEXTS)), CPU)).logits.float()
        logits.square().sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None], sum(kept)


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_gradients_to_the_bit(tmp_path, architecture, dtype):
    """Of dropout too, which draws the same numbers again."""
    model, table = parts(tmp_path, architecture, dropout=0.1)
    plain, before = gradients(model, table, dtype)
    assert checkpointing.enable_checkpointing(model)
    again, after = gradients(model, table, dtype)
    assert len(plain) == len(again) > 10
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert after < before
    assert not checkpointing.enable_checkpointing(model)  # it already does


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_layers_too(tmp_path, monkeypatch, dtype):
    model, table = parts(tmp_path)
    packed_table.attach_packed_layers(model)
    packed = packed_table.PackedTable.of(table)
    plain, _ = gradients(model, packed, dtype)
    checkpointing.enable_checkpointing(model)
    computed = []
    compute = packed_layer._Layer.compute
    counted = staticmethod(lambda *given: computed.append(1) or compute(*given))
    monkeypatch.setattr(packed_layer._Layer, "compute", counted)
    again, _ = gradients(model, packed, dtype)
    assert len(computed) == 2 * LAYERS  # forward, and again in the backward pass
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


class OwnGenerator:
    """A device's random state as of torch.mps, in the place of it."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)

    def get_rng_state(self):
        return self.generator.get_state()

    def set_rng_state(self, state):
        self.generator.set_state(state)


def test_random_states_that_torch_does_not_keep_are_kept():
    """As on MPS: what a layer drops when it is computed again is what it dropped."""
    random, drawn = OwnGenerator(), []

    def layer(states):
        drawn.append(torch.rand(states.shape, generator=random.generator))
        return (states * drawn[-1]).sin()

    states = torch.ones(5, requires_grad=True)
    forward = checkpointing._with_same_draws(layer, random)
    result = checkpointing.checkpoint(forward, states, use_reentrant=False)
    later = torch.rand(1, generator=random.generator)
    result.sum().backward()
    assert torch.equal(drawn[0], drawn[1])
    assert torch.allclose(states.grad, drawn[0].cos() * drawn[0])
    expected = torch.rand(7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([drawn[0], later]), expected[:6])
    assert torch.equal(torch.rand(1, generator=random.generator), expected[6:])
