"""What a run says on the terminal: its data, its plan, its scores. Nothing is decided here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune import batches, loop, optim, recipe_file
from finetune.corpus import Corpus, class_counts
from finetune.hardware import Hardware
from finetune.recipe import Recipe
from finetune.terminal import say, say_wrapped, table
from finetune.tokens import TokenTable

MOST_CLASSES = 12  # that are listed one by one


def say_source(choices: Recipe) -> None:
    """Said before it is read: a large file or the Hub may take its time."""
    say_wrapped(choices.data.source, mark="Data   ")


def say_data(corpus: Corpus, tables: Mapping[str, TokenTable], max_length: int) -> None:
    """The splits, their classes, and what was found in the rows."""
    rows = [("", "rows", "tokens", "median", "longest", f"cut at {max_length}")]
    for split in corpus.splits():
        tokens = tables[split.name]
        share = f"{tokens.truncated:,} ({100 * tokens.truncated / len(tokens):.0f} %)"
        rows.append(
            (
                split.name,
                f"{len(tokens):,}",
                f"{tokens.lengths.sum():,}",
                f"{int(sorted(tokens.full)[len(tokens) // 2]):,}",
                f"{tokens.full.max():,}",
                share,
            )
        )
    say(table(rows))
    for split in corpus.splits():
        say_wrapped(f"{split.name}: {split.origin}", mark="  ")
    counts = class_counts(corpus.train, corpus.labels)
    if len(counts) <= MOST_CLASSES:
        listed = ": " + ", ".join(f"{name} {count:,}" for name, count in counts.items())
    else:
        least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        listed = f", from {counts[least]:,} rows ({least}) to {counts[most]:,} ({most})"
        if counts[least] == counts[most]:
            listed = f", {counts[most]:,} rows each"
    say_wrapped(f"{len(counts)} labels in train{listed}", mark="  ")
    for finding in corpus.findings:
        say_wrapped(str(finding), mark="  ! ")


def say_plan(
    choices: Recipe, plan: Hardware, processes: int, sharded: bool, train: TokenTable
) -> None:
    """What will be computed, on what."""
    steps = loop.total_steps(len(train), choices.train)
    of = choices.optim
    say()
    say_wrapped(
        f"{choices.model.source}, head {choices.model.head}, frozen {choices.model.freeze}",
        mark="Model  ",
    )
    say_wrapped(
        f"{steps:,} steps of {choices.train.batch_size} documents, {choices.train.epochs} "
        f"epoch{'s' * (choices.train.epochs > 1)}; {of.name}, lr {of.lr:g}, {of.schedule}",
        mark="Train  ",
    )
    sharing = f"{processes} process{'es' * (processes > 1)}" + ", weights sharded" * sharded
    say_wrapped(f"{plan.name}, {sharing}", mark="On     ")
    for reason in plan.reasons:
        say_wrapped(reason, mark="       ")


def say_dry_run(choices: Recipe, train: TokenTable) -> None:
    """The resolved recipe and the learning-rate table."""
    steps = loop.total_steps(len(train), choices.train)
    per_epoch = batches.steps_per_epoch(len(train), choices.train.batch_size)
    say("\nLearning rate")
    shown = sorted({0, *(round(i * (steps - 1) / 10) for i in range(11))})
    rows = [("step", "epoch", "lr")]
    for step in shown:
        rate = optim.learning_rate(step, steps, per_epoch, choices.optim)
        rows.append((f"{step + 1:,}", f"{(step + 1) / per_epoch:.2f}", f"{rate:.3e}"))
    say(table(rows))
    say(f"\nThe recipe, resolved\n\n{recipe_file.to_yaml(choices)}")
    say("A dry run: no weights were loaded, nothing was written.")


def say_training() -> None:
    """The columns of what follows."""
    say()
    say("Training (loss ± its standard error over the rows since the last line)")


def say_validation(step: int, values: Mapping[str, float], best: bool) -> None:
    """One evaluation."""
    named = "  ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "loss_se")
    say_wrapped(f"validation at step {step:,}: {named}{', the best so far' * best}", mark="  ")


def say_back_off(error: Exception, step: int, scale: float) -> None:
    """A run that diverged and goes on."""
    say_wrapped(f"{error}", mark="  ! ")
    say_wrapped(f"back at step {step:,}, with {scale:g} times the rate", mark="  ! ")


def say_resumed(point: Path, step: int, steps: int, notes: Sequence[str]) -> None:
    """Where a run is taken up, and what changed since."""
    say()
    say_wrapped(f"Going on from {point}: step {step:,} of {steps:,}", mark="")
    say_notes(notes)


def say_notes(notes: Sequence[str]) -> None:
    """What a person should know of a choice that was made."""
    for note in notes:
        say_wrapped(note, mark="  ! ")


def say_finished(folder: Path) -> None:
    """Nothing left to do."""
    say_wrapped(
        f"The run in {folder} is finished, its results.json stands; to train on, raise "
        "train.epochs; to start anew, leave run.resume out",
        mark="",
    )


def say_results(results: Mapping[str, Any], folder: Path) -> None:
    """The scores and where everything is."""
    validation, test, train = results["validation"], results["test"], results["train"]
    names = [name for name in validation if name not in ("rows", "step", "loss_se")]
    say(
        f"\nTrained {train['steps']:,} steps in {train['seconds']:.0f} s, "
        f"{train['rows_per_second']:.0f} documents/s"
    )
    columns = [validation, test] if test["labelled"] else [validation]
    say(
        table(
            [("", *("validation", "test")[: len(columns)])]
            + [(name, *(f"{column[name]:.4f}" for column in columns)) for name in names]
            + [("rows", *(f"{column['rows']:,}" for column in columns))]
        )
    )
    if not test["labelled"]:
        say(f"  test has no labels: its {test['rows']:,} rows were predicted, not scored")
    elif "accuracy" in test:
        low, high = test["accuracy_interval"]
        say_wrapped(
            f"95 % interval of test accuracy: {low:.4f} to {high:.4f}; always answering "
            f"'{results['baseline']['label']}' would score {results['baseline']['accuracy']:.4f}",
            mark="  ",
        )
    say(f"\nWritten to {folder}")
    say("  results.json            all numbers")
    say("  model/                  the classifier")
    say("  predictions/test.jsonl  every answer on test")
    say("  metrics.jsonl           how it trained")
    say("  recipe.yaml             runs this again")
