"""The search for what fits, with a model that says when it is too much (no GPU is at hand)."""

import dataclasses

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from finetune.compute import hardware_plan, micro_batch_size
from finetune.config import schema
from finetune.modeling import build, pretrained
from finetune.runtime.errors import InputError
from finetune.tokenization import encoding
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
    found = micro_batch_size.fit_micro_batches(plan, net, table, Accelerator(cpu=True))
    assert found.micro_batch_tokens == 62
    assert tried == [192, 192, 192, 96, 32]
    assert "micro-batches of up to 62 tokens" in " ".join(found.reasons)
    assert "1,000 tokens at once do not fit into a GPU: 62 do" in capsys.readouterr().out
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in net.parameters())
    assert not net.training


def test_what_fits_stays(parts):
    net, table, plan = parts
    assert micro_batch_size.fit_micro_batches(plan, net, table, Accelerator(cpu=True)) is plan


def test_a_row_that_does_not_fit_alone(parts):
    net, table, plan = parts
    runs_out_above(net, 10)
    with pytest.raises(InputError, match="one row of 32 tokens does not fit into a GPU"):
        micro_batch_size.fit_micro_batches(plan, net, table, Accelerator(cpu=True))


def test_a_document_whose_windows_do_not_fit(parts):
    net, table, plan = parts
    runs_out_above(net, 10)
    one_each = dataclasses.replace(table, first=np.arange(len(table) + 1))
    with pytest.raises(InputError) as told:
        micro_batch_size.fit_micro_batches(plan, net, one_each, Accelerator(cpu=True))
    assert [*told.value.problems] == [
        "data.max_windows: one row of 32 tokens does not fit into a GPU; set data.max_windows "
        "lower, model.freeze to more layers, or train.precision=bf16"
    ]


def test_only_a_gpu_is_asked(parts):
    net, table, plan = parts
    tried = runs_out_above(net, 0)
    plan = dataclasses.replace(plan, device="cpu")
    assert micro_batch_size.fit_micro_batches(plan, net, table, Accelerator(cpu=True)) is plan
    assert tried == []
    assert np.all(table.lengths > 0)
