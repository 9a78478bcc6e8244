"""The one `Accelerator` of a run, as its recipe and this machine's plan say."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from finetune.compute import accelerator
from finetune.compute.accelerator import start_accelerator
from finetune.config.schema import Data, Recipe, Train
from finetune.runtime import console
from finetune.runtime.errors import InputError
from tests.support.runs import run_here


def recipe(**train):
    return Recipe(data=Data(source="x"), train=Train(**train))


@pytest.mark.parametrize(("precision", "mixed"), [("fp32", "no"), ("bf16", "bf16")])
def test_precision_and_threads_are_the_plan_s(monkeypatch, precision, mixed):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plan, started = start_accelerator(recipe(precision=precision, threads=1))
    assert (plan.precision, started.mixed_precision) == (precision, mixed)
    assert torch.get_num_threads() == plan.threads == 1
    assert started.num_processes == 1
    assert console.CONSOLE.is_main


def test_the_environment_accumulates_no_gradients(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    _, started = start_accelerator(recipe(precision="fp32", threads=1))
    assert started.gradient_accumulation_steps == 1


def test_processes_that_did_not_join_are_refused(monkeypatch):
    monkeypatch.setattr(
        "finetune.compute.launch_checks.check_processes_joined", lambda accelerator: refuse()
    )
    with pytest.raises(InputError, match="not joined"):
        start_accelerator(recipe(precision="fp32", threads=1))


def refuse():
    raise InputError("not joined")


def test_a_compiled_model_computes_the_same(here, monkeypatch):
    """Dynamo traces it, once for all sizes of batches; its graph is then computed as it stands."""
    compiled, compile_model = [], torch.compile

    def noted(model, **named):
        compiled.append(named)
        return compile_model(model, **named)

    monkeypatch.setattr(accelerator, "COMPILER", "eager")
    monkeypatch.setattr(torch, "compile", noted)
    words = "train.packing=off", "train.max_steps=4", "checkpoint.every=never", "model.dropout=0"
    run_here(*words, "run.dir=plain", "cache.frozen_states=off")
    assert compiled == []
    run_here(*words, "run.dir=compiled", "cache.frozen_states=off", "train.compile=true")
    assert [(named["backend"], named["dynamic"]) for named in compiled] == [("eager", True)]
    plain, same = (load_file(f"{name}/model/model.safetensors") for name in ("plain", "compiled"))
    assert plain.keys() == same.keys()
    for name, value in plain.items():
        torch.testing.assert_close(same[name], value, rtol=1e-5, atol=1e-6)


def test_weights_that_are_not_contiguous_are_sent_too(monkeypatch):
    """A transposed one, as a class may leave it; collectives take contiguous memory alone."""
    model = torch.nn.Linear(2, 3)
    model.weight.data = torch.zeros(2, 3).T
    assert not model.weight.is_contiguous()
    others = iter([torch.arange(6.0).view(3, 2), torch.ones(3)])

    def broadcast(tensor, source):
        assert tensor.is_contiguous()
        tensor.copy_(next(others))

    monkeypatch.setattr(accelerator.dist, "broadcast", broadcast)
    several = SimpleNamespace(
        num_processes=2, is_fsdp2=False, prepare_optimizer=lambda optimizer: optimizer,
        prepare_model=lambda model, evaluation_mode: model,
    )  # fmt: skip
    accelerator.prepare_training(several, model, None)
    assert model.weight.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert model.bias.tolist() == [1, 1, 1]
