"""`train.minutes` → how many steps fit, from the speed of a few that are then undone.

    speed = measure_speed(model, optimizer, rows, recipe, accelerator, seconds=6.0)
    plan = plan_steps(budget, speed, recipe, most=…)
    recipe = recipe.with_steps(plan.steps, plan.scored_every)

Time is looked at here alone, once. From then on the recipe names the steps, so that the schedule
is a function of the step as ever, and a run that is taken up, or repeated, does the same.
"""

import dataclasses
import math
import time
from dataclasses import dataclass

import numpy as np
from accelerate import Accelerator
from torch.nn import Module
from torch.optim import Optimizer

from finetune.config import schema
from finetune.evaluation.scoring import compute_logits
from finetune.runtime.distributed import run_on_main
from finetune.runtime.errors import InputError
from finetune.tokenization.token_table import TokenTable
from finetune.training import sampling
from finetune.training.loop import Callbacks, fit
from finetune.training.objective import LearnedRows
from finetune.training.schedule import Schedule, resolve_sampling
from finetune.training.step_memory import OnLowered
from finetune.training.train_log import TrainLog
from finetune.training.undo import undone

SHARE, LEAST_SECONDS, MOST_SECONDS = 0.03, 3.0, 30.0  # of the budget, that are timed
LEAST_TIMED = 3  # steps, after one that allocates and plans
MOST_TIMED = 200
SCORED = 64  # rows, where scoring is timed by itself
SCORINGS = 3, 10  # of validation, at least and at most
SCORING_SHARE = 0.1  # of the budget, above which fewer than the most are made
# Seconds of a run after its test scores: it calibrates, analyses and writes the report.
CLOSING = 5.0
SAVING = 1e-8  # seconds for each byte of the weights, wherever validation is scored
# Passes over train, beyond which more of them repeat what has been learnt.
MOST_EPOCHS = 30


@dataclass(frozen=True)
class Speed:
    """What the timed steps took.

    Attributes:
        step: seconds of an optimizer step of average length.
        forward: seconds of a forward pass over one token.
        timed: steps.
        whole: seconds of a forward pass over one token of a split for which no states of frozen
            layers are kept, where those of train are; None: as `forward`.
    """

    step: float
    forward: float
    timed: int
    whole: float | None = None


@dataclass(frozen=True)
class Budget:
    """The time there is, and what it must suffice for beside the steps.

    Attributes:
        minutes: of the recipe.
        spent: seconds of the run so far.
        validation, test: tokens to score.
        weights: bytes of the model.
        closing: tokens of validation or train that are scored once after the last step.
    """

    minutes: float
    spent: float
    validation: int
    test: int
    weights: int
    closing: int = 0


@dataclass(frozen=True)
class TimePlan:
    """Attributes:
    steps: of the run.
    scored_every: so many steps, validation is scored.
    seconds: of the steps, of all scorings with saving, of the test scores and what follows.
    is_capped: whether the recipe's epochs or steps, not time, decided.
    """

    steps: int
    scored_every: int
    seconds: tuple[float, float, float]
    is_capped: bool


def measure_speed(
    model: Module,
    optimizer: Optimizer,
    rows: LearnedRows,
    recipe: schema.Recipe,
    accelerator: Accelerator,
    on_lowered: OnLowered,
) -> Speed:
    """Time the run's first steps, and undo them; by each process's own clock.

    Args:
        model, optimizer: prepared by the accelerator; left as they are found.
        on_lowered: is told where a step ran out of memory, as of `StepMemory`.
    """
    assert recipe.train.minutes is not None
    seconds = min(MOST_SECONDS, max(LEAST_SECONDS, SHARE * 60 * recipe.train.minutes))
    log = TrainLog(accelerator, recipe.optim.max_grad_norm)
    clock: list[tuple[float, int, float]] = []  # seconds, tokens and forward's, after each step

    def has_enough(step: int, scored: bool) -> bool:
        clock.append((log.seconds, log.tokens, log.timer.read().get("forward", 0.0)))
        took = clock[-1][0] - clock[0][0]
        return run_on_main(accelerator, lambda: step > LEAST_TIMED and took >= seconds)

    # A rate of 0: what the steps would learn does not matter. Drawn as the run's steps will be.
    length = {"epochs": MOST_TIMED, "max_steps": MOST_TIMED, "min_steps": None, "log_every": 1}
    how = {"sampling": resolve_sampling(len(rows.table), recipe.train)}
    timed = recipe.model_copy(update={"train": recipe.train.model_copy(update=length | how)})
    schedule = dataclasses.replace(
        Schedule.of(timed, len(rows.table)), rate=lambda step: 0.0, average_from=MOST_TIMED
    )
    with undone(model, optimizer, accelerator):
        callbacks = Callbacks(after_step=has_enough, lowered=on_lowered)
        fit(model, optimizer, rows, schedule, timed, accelerator, log, callbacks)
    took, tokens, forward = (last - first for first, last in zip(clock[0], clock[-1], strict=True))
    batch = min(recipe.train.batch_size, len(rows.table))
    step = took / tokens * batch * float(rows.table.lengths.mean())
    # Tokens of all processes, which score as they train: each its part.
    return Speed(step, forward / tokens, len(clock) - 1)


def measure_scoring(
    model: Module, table: TokenTable, accelerator: Accelerator, micro_batch_tokens: int
) -> float:
    """Seconds of a forward pass over one token, of some rows of a table. All processes call this.

    Args:
        model: prepared by the accelerator.
    """
    some = table.take(np.unique(np.linspace(0, len(table) - 1, SCORED).astype(np.int64)))
    tokens = int(some.lengths.sum())
    share = -(-tokens // accelerator.num_processes)  # so that each process has some of them
    begin = time.perf_counter()
    compute_logits(model, some, accelerator, min(micro_batch_tokens, share))
    return (time.perf_counter() - begin) / tokens


def most_steps(rows: int, train: schema.Train) -> int:
    """Steps beyond which time that is left is not used."""
    per_epoch = sampling.steps_per_epoch(rows, train.batch_size)
    epochs = MOST_EPOCHS if train.epochs == "auto" else train.epochs
    steps = epochs * per_epoch
    if train.epochs == "auto":
        steps = max(steps, schema.LEAST_STEPS)
    return steps if train.max_steps is None else min(steps, train.max_steps)


def plan_steps(
    budget: Budget, speed: Speed, score: schema.Score, most: int, fewest: int = SCORINGS[0]
) -> TimePlan:
    """The most steps whose training, scoring and closing end in time.

    Args:
        score: whose `every` decides how often validation is scored, if it is a number.
        most: steps, however much time there is.
        fewest: scorings of validation, however little time there is.

    Raises:
        InputError: where there is no time for a single step.
    """
    validation = budget.validation * speed.forward + SAVING * budget.weights
    whole = speed.forward if speed.whole is None else speed.whole
    closing = budget.closing * speed.forward + budget.test * whole + CLOSING
    left = 60 * budget.minutes - budget.spent - closing
    if score.every == "epoch":
        most_scorings = SCORINGS[1]
        scorings = math.floor(SCORING_SHARE * left / validation) if validation else most_scorings
        scorings = min(max(scorings, fewest), most_scorings)
        steps = math.floor((left - scorings * validation) / speed.step)
        every = math.ceil(min(steps, most) / scorings)
    else:
        steps = math.floor(left / (speed.step + validation / score.every))
        every = score.every
    if steps < 1:
        needs = (60 * budget.minutes - left + fewest * validation + speed.step) / 60
        raise InputError(
            f"train.minutes: {budget.minutes:g} leaves no time to train: preparing took "
            f"{budget.spent:,.1f} s, a step takes {speed.step:,.2f} s, scoring validation and "
            f"saving the model {validation:,.1f} s, the test scores and the report {closing:,.1f} "
            f"s; expected at least {math.ceil(10 * needs) / 10:g}"
        )
    planned = min(steps, most)
    every = max(1, min(every, planned))
    times = (
        planned * speed.step,
        -(-planned // every) * validation,
        closing,
    )
    return TimePlan(planned, every, times, is_capped=steps > most)
