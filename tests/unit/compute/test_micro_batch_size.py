"""The search for what fits, with a model that says when it is too much (no GPU is at hand)."""

import dataclasses
import gc

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from finetune.compute import hardware_plan, micro_batch_size
from finetune.compute.checkpointing import recomputes_layers
from finetune.config import schema
from finetune.modeling import build, pretrained
from finetune.runtime.errors import InputError
from finetune.tokenization import encoding
from finetune.training import optimizer as optimizer_module
from tests.support.tiny import tiny_encoder


@pytest.fixture
def parts(tmp_path):
    encoder = str(tiny_encoder(tmp_path))
    of = schema.Model(source=encoder, dropout=0.1, freeze="embeddings")
    net = build.build_classifier(encoder, of, ["a", "b"], "eager", seed=0)
    texts = ["good " * n for n in (3, 30, 12, 30, 7, 30)]
    table = encoding.encode(texts, pretrained.load_tokenizer(encoder, of), 64)
    plan = hardware_plan.plan_hardware(of, schema.Train(micro_batch_tokens=1000))
    plan = dataclasses.replace(plan, device="cuda", name="a GPU")
    return net, table, plan


def fit(plan, net, table, optim=None, **train):
    accelerator = Accelerator(cpu=True)
    optimizer = optimizer_module.build_optimizer(net, optim or schema.Optim())
    train = schema.Train(**train)
    return micro_batch_size.fit_micro_batches(plan, net, optimizer, table, accelerator, train)


def runs_out_above(net, most):
    tried = []

    def look(module, given, named):
        size = named["input_ids"].numel()
        tried.append(size)
        if size > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    net.register_forward_pre_hook(look, with_kwargs=True)
    return tried


def test_halved_until_it_fits(parts, capsys):
    net, table, plan = parts
    tried = runs_out_above(net, 64)
    before = torch.get_rng_state()
    found = fit(plan, net, table, checkpointing="off")
    assert found.micro_batch_tokens == 62
    assert tried == [192, 192, 192, 96, 32]
    assert "micro-batches of up to 62 tokens" in " ".join(found.reasons)
    assert "1,000 tokens at once do not fit into a GPU: 62 do" in capsys.readouterr().out
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in net.parameters())
    assert not net.training


def test_what_fits_stays(parts):
    net, table, plan = parts
    assert fit(plan, net, table, checkpointing="off") is plan


def test_a_row_that_does_not_fit_alone(parts):
    net, table, plan = parts
    runs_out_above(net, 10)
    with pytest.raises(InputError, match="one row of 32 tokens does not fit into a GPU"):
        fit(plan, net, table, checkpointing="off")


def test_a_document_whose_windows_do_not_fit(parts):
    net, table, plan = parts
    runs_out_above(net, 10)
    one_each = dataclasses.replace(table, first=np.arange(len(table) + 1))
    with pytest.raises(InputError) as told:
        fit(plan, net, one_each, checkpointing="off")
    assert [*told.value.problems] == [
        "data.max_windows: one row of 32 tokens does not fit into a GPU; set data.max_windows "
        "lower, model.freeze to more layers, or train.precision=bf16"
    ]


def test_only_a_gpu_is_asked(parts):
    net, table, plan = parts
    tried = runs_out_above(net, 0)
    plan = dataclasses.replace(plan, device="cpu")
    assert fit(plan, net, table, checkpointing="off") is plan
    assert tried == []
    assert np.all(table.lengths > 0)


def test_a_row_that_does_not_fit_switches_checkpointing_on(parts, capsys):
    """Layers that are computed again keep less, so that all micro-batches are tried anew."""
    net, table, plan = parts
    tried = []

    def look(module, given, named):
        tried.append(named["input_ids"].numel())
        if not recomputes_layers(net.encoder):
            raise torch.OutOfMemoryError("CUDA out of memory")

    net.register_forward_pre_hook(look, with_kwargs=True)
    found = fit(plan, net, table)
    assert tried == [192, 192, 192, 96, 32, 192]
    assert found.micro_batch_tokens == 1000
    why = "gradient checkpointing: a row of 32 tokens needs it"
    assert why in found.reasons
    assert why in capsys.readouterr().out


@pytest.mark.parametrize(
    ("optim", "slots"),
    [({"name": "adamw"}, 2), ({"name": "sgd"}, 1), ({"name": "sgd", "momentum": 0.0}, 0)],
)
def test_gradients_and_the_optimizer_s_memory_are_held_while_one_is_tried(parts, optim, slots):
    net, table, plan = parts
    trained = [p for p in net.parameters() if p.requires_grad]
    held = []

    def look(module, given, named):
        assert all(p.grad is not None for p in trained)
        gc.collect()
        tensors = [o for o in gc.get_objects() if type(o) is torch.Tensor]
        strided = [o for o in tensors if o.layout is torch.strided]  # oneDNN's have no any()
        shapes = [o.shape for o in strided if not o.any()]
        [encoder] = {trained[0].shape}
        held.append(shapes.count(encoder))

    net.register_forward_pre_hook(look, with_kwargs=True)
    fit(plan, net, table, schema.Optim(**optim))
    same = sum(p.shape == trained[0].shape for p in trained)
    zeros = sum(p.shape == trained[0].shape and not p.any() for p in trained)
    assert held[0] - zeros == (slots + 1) * same


def test_memory_of_the_optimizer_that_does_not_fit_is_refused_by_all(parts, monkeypatch):
    """The processes agree before any of them raises: none waits for one that has gone."""
    net, table, plan = parts
    agreed = []

    def agree(here, accelerator):
        agreed.append(here)
        return here

    def run_out(parameter):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(micro_batch_size, "_everywhere", agree)
    monkeypatch.setattr(torch, "zeros_like", run_out)
    with pytest.raises(InputError, match="the model and what the optimizer keeps do not fit"):
        fit(plan, net, table)
    assert agreed == [False]
