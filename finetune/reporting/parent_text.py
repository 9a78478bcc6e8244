"""A model beside the one whose head it kept → sentences, and a table for the terminal."""

from collections.abc import Iterator

from finetune.data.cells import clip
from finetune.evaluation.analysis_model import ParentComparison
from finetune.reporting.number_formats import percent, signed
from finetune.reporting.slices_text import CLEAR, format_p
from finetune.runtime.errors import shorten

SHOWN = 5  # labels in the terminal


def explain_parent(parent: ParentComparison) -> Iterator[str]:
    """What is kept, what is forgotten, and whether new labels take from old ones."""
    low, high = (signed(100 * end) for end in parent.interval)
    where = (
        f"the {parent.rows:,} test documents of the {len(parent.kept):,} labels that both know"
        if parent.metric == "accuracy"
        else f"the {len(parent.kept):,} labels that both know"
    )
    yield (
        f"{parent.metric} on {where}: {percent(parent.before)} before, {percent(parent.after)} "
        f"now ({signed(100 * parent.difference)} points, 95 % interval {low} to {high})."
    )
    forgotten = [one for one in parent.labels if one.difference < 0 and one.p_value < CLEAR]
    if forgotten:
        listed = [f"‘{one.label}’ ({signed(100 * one.difference)} points)" for one in forgotten]
        yield f"Forgotten, by more than chance: {shorten(listed)}."
    else:
        yield "No label is forgotten by more than chance."
    if parent.taken_by_new:
        yield (
            f"{parent.taken_by_new:,} of these documents were right before and are now given a "
            "new label."
        )
    if parent.new_recall is not None:
        yield (
            f"Of {parent.new_rows:,} test documents with a new label, {percent(parent.new_recall)} "
            "are given it."
        )
    if parent.gone:
        yield f"No longer predicted, as the data lack them: {shorten(parent.gone, 10)}."


def tabulate_parent(parent: ParentComparison) -> list[list[str]]:
    """The labels that lost most, for the terminal."""
    rows = [["label", "rows", "recall before", "now", "points", "95 % interval", "p"]]
    for one in [one for one in parent.labels if one.difference < 0][:SHOWN]:
        low, high = (signed(100 * end) for end in one.interval)
        rows.append(
            [
                clip(one.label),
                f"{one.support:,}",
                percent(one.before),
                percent(one.after),
                signed(100 * one.difference),
                f"{low} to {high}",
                format_p(one.p_value),
            ]
        )
    return rows if len(rows) > 1 else []
