"""The one `Accelerator` of a run, as its recipe and this machine's plan say."""

import pytest
import torch

from finetune.compute.accelerator import start_accelerator
from finetune.config.schema import Data, Recipe, Train
from finetune.runtime import console
from finetune.runtime.errors import InputError


def recipe(**train):
    return Recipe(data=Data(source="x"), train=Train(**train))


@pytest.mark.parametrize(("precision", "mixed"), [("fp32", "no"), ("bf16", "bf16")])
def test_precision_and_threads_are_the_plan_s(monkeypatch, precision, mixed):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plan, accelerator = start_accelerator(recipe(precision=precision, threads=1))
    assert (plan.precision, accelerator.mixed_precision) == (precision, mixed)
    assert torch.get_num_threads() == plan.threads == 1
    assert accelerator.num_processes == 1
    assert console.CONSOLE.is_main


def test_the_environment_accumulates_no_gradients(monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    _, accelerator = start_accelerator(recipe(precision="fp32", threads=1))
    assert accelerator.gradient_accumulation_steps == 1


def test_processes_that_did_not_join_are_refused(monkeypatch):
    monkeypatch.setattr(
        "finetune.compute.launch_checks.check_processes_joined", lambda accelerator: refuse()
    )
    with pytest.raises(InputError, match="not joined"):
        start_accelerator(recipe(precision="fp32", threads=1))


def refuse():
    raise InputError("not joined")
