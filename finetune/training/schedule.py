"""How long a run is, and each step's place in it: epoch, learning rate, what happens after it.

Everything here is a pure function of the step: no scheduler object, no state to save.

    schedule = Schedule.of(recipe, rows=len(train))
    schedule.position(step)       # (epoch, step within it)
    schedule.learning_rate(step)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from finetune.config import schema
from finetune.training.sampling import steps_per_epoch


@dataclass(frozen=True)
class Schedule:
    """The steps of a run, or of one of its stages.

    Attributes:
        begin, end: the first step, and the one after the last, counted through all stages.
        per_epoch: steps of an epoch.
        evaluate_every: steps between two scorings of validation.
        log_every: steps between two lines of the log, counted from `begin`.
        rate: the learning rate of a step, counted from `begin`.
        average_from: the first step whose weights count in their mean; `end`: none does.
    """

    begin: int
    end: int
    per_epoch: int
    evaluate_every: int
    log_every: int
    rate: Callable[[int], float]
    average_from: int

    @classmethod
    def of(
        cls, recipe: schema.Recipe, rows: int, begin: int = 0, rate_scale: float = 1.0
    ) -> "Schedule":
        """The schedule that a recipe asks for, over so many train rows.

        Args:
            begin: the first step, where this is a later stage of a run.
            rate_scale: what every rate is multiplied by, after a divergence.
        """
        train, every = recipe.train, recipe.score.every
        per_epoch = steps_per_epoch(rows, train.batch_size)
        return cls(
            begin=begin,
            end=begin + total_steps(rows, train),
            per_epoch=per_epoch,
            evaluate_every=(
                per_epoch * epochs_per_round(rows, train) if every == "epoch" else int(every)
            ),
            log_every=train.log_every,
            rate=learning_rates(recipe, rows, rate_scale),
            average_from=begin + average_begin(rows, train),
        )

    def position(self, step: int) -> tuple[int, int]:
        """A step's epoch, and its place in it. A later stage begins with an epoch of its own."""
        return divmod(step + -self.begin % self.per_epoch, self.per_epoch)

    def learning_rate(self, step: int) -> float:
        """The rate of a step."""
        return self.rate(step - self.begin)

    def is_logged(self, done: int) -> bool:
        """Whether a line of the log is due after so many steps: also after the first and last.

        Fewer steps than an interval are left after the last whole one: they belong to it. In a
        line of their own, their mean would jump in every chart, for no other reason than their
        small number.
        """
        if done in (self.begin + 1, self.end):
            return True
        return (done - self.begin) % self.log_every == 0 and self.end - done >= self.log_every

    def is_evaluated(self, done: int) -> bool:
        """Whether validation is scored after so many steps: also after the last."""
        return (done - self.begin) % self.evaluate_every == 0 or done == self.end


def total_steps(rows: int, train: schema.Train) -> int:
    """Optimizer steps of the whole run, or of a stage."""
    steps = resolve_epochs(rows, train) * steps_per_epoch(rows, train.batch_size)
    steps = max(steps, train.min_steps or 0)
    return steps if train.max_steps is None else min(steps, train.max_steps)


def average_begin(rows: int, train: schema.Train) -> int:
    """The first step, counted from 0, of those whose weights are averaged; the end: none is."""
    steps = total_steps(rows, train)
    return steps - math.ceil(round((train.average_last or 0.0) * steps, 9))


def resolve_epochs(rows: int, train: schema.Train) -> int:
    """Passes over the rows, before `train.min_steps` and `train.max_steps` change them."""
    if train.epochs == "auto":
        return schema.EPOCHS * epochs_per_round(rows, train)
    return train.epochs


def epochs_per_round(rows: int, train: schema.Train) -> int:
    """How many epochs `train.epochs: auto` counts as one; above 1, rows are few.

    Three epochs of a few dozen rows are three steps, which train nothing.
    """
    if train.epochs != "auto":
        return 1
    by_default = schema.EPOCHS * steps_per_epoch(rows, train.batch_size)
    least = min(train.min_steps or schema.LEAST_STEPS, schema.LEAST_STEPS)
    return max(1, -(-least // by_default))


def resolve_sampling(
    rows: int, train: schema.Train
) -> Literal["uniform", "balanced", "stratified"]:
    """How the rows of a step are drawn; `auto`: stratified where rows are few, else uniform."""
    if train.sampling != "auto":
        return train.sampling
    return "stratified" if epochs_per_round(rows, train) > 1 else "uniform"


def learning_rates(recipe: schema.Recipe, rows: int, scale: float = 1.0) -> Callable[[int], float]:
    """The recipe's learning rate, times `scale`, as a function of the step counted from 0."""
    steps = total_steps(rows, recipe.train)
    per_epoch = steps_per_epoch(rows, recipe.train.batch_size)
    return lambda step: scale * learning_rate(step, steps, per_epoch, recipe.optim)


def learning_rate(step: int, steps: int, per_epoch: int, optim: schema.Optim) -> float:
    """The learning rate of a step, counted from 0.

    Warm-up rises linearly to the peak. Then the rate decays towards 0, which it would reach just
    after the last step, so that every step learns. With `schedule_every: epoch` it only falls
    where an epoch begins.
    """
    assert isinstance(optim.lr, float), "the recipe, or a range test, resolves the rate"
    # Rounded, as 0.07 × 100 is a little above 7; and one step at least is at the peak.
    warmup = min(math.ceil(round(optim.warmup * steps, 9)), steps - 1)
    if step < warmup:
        return optim.lr * (step + 1) / (warmup + 1)
    if optim.schedule_every == "epoch":
        step = max(warmup, step - step % per_epoch)
    done = (step - warmup) / max(1, steps - warmup)  # 0 at the peak, below 1 at the last step
    if optim.schedule == "constant":
        return optim.lr
    if optim.schedule == "cosine":
        return optim.lr * (1 + math.cos(math.pi * done)) / 2
    return optim.lr * (1 - done)
