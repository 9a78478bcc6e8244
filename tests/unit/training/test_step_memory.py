"""A step that runs out of memory is the same step, with fewer tokens at once."""

import json
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from finetune.compute.checkpointing import recomputes_layers
from finetune.config import schema
from finetune.modeling.modeling_document_classifier import DocumentClassifier
from finetune.runtime.errors import InputError
from finetune.training import step_memory
from finetune.training.step_memory import StepMemory
from tests.support.runs import finish, lines, run_here

WORDS = (
    *("train.packing=off", "cache.frozen_states=off", "train.micro_batch_tokens=64"),
    *("train.max_steps=12", "checkpoint.keep=99"),
)
# From the step after on, in one rank or in all: what is more than this runs out of memory.
RUNS_OUT = """
import torch
from finetune.modeling.modeling_document_classifier import DocumentClassifier as Model
forward = Model.forward
def heavy(self, **inputs):
    if torch.is_grad_enabled() and inputs["input_ids"].numel() > 32:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return forward(self, **inputs)
Model.forward = heavy
"""
HALVED = """
from finetune.training.step_memory import StepMemory
compute = StepMemory.compute
def lower(self, step, add_gradients):
    self.tokens = 32
    return compute(self, step, add_gradients)
StepMemory.compute = lower
"""


def runs_out(patch, too_much, at_step=7):
    """From a step on, such micro-batches run out of memory in their backward pass.

    By then dropout has drawn its numbers, and the gradients of those before are there.
    """
    compute, forward, under_way = StepMemory.compute, DocumentClassifier.forward, [0]

    def noted(self, step, add_gradients):
        under_way[:] = [step]
        return compute(self, step, add_gradients)

    def out_of_memory(gradient):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def heavy(self, **inputs):
        output = forward(self, **inputs)
        if torch.is_grad_enabled() and under_way[0] >= at_step and too_much(self, inputs):
            output.logits.register_hook(out_of_memory)
        return output

    patch.setattr(StepMemory, "compute", noted)
    patch.setattr(DocumentClassifier, "forward", heavy)


def weights(folder):
    return load_file(folder / "model/model.safetensors")


def assert_same_weights(one, other):
    ones, others = weights(one), weights(other)
    assert [name for name in ones if not torch.equal(ones[name], others[name])] == []


def test_the_step_is_computed_again_with_half_as_many_tokens(here, monkeypatch, capsys):
    """Bit by bit the run that had as few from that step on, and one that is taken up again too."""
    with monkeypatch.context() as patch:
        runs_out(patch, lambda model, inputs: inputs["input_ids"].numel() > 32)
        run_here(*WORDS, "run.dir=lowered")
    said = " ".join(capsys.readouterr().out.split())
    assert "step 7: out of memory; computed again with 32 tokens at once instead of 64" in said
    with monkeypatch.context() as patch:
        compute = StepMemory.compute

        def lower(self, step, add_gradients):
            self.tokens = 64 if step < 7 else 32
            return compute(self, step, add_gradients)

        patch.setattr(StepMemory, "compute", lower)
        run_here(*WORDS, "run.dir=expected")
    assert_same_weights(here / "lowered", here / "expected")
    assert lines(here / "lowered", "train") == lines(here / "expected", "train")
    [line] = lines(here / "lowered", "out_of_memory")
    assert (line["step"], line["micro_batch_tokens"], line["checkpointing"]) == (7, 32, False)
    point = here / "lowered/checkpoints/step-00000008"
    state = json.loads((point / "state.json").read_text())["state"]
    assert state["micro_batch_tokens"] == 32
    run_here(*WORDS, f"run.resume={point}")
    assert_same_weights(here / "lowered", here / "expected")


def test_a_row_that_does_not_fit_alone_switches_checkpointing_on(here, monkeypatch, capsys):
    words = *WORDS, "train.micro_batch_tokens=1", "train.max_steps=8"
    run_here(*words, "run.dir=expected")
    with monkeypatch.context() as patch:
        runs_out(patch, lambda model, inputs: not recomputes_layers(model.encoder))
        run_here(*words, "run.dir=recomputed")
        said = " ".join(capsys.readouterr().out.split())
        assert "step 7: out of memory; computed again with gradient checkpointing" in said
        run_here(*words, "train.checkpointing=off", "run.dir=off", code=2)
    assert "out of memory while training" in capsys.readouterr().err
    assert_same_weights(here / "recomputed", here / "expected")


def test_all_processes_agree(here):
    finish(here, *WORDS, "run.dir=lowered", processes=2, act=(6, 1, RUNS_OUT))
    finish(here, *WORDS, "run.dir=expected", processes=2, act=(6, "all", HALVED))
    assert_same_weights(here / "lowered", here / "expected")
    [line] = lines(here / "lowered", "out_of_memory")
    assert (line["step"], line["micro_batch_tokens"]) == (7, 32)


def test_gradients_go_in_buckets_of_one_type(monkeypatch):
    monkeypatch.setattr(step_memory, "BUCKET", 10)
    sizes = [(4, torch.float32), (6, torch.float32), (1, torch.float32), (2, torch.bfloat16)]
    given = [torch.zeros(size, dtype=dtype) for size, dtype in [*sizes, (50, torch.bfloat16)]]
    buckets = step_memory._buckets(given)
    assert [[len(one) for one in bucket] for bucket in buckets] == [[4, 6], [1], [2], [50]]
    assert step_memory._buckets([]) == []


def test_a_gradient_that_one_process_lacks_is_averaged_as_zero(monkeypatch):
    """As where each process drops other layers at random: all must send the same numbers."""
    model = torch.nn.ParameterList(torch.zeros(2) for _ in range(3))
    sent = []

    def all_reduce(here, op=None, group=None):
        """With another process, which has a gradient of the first two, each 4."""
        sent.append(here.tolist())
        if op is not None:
            here.copy_(torch.maximum(here, torch.tensor([0, 0, 1, 1, 0])))
        else:
            here += 4 / 2

    monkeypatch.setattr(step_memory.dist, "all_reduce", all_reduce)
    monkeypatch.setattr(step_memory, "_host_group", lambda world: None)
    accelerator = SimpleNamespace(num_processes=2, is_fsdp2=False, device=torch.device("cpu"))
    memory = StepMemory(64, model, schema.Train(), accelerator, lambda *how: None)

    def add_gradients(memory):
        model[0].grad = torch.ones(2)
        return []

    memory.compute(1, add_gradients)
    assert sent == [[0, 0, 1, 0, 0], [0.5, 0.5, 0, 0]]
    assert [None if p.grad is None else p.grad.tolist() for p in model] == [
        [2.5] * 2,
        [2] * 2,
        None,
    ]


def test_with_checkpointing_the_step_begins_again_as_planned(monkeypatch):
    """What did not fit may have been what is no longer kept."""
    recomputes, told, tried = [], [], []

    def enable(model):
        recomputes.append(model)
        return len(recomputes) == 1

    monkeypatch.setattr(step_memory, "enable_checkpointing", enable)
    memory = StepMemory(
        64, torch.nn.Linear(2, 1), schema.Train(), Accelerator(cpu=True),
        lambda *how: told.append(how),
    )  # fmt: skip

    def add_gradients(memory):
        tried.append(memory.tokens)
        memory.rows = memory.tokens // 16
        if memory.tokens > 32 or not recomputes:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return []

    assert memory.compute(7, add_gradients) == []
    assert tried == [64, 32, 16, 64, 32]
    assert told == [(7, 32, False), (7, 16, False), (7, 64, True), (7, 32, False)]


def test_where_no_micro_batch_can_be_smaller_the_run_ends():
    """Also where memory ran out before the first one was there."""
    memory = StepMemory(
        2, torch.nn.Linear(2, 1), schema.Train(checkpointing="off"), Accelerator(cpu=True),
        lambda *how: None,
    )  # fmt: skip

    def fail(memory):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(InputError, match="out of memory while training"):
        memory.compute(1, fail)


@pytest.mark.parametrize("error", [ValueError("shapes differ"), KeyboardInterrupt()])
def test_other_errors_stay_what_they_are(error):
    model = torch.nn.Linear(2, 1)
    memory = StepMemory(64, model, schema.Train(), Accelerator(cpu=True), lambda *told: None)

    def fail(memory):
        raise error

    with pytest.raises(type(error)):
        memory.compute(1, fail)
