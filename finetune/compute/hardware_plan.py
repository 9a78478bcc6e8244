"""This machine → precision, attention implementation, micro-batch size, threads; each with why.

Decided by what the hardware can do, never by a stopwatch: every process of a run, and the same
run on another day, decides the same.
"""

import ctypes
import dataclasses
import os
import platform
from dataclasses import dataclass
from typing import Literal

import torch

from finetune.config import schema
from finetune.runtime.errors import InputError

# What `accelerate launch`, and torchrun below it, set for each process they start.
LAUNCHED = {"ACCELERATE_MIXED_PRECISION", "LOCAL_WORLD_SIZE"}
RECOMPUTED = "gradient checkpointing: each layer is computed again for its gradient"
WHY_DETERMINISTIC = {
    "cuda": "algorithms that give the same bits at each run on this GPU, some of them slower",
    "cpu": "a CPU gives the same bits at each run in any case",
    "mps": "",
}


@dataclass(frozen=True)
class Hardware:
    """How this machine runs the model, and in `reasons` why, a line for each choice."""

    device: Literal["cpu", "cuda", "mps"]
    name: str
    precision: Literal["fp32", "bf16", "fp16"]
    attention: str
    micro_batch_tokens: int
    threads: int
    reasons: tuple[str, ...]
    packed: bool = False  # rows end to end instead of padded (`packing.py` decides)
    deterministic: bool = False  # the same bits at each run, on a GPU too

    def reason_for(self, tokens: int) -> str:
        """The reason that names how much is computed at once."""
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"micro-batches of up to {tokens:,} tokens, {threads} in each process"


def plan_hardware(
    model: schema.Model, train: schema.Train, deterministic: bool = False
) -> Hardware:
    """Choose for this machine what the recipe leaves open.

    Args:
        deterministic: whether the recipe asks for the same bits at each run.

    Raises:
        InputError: where the recipe asks for what this machine cannot do.
    """
    device = _device()
    cuda_only = {
        "train.precision: fp16": (train.precision, "bf16, fp32 or auto"),
        "model.attention: flash_attention_2": (model.attention, "eager, sdpa or auto"),
    }
    problems = [
        f"{what} needs a CUDA device, and this run is on {device}; use {others}"
        for what, (requested, others) in cuda_only.items()
        if what.endswith(requested) and device != "cuda"
    ]
    if deterministic and device == "mps":
        problems.append(
            "run.deterministic: true needs a CUDA device or a CPU, and this run is on mps, where "
            "nothing promises it; leave run.deterministic out, or set ACCELERATE_USE_CPU=true in "
            "the environment"
        )
    precision, why_precision = _precision(device)
    if train.precision != "auto":
        precision, why_precision = train.precision, "as the recipe says"
    if model.attention == "flash_attention_2" and device == "cuda" and precision == "fp32":
        problems.append(
            "model.attention: flash_attention_2 computes in bf16 or fp16, and train.precision is "
            "fp32; use train.precision=auto, or model.attention=sdpa"
        )
    if problems:
        raise InputError(problems)
    attention, why_attention = _attention(device, precision)
    if model.attention != "auto":
        attention, why_attention = model.attention, "as the recipe says"
    tokens = train.micro_batch_tokens or {"cpu": 512, "mps": 4096, "cuda": 16384}[device]
    threads = train.threads or all_threads()
    chosen = Hardware(
        device=device,
        name=_name(device),
        precision=precision,
        attention=attention,
        micro_batch_tokens=tokens,
        threads=threads,
        reasons=(
            f"{precision}: {why_precision}",
            f"attention {attention}: {why_attention}",
            *_why_threads(train, threads),
            *[RECOMPUTED] * (train.checkpointing == "on"),
            *[f"deterministic: {WHY_DETERMINISTIC[device]}"] * deterministic,
        ),
        deterministic=deterministic,
    )
    return dataclasses.replace(chosen, reasons=(*chosen.reasons, chosen.reason_for(tokens)))


def apply_plan(chosen: Hardware) -> None:
    """Have this process use the planned threads, and keep memory that it will need again."""
    torch.set_num_threads(chosen.threads)
    if chosen.device == "cuda" and chosen.precision != "fp32":
        torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in fp32
    if chosen.device == "cuda" and chosen.deterministic:
        # Read when the first product is computed, and by transformers at each flash attention.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        os.environ["FLASH_ATTENTION_DETERMINISTIC"] = "1"
        torch.use_deterministic_algorithms(True)
    if chosen.device == "cpu":
        # Else each large tensor's memory goes back to the system and comes anew, page by page:
        # at 512 tokens a row that took a tenth of a step.
        keep_freed_memory(below=2**30)


def keep_freed_memory(below: int) -> None:
    """Have the C library keep freed memory for what comes next, but for blocks of so many bytes.

    What it keeps lies between blocks that are in use, and comes apart; the largest should go back
    where they are many times what is in use.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, below)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def _device() -> Literal["cpu", "cuda", "mps"]:
    """The device that accelerate's Accelerator comes to, by the same tests.

    Raises:
        InputError: for one that this program is not made for.
    """
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}:
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    other = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if other is not None:  # which accelerate would choose
        raise InputError(
            f"this machine has an accelerator of the kind {other.type}; expected CUDA, MPS or a "
            "CPU, for which training and prediction are made; set ACCELERATE_USE_CPU=true in the "
            "environment to run on the CPU"
        )
    return "cpu"


def _precision(device: str) -> tuple[Literal["fp32", "bf16", "fp16"], str]:
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU multiplies bf16 natively"
        return "fp16", "this GPU has no native bf16"
    if device == "mps":
        return "fp32", "mixed precision brings little on this device"
    if _has("_is_amx_tile_supported"):
        return "bf16", "this CPU multiplies bf16 natively (AMX)"
    if _has("_is_avx512_bf16_supported"):
        return "bf16", "this CPU multiplies bf16 natively (AVX512-BF16)"
    return "fp32", "this CPU has no native bf16, so bf16 would be slower"


def _attention(device: str, precision: str) -> tuple[str, str]:
    # Without AMX, the bf16 backward of scaled_dot_product_attention on CPU took 9 times as long as
    # eager attention's.
    if device == "cpu" and precision == "bf16" and not _has("_is_amx_tile_supported"):
        return "eager", "the bf16 backward of the fused kernel is slow on this CPU"
    return "sdpa", "the fused kernel is the fastest here"


def _has(probe: str) -> bool:
    """One of torch's CPU feature tests, False where this torch has no such test."""
    test = getattr(torch.cpu, probe, None)
    return bool(test and test())


def all_threads() -> int:
    """As many as OMP_NUM_THREADS says; else the cores, shared among this machine's processes."""
    share = _cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return threads_of_environment() or max(1, share)


def threads_of_environment() -> int | None:
    """OMP_NUM_THREADS, where a person set it.

    Launchers set it to 1 where nobody did, so below one of them 1 says nothing.
    """
    word = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # the first level's
    number = int(word) if word.isascii() and word.isdigit() else 0
    by_launcher = not LAUNCHED.isdisjoint(os.environ)
    return number if number > (1 if by_launcher else 0) else None


def _why_threads(train: schema.Train, threads: int) -> tuple[str, ...]:
    if train.threads is not None or threads_of_environment() is None:
        return ()
    return (f"{threads} thread{'s' * (threads > 1)}: as OMP_NUM_THREADS says",)


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    cores = _cores()
    return f"{platform.machine()} {device}, {cores} core{'s' * (cores > 1)}"
