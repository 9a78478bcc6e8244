"""What the hardware can do decides the plan; what the recipe names is kept."""

import os
from types import SimpleNamespace

import pytest
import torch

from finetune.compute import hardware_plan
from finetune.config import schema
from finetune.runtime.errors import InputError


@pytest.fixture
def machine(monkeypatch):
    """Set what torch's probes answer for this machine."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)

    def set_probes(cuda=False, bf16_gpu=False, amx=False, avx512_bf16=False, cores=4):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bf16_gpu)
        for name, answer in (
            ("_is_amx_tile_supported", amx),
            ("_is_avx512_bf16_supported", avx512_bf16),
        ):
            monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer, raising=False)
        monkeypatch.setattr(hardware_plan, "_cores", lambda: cores)

    return set_probes


@pytest.mark.parametrize(
    ("probes", "expected"),
    [
        ({}, ("cpu", "fp32", "sdpa", 512)),
        ({"avx512_bf16": True}, ("cpu", "bf16", "eager", 512)),
        ({"amx": True}, ("cpu", "bf16", "sdpa", 512)),
        ({"cuda": True, "bf16_gpu": True}, ("cuda", "bf16", "sdpa", 16384)),
        ({"cuda": True}, ("cuda", "fp16", "sdpa", 16384)),
    ],
)
def test_probes_decide_what_the_recipe_leaves_open(machine, probes, expected):
    machine(**probes)
    plan = hardware_plan.plan_hardware(schema.Model(), schema.Train())
    assert (plan.device, plan.precision, plan.attention, plan.micro_batch_tokens) == expected
    assert [reason.split(":")[0] for reason in plan.reasons] == [
        plan.precision,
        f"attention {plan.attention}",
        f"micro-batches of up to {plan.micro_batch_tokens:,} tokens, 4 threads in each process",
    ]


def test_the_recipe_decides_what_it_names(machine):
    machine(amx=True)
    train = schema.Train(precision="fp32", micro_batch_tokens=77, threads=1)
    plan = hardware_plan.plan_hardware(schema.Model(attention="eager"), train)
    assert (plan.precision, plan.attention) == ("fp32", "eager")
    assert (plan.micro_batch_tokens, plan.threads) == (77, 1)


def test_what_needs_a_gpu_is_refused_elsewhere(machine):
    machine()
    with pytest.raises(InputError) as caught:
        hardware_plan.plan_hardware(
            schema.Model(attention="flash_attention_2"), schema.Train(precision="fp16")
        )
    assert len(caught.value.problems) == 2
    assert all("needs a CUDA device, and this run is on cpu" in p for p in caught.value.problems)


def test_processes_share_the_cores(machine, monkeypatch):
    machine(cores=7)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert hardware_plan.all_threads() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "9")
    assert hardware_plan.all_threads() == 1


@pytest.mark.parametrize(
    ("word", "launcher", "threads"),
    [
        ("3", None, 3),
        ("1", None, 1),
        ("2,4", None, 2),  # of nested levels, the first
        ("1", "ACCELERATE_MIXED_PRECISION", 7),  # which `accelerate launch` sets unasked
        ("3", "ACCELERATE_MIXED_PRECISION", 3),
        ("1", "LOCAL_WORLD_SIZE", 7),
        ("", None, 7),
        ("0", None, 7),
        ("many", None, 7),
    ],
)
def test_threads_that_the_environment_asks_for(machine, monkeypatch, word, launcher, threads):
    machine(cores=7)
    for name in hardware_plan.LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", word)
    if launcher is not None:
        monkeypatch.setenv(launcher, "1")
    plan = hardware_plan.plan_hardware(schema.Model(), schema.Train())
    assert plan.threads == threads
    told = [reason for reason in plan.reasons if reason.endswith("as OMP_NUM_THREADS says")]
    assert [reason.split()[0] for reason in told] == [str(threads)] * (threads != 7)
    chosen = hardware_plan.plan_hardware(schema.Model(), schema.Train(threads=2))
    assert chosen.threads == 2
    assert not any("OMP_NUM_THREADS" in reason for reason in chosen.reasons)


@pytest.mark.parametrize("kind", ["xpu", "npu"])
def test_other_accelerators_are_refused_with_the_setting_that_helps(machine, monkeypatch, kind):
    machine()
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda: SimpleNamespace(type=kind)
    )
    with pytest.raises(InputError) as told:
        hardware_plan.plan_hardware(schema.Model(), schema.Train())
    assert [*told.value.problems] == [
        f"this machine has an accelerator of the kind {kind}; expected CUDA, MPS or a CPU, for "
        "which training and prediction are made; set ACCELERATE_USE_CPU=true in the environment "
        "to run on the CPU"
    ]
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert hardware_plan.plan_hardware(schema.Model(), schema.Train()).device == "cpu"


def test_flash_attention_needs_half_precision(machine):
    machine(cuda=True, bf16_gpu=True)
    model = schema.Model(attention="flash_attention_2")
    assert hardware_plan.plan_hardware(model, schema.Train()).attention == "flash_attention_2"
    with pytest.raises(InputError, match="flash_attention_2 computes in bf16 or fp16"):
        hardware_plan.plan_hardware(model, schema.Train(precision="fp32"))


def test_a_deterministic_run_says_what_makes_it_so(machine, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", asked.append)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda how: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setenv("FLASH_ATTENTION_DETERMINISTIC", "")
    machine(cuda=True, bf16_gpu=True)
    plan = hardware_plan.plan_hardware(schema.Model(), schema.Train(), deterministic=True)
    assert "deterministic: algorithms that give the same bits" in " ".join(plan.reasons)
    assert plan.reasons[-1] == plan.reason_for(plan.micro_batch_tokens)
    hardware_plan.apply_plan(plan)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    hardware_plan.apply_plan(hardware_plan.plan_hardware(schema.Model(), schema.Train()))
    assert asked == [True]  # what nobody asked for stays as it is
    assert os.environ["FLASH_ATTENTION_DETERMINISTIC"] == "1"
    machine()
    plan = hardware_plan.plan_hardware(schema.Model(), schema.Train(), deterministic=True)
    assert "deterministic: a CPU gives the same bits at each run in any case" in plan.reasons
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(InputError, match="true needs a CUDA device or a CPU"):
        hardware_plan.plan_hardware(schema.Model(), schema.Train(), deterministic=True)


@pytest.mark.parametrize(("asked", "told"), [("on", 1), ("auto", 0), ("off", 0)])
def test_gradient_checkpointing_is_said_where_the_recipe_asks_for_it(machine, asked, told):
    machine()
    plan = hardware_plan.plan_hardware(schema.Model(), schema.Train(checkpointing=asked))
    assert sum("gradient checkpointing" in reason for reason in plan.reasons) == told
