"""What training says on the terminal: rates, stages, scores, back-offs, resumes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune.runtime.console import print_line, print_wrapped
from finetune.training import stages
from finetune.training.lr_finder import LrRangeTest as LrRange
from finetune.training.schedule import average_begin
from finetune.training.time_budget import Speed, TimePlan


def format_rate(lr: float | str | None) -> str:
    return f"{lr:g}" if isinstance(lr, float) else str(lr)


def print_range_test(found: LrRange, stage: stages.Stage) -> None:
    """What a range test of the learning rate found, before the first step or a later stage's."""
    if stage.number == 1:
        print_line()
    mark = "Rate   " if stage.number == 1 else f"  rate of stage {stage.number}: "
    print_wrapped(f"{found.rate:g}: {found.why}", mark=mark)


def print_time_plan(plan: TimePlan, speed: Speed, minutes: float) -> None:
    """How many steps fit into `train.minutes`."""
    steps, scorings, closing = plan.seconds
    why = f"{speed.timed} steps, since undone, took {speed.step:,.3f} s each on average"
    if plan.is_capped:
        why += "; the number of epochs or steps ends the run before its time is over"
    print_line()
    print_wrapped(
        f"{plan.steps:,} steps in {minutes:g} minutes ({why}): about {steps:,.0f} s of training, "
        f"{scorings:,.0f} s of scoring validation every {plan.scored_every:,} steps and saving, "
        f"{closing:,.0f} s for the test scores and the report",
        mark="Time    ",
    )


def print_training() -> None:
    """The columns of what follows."""
    print_line()
    print_line("Training (loss ± its standard error over the rows since the last line)")


def print_stage(stage: stages.Stage) -> None:
    """A stage that begins, where there are several; and of which steps the weights are averaged."""
    if stage.count > 1:
        print_wrapped(
            f"stage {stage.number} of {stage.count}: steps {stage.begin + 1:,} to {stage.end:,}, "
            "lr "
            f"{format_rate(stage.recipe.optim.lr)}, {stage.recipe.model.describe_freezing()}",
            mark="  ",
        )
    steps = stage.end - stage.begin
    averaged = steps - average_begin(stage.rows, stage.recipe.train)
    if averaged:
        print_wrapped(
            f"averages the weights after the last {averaged:,} of {steps:,} steps",
            mark="  ",
        )


def print_validation(step: int, values: Mapping[str, float], best: bool) -> None:
    """One evaluation."""
    named = "  ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "loss_se")
    print_wrapped(f"validation at step {step:,}: {named}{', the best so far' * best}", mark="  ")


def print_back_off(error: Exception, step: int, scale: float) -> None:
    """That a run diverged, and from where it continues."""
    print_wrapped(f"{error}", mark="  ! ")
    print_wrapped(f"returned to step {step:,}, with {scale:g} times the learning rate", mark="  ! ")


def print_lowered(step: str, before: int, tokens: int, recomputes: bool) -> None:
    """That a step, in words, ran out of memory, and how it is computed again."""
    how = f"with {tokens:,} tokens at once instead of {before:,}"
    if recomputes:
        how = "with gradient checkpointing (train.checkpointing)"
    print_wrapped(f"{step}: out of memory; computed again {how}", mark="  ! ")


def print_resumed(point: Path, step: int, steps: int, notes: Sequence[str]) -> None:
    """Where a run resumes, and what changed since."""
    print_line()
    print_wrapped(f"Resuming from {point}: step {step:,} of {steps:,}", mark="")
    print_notes(notes)


def print_notes(notes: Sequence[str]) -> None:
    """Notes on choices that were made for the user."""
    for note in notes:
        print_wrapped(note, mark="  ! ")


def print_completed(folder: Path) -> None:
    """That only what comes after the results is left to do."""
    print_line()
    print_wrapped(f"The run in {folder} is trained and scored; completing it", mark="")


def print_finished(folder: Path) -> None:
    """That there is nothing left to do."""
    print_wrapped(
        f"The run in {folder} is finished, and its results.json is written. To train longer, raise "
        "train.epochs. To start a new run, leave out run.resume.",
        mark="",
    )
