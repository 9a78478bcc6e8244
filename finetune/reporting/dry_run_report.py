"""What a dry run prints: documents as they are read, rates, a time, the recipe's own keys."""

import numpy as np

from finetune.compute.time_estimate import TimeEstimate
from finetune.config import loader
from finetune.config.schema import Recipe
from finetune.data.cells import clip
from finetune.data.corpus import Split, label_names_of
from finetune.runtime.console import format_table, print_line, print_wrapped
from finetune.tokenization.token_table import TokenTable
from finetune.training import sampling, schedule, stages
from finetune.training.prepared_data import PreparedData
from finetune.training.run_folder import Start

SHOWN = 3  # documents
LONGEST = 300  # characters of a document


def print_dry_run(
    recipe: Recipe, data: PreparedData, start: Start, estimate: TimeEstimate | None
) -> None:
    """What a run would do, and where a resumed one would start.

    Args:
        recipe: as the run would save it.
    """
    table = data.tokens.tables["train"]
    print_documents(data)
    print_rates(recipe, table)
    if estimate is not None:
        print_line("\nTime")
        print_wrapped(describe_time(estimate), mark="  ")
    own = loader.to_yaml(recipe, whole=False)
    print_line(f"\nThe recipe, where it differs from the defaults\n\n{own}")
    if start.finished:
        print_wrapped(
            f"The run in {start.folder} is finished: to train longer, raise train.epochs.", mark=""
        )
    elif start.point is not None:
        print_wrapped(f"It would resume from {start.point}, if this recipe wrote that.", mark="")
    print_line("A dry run: no weights were loaded, nothing was written.")


def print_documents(data: PreparedData) -> None:
    """The first train document, one of usual length and the longest, as the encoder reads them."""
    table, split = data.tokens.tables["train"], data.corpus.train
    by_length = np.argsort(table.full, kind="stable")
    chosen = dict.fromkeys([0, int(by_length[len(by_length) // 2]), int(by_length[-1])])
    for row in range(min(SHOWN, len(table))):  # where two of these are one
        if len(chosen) < SHOWN:
            chosen.setdefault(row)
    print_line("\nDocuments as they are read")
    for row in chosen:
        print_wrapped(_describe_document(row, table, split, data), mark="  ")


def _describe_document(row: int, table: TokenTable, split: Split, data: PreparedData) -> str:
    """`train.csv: row 12, sport, 512 of 740 tokens: [CLS] the …`."""
    assert split.labels is not None, "train rows without labels are refused"
    labels = ", ".join(label_names_of(split.labels[row], data.corpus.labels)) or "no label"
    count = f"{table.full[row]:,} tokens"
    if table.lost_tokens[row]:
        kept = table.full[row] - table.lost_tokens[row]
        count = f"{kept:,} of {count}"
    piece = row
    if table.first is not None:
        piece, windows = int(table.first[row]), int(table.first[row + 1] - table.first[row])
        count += f" in {windows:,} windows, of which the first is" * (windows > 1)
    ids = table.ids[table.span(piece)]
    text = " ".join(str(data.tokens.tokenizer.decode(ids.tolist())).split())
    return f"{split.places.place(row)}, {clip(labels, 60)}, {count}: {clip(text, LONGEST)}"


def print_rates(recipe: Recipe, train: TokenTable) -> None:
    """The learning rate by step, of each stage."""
    per_epoch = sampling.steps_per_epoch(len(train), recipe.train.batch_size)
    planned = stages.plan_stages(recipe, len(train))
    rows = [["stage", "step", "epoch", "lr"]]
    print_line("\nLearning rate")
    if recipe.train.awaits_plan:
        print_line("  its steps are found by timing the first ones, for train.minutes")
        return
    for stage in planned:
        steps = stage.end - stage.begin
        if stage.recipe.optim.lr == "auto":
            of_stage = f" of stage {stage.number}" if len(planned) > 1 else ""
            print_line(f"  a range test on train rows finds it before the first step{of_stage}")
            continue
        for step in sorted({0, *(round(i * (steps - 1) / 10) for i in range(11))}):
            done = stage.begin + step + 1
            rate = schedule.learning_rate(step, steps, per_epoch, stage.recipe.optim)
            rows.append([f"{stage.number}", f"{done:,}", f"{done / per_epoch:.2f}", f"{rate:.3e}"])
    if len(rows) > 1:
        print_line(format_table(row[len(planned) == 1 :] for row in rows))


def describe_time(found: TimeEstimate) -> str:
    """The estimate, and how it was made."""
    return (
        f"about {format_duration(found.seconds)} of training on this machine. That is an estimate: "
        f"{found.timed_tokens:,} tokens of train, forward and backward through an encoder of this "
        f"shape with random weights, took {found.timed_seconds:.2g} s, and training reads "
        f"{found.tokens:,}. The optimizer, scoring and saving come on top; sequence packing, and "
        "frozen layers that are computed once, save some."
    )


def format_duration(seconds: float) -> str:
    """`40 seconds`, `12 minutes`, `3.5 hours`."""
    if seconds < 100:
        return f"{max(1, round(seconds)):,} second{'s' * (round(seconds) > 1)}"
    if seconds < 100 * 60:
        return f"{round(seconds / 60):,} minutes"
    return f"{seconds / 3600:,.3g} hours"
