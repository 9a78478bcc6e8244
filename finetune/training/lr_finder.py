"""A model about to be trained → a learning rate for it, found by a range test on train rows.

    found = find(model, optimizer, table, labels, recipe, budget, accelerator)

The rate grows step by step over orders of magnitude, from one at which nothing moves to one at
which all is lost (Smith 2017, arXiv 1506.01186), while the loss of each step's rows, taken before
they are learnt from, is smoothed. Where the smoothed loss falls is where a rate learns; where it
turns is where it is too high. Weights, the optimizer's memory and random states are put back, so
training starts as if nothing had been tried. Validation and test are not looked at.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from finetune.config import schema
from finetune.runtime import atomic_files
from finetune.runtime.console import print_wrapped
from finetune.training import sampling
from finetune.training.loop import Callbacks, fit
from finetune.training.objective import LearnedRows
from finetune.training.schedule import Schedule, resolve_sampling
from finetune.training.step_memory import OnLowered
from finetune.training.train_log import DivergedError, TrainLog
from finetune.training.undo import undone

FILE = "lr_range.json"
STEPS = 100  # of the test, or fewer where that is more than PASSES over train
ENDS = {"sgd": (1e-3, 3.0), "adamw": (1e-6, 1e-2)}
SMOOTHING = 0.9
FALL = 0.97  # of the first smoothed loss, or less: else nothing was learnt
LAST = 3  # steps, in which the loss has no time to turn
# How many times below the lowest point the default, or the best of eight rates, was on four data
# sets (scripts/studies/sgd_study.py): nearer than that, a test cannot tell.
NEAR, FAR = 3.0, 12.0
HARDLY = 8.0  # times the first rate: where the loss is lowest before, it only rose but for luck
PASSES = 10  # over the rows; after more, the loss shows memorization
RISE = 1.25  # times the lowest smoothed loss: from there on it is lost


@dataclass(frozen=True)
class LrRangeTest:
    """A range test.

    Attributes:
        rates, losses, smoothed: of each step; as long as it went. (steps,)
        lowest: the rate at which the smoothed loss was lowest.
        diverged: the rate at which it had risen clearly; None where it never did.
        rate: the suggestion.
        why: it, in words.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    lowest: float
    diverged: float | None
    rate: float
    why: str


def run_range_test(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    rows: LearnedRows,
    recipe: schema.Recipe,
    accelerator: Accelerator,
    on_lowered: OnLowered,
) -> LrRangeTest:
    """Try growing rates on train rows, put everything back, and suggest one.

    The same on any number of processes, but for the order in which floats are added.

    Args:
        model, optimizer: prepared by the accelerator; left as they are found.
        on_lowered: is told where a step ran out of memory, as of `StepMemory`.
    """
    with undone(model, optimizer, accelerator):
        rates, losses = _climb(model, optimizer, rows, recipe, accelerator, on_lowered)
    memorized = len(losses) == _most_steps(len(rows.table), recipe) < STEPS
    return suggest_rate(rates, losses, recipe.optim.name, memorized=memorized)


def announce_range_test(rows: int, recipe: schema.Recipe) -> None:
    """Say that a test begins, how long it may take, and where it can hardly tell anything."""
    most = _most_steps(rows, recipe)
    low, high = ENDS[recipe.optim.name]
    few = ""
    if most < STEPS:
        few = (
            f"; after these {PASSES} passes over the few rows of train, it can tell no more than "
            "which rate is far too high"
        )
    print_wrapped(
        f"range test of the learning rate, from {low:g} to {high:g} in {STEPS} steps: up to "
        f"{most} of them, which are then undone{few}",
        mark="  ",
    )


def _most_steps(rows: int, recipe: schema.Recipe) -> int:
    """How far a test goes over so many rows."""
    return min(STEPS, PASSES * sampling.steps_per_epoch(rows, recipe.train.batch_size))


def _climb(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    rows: LearnedRows,
    recipe: schema.Recipe,
    accelerator: Accelerator,
    on_lowered: OnLowered,
) -> tuple[list[float], list[float]]:
    """Rates and losses of the steps, until the loss has risen clearly. (steps,) each"""
    low, high = ENDS[recipe.optim.name]
    losses: list[float] = []
    most = _most_steps(len(rows.table), recipe)

    def rate_at(step: int) -> float:
        return float(low * (high / low) ** (step / (STEPS - 1)))

    # Enough epochs for as many steps, and a line for each; drawn as the run's steps will be.
    length = {"epochs": STEPS, "max_steps": most, "min_steps": None, "log_every": 1}
    how = {"sampling": resolve_sampling(len(rows.table), recipe.train)}
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update=length | how)})
    schedule = Schedule.of(recipe, len(rows.table))
    callbacks = Callbacks(
        log=lambda step, line: losses.append(line["loss"]),
        after_step=lambda step, scored: step == most or _is_lost(smooth(losses)),
        lowered=on_lowered,
    )
    try:
        fit(
            model,
            optimizer,
            rows,
            dataclasses.replace(schedule, rate=rate_at, average_from=schedule.end),
            recipe,
            accelerator,
            TrainLog(accelerator, recipe.optim.max_grad_norm),
            callbacks,
        )
    except DivergedError:
        losses.append(math.inf)
    return [rate_at(step) for step in range(len(losses))], losses


def smooth(losses: Sequence[float]) -> list[float]:
    """An exponential mean of the losses so far, free of the bias to its start. (steps,)"""
    mean, found = 0.0, []
    for i, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        found.append(mean / (1 - SMOOTHING**i))
    return found


def _is_lost(smoothed: Sequence[float]) -> bool:
    return smoothed[-1] > RISE * min(smoothed) and smoothed[-1] > RISE * smoothed[0]


def write_range_test(found: LrRangeTest, folder: Path, stage: int = 1) -> None:
    """Keep the test of a stage in a run's folder, in the place of an earlier one of that stage."""
    others = [one for one in read_range_tests(folder) if one["stage"] != stage]
    tests = sorted([*others, {"stage": stage} | asdict(found)], key=lambda one: one["stage"])
    atomic_files.write_json(folder / FILE, tests)


def read_range_tests(folder: Path) -> list[dict[str, Any]]:
    """The tests of a run, one for each stage whose rate its recipe left open, with its number."""
    file = folder / FILE
    if not file.is_file():
        return []
    tests: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return tests


def suggest_rate(
    rates: Sequence[float], losses: Sequence[float], optimizer: str, *, memorized: bool = False
) -> LrRangeTest:
    """The suggestion of a test's rates and losses. (steps,) each

    From NEAR to FAR times less than the rate at which the smoothed loss is lowest: there the loss
    has begun to turn, and a run holds its peak rate for longer than the test did. Within that, the
    default, which a study chose, is as good as any; beyond it, the rate at the nearer end, rounded,
    so that how floats were added does not decide it.
    """
    finite = [loss for loss in losses if math.isfinite(loss)]
    smoothed = smooth(finite)
    diverged = rates[len(smoothed) - 1] if _is_lost(smoothed) or len(finite) < len(losses) else None
    # The first steps' mean is of few rows, and may be lowest by chance.
    start = min(len(smoothed) - 1, round(1 / (1 - SMOOTHING)))
    at = start + int(np.argmin(smoothed[start:]))
    lowest = rates[at]
    default, why_not = schema.DEFAULT_LR[optimizer], None
    if memorized and diverged is None:
        why_not = (
            f"train has too few rows to try rates on: after {PASSES} passes over them, their loss "
            "shows memorization"
        )
    elif smoothed[at] > FALL * smoothed[start]:
        why_not = (
            f"no rate from {rates[0]:.2g} to {rates[-1]:.2g} made the loss of train's next rows "
            f"fall clearly (from {smoothed[start]:.3f} to {smoothed[at]:.3f})"
        )
    elif lowest < HARDLY * rates[0]:
        why_not = (
            f"the loss of train's next rows was lowest at {lowest:.2g}, hardly above the first "
            f"rate tried ({rates[0]:.2g})"
        )
    elif diverged is None and at >= STEPS - LAST:
        why_not = (
            f"the loss of train's next rows still fell at the highest rate tried, {rates[-1]:.2g}"
        )
    if why_not is not None:
        rate, why = default, f"the default, as {why_not}"
    else:
        rate, below = default, lowest / default
        said = f"the default is {below:.2g} times below the lowest point, and stays"
        if not NEAR <= below <= FAR:
            times = NEAR if below < NEAR else FAR
            rate = _rounded(lowest / times)
            said = (
                f"this is {times:g} times below the lowest point, rounded, as the default, "
                f"{default:g}, is too {'high' if below < NEAR else 'low'} for it"
            )
        end = "it never rose again" if diverged is None else f"it diverged at {diverged:.2g}"
        why = (
            f"as the rate grew from {rates[0]:.2g}, the loss of train's next rows fell from "
            f"{smoothed[start]:.3f} to {smoothed[at]:.3f} at {lowest:.2g}, then {end}; {said}"
        )
    return LrRangeTest([*rates[: len(finite)]], finite, smoothed, lowest, diverged, rate, why)


def _rounded(rate: float) -> float:
    """The nearest of 1, 1.5, 2, 3, 5 and 7 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rate))
    steps = [m * power for m in (1, 1.5, 2, 3, 5, 7, 10)]
    return float(f"{min(steps, key=lambda step: abs(math.log(step / rate))):.2g}")
