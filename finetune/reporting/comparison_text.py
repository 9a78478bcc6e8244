"""A comparison of runs on the terminal: what differs, the scores, the labels and the documents."""

import textwrap
from collections.abc import Iterator, Sequence

from finetune.data.cells import clip
from finetune.reporting.comparison_model import (
    ChangedDocument,
    ComparedLabel,
    ComparedPair,
    Comparison,
    Names,
)
from finetune.reporting.number_formats import short_names, signed
from finetune.reporting.run_differences import Setting
from finetune.runtime.console import format_table
from finetune.runtime.wording import count_of

WIDTH = 80
LABELS = 8  # that are listed of a pair, beside those that changed clearly
DOCUMENTS = 5  # that are listed of each direction
TEXT = 150  # characters of a document


def describe_comparison(comparison: Comparison) -> str:
    """All of it, in lines of at most 80 columns; of two runs also labels and documents."""
    blocks = [
        f"{comparison.rows:,} test documents",
        describe_differences(comparison.settings, comparison.identity, len(comparison.runs)),
        comparison.table,
        *(_fill(f"! {note}", "", "  ") for note in comparison.notes),
        "\n".join(_fill(verdict) for verdict in comparison.verdicts),
    ]
    alone = len(comparison.pairs) == 1
    for pair in comparison.pairs:
        blocks.append("\n".join(_changes(pair, alone)))
    return "\n\n".join(blocks)


def describe_differences(
    settings: Sequence[Setting], identity: Sequence[Setting], runs: int
) -> str:
    """What differs between the runs, a line for each key."""
    if not (settings or identity):
        return "What differs: nothing in the recipes, documents, weights and versions"
    order = "first → second" if runs == 2 else "in the order of the table"
    found = [f"What differs ({order})"]
    keys = [setting.key for setting in (*settings, *identity)]
    width = min(30, max(map(len, keys)))
    for setting in (*settings, *identity):
        said = f"{setting}" + (f" ({setting.meaning})" if setting.meaning else "")
        found.append(_fill(clip(said, 400), f"  {setting.key:<{width}}  ", " " * (width + 4)))
    return "\n".join(found)


def _changes(pair: ComparedPair, in_detail: bool) -> Iterator[str]:
    """Labels and documents of a pair; of several pairs their counts and names alone."""
    one, other = short_names([pair.one, pair.other], 30)
    yield f"{one} → {other}"
    yield _fill(_describe_labels(pair), "  Labels     ", " " * 13)
    if in_detail:
        yield _label_table(pair)
    yield _fill(describe_documents(pair), "  Documents  ", " " * 13)
    if in_detail:
        yield from _documents("Right → wrong", pair.worsened)
        yield from _documents("Wrong → right", pair.improved)


def _describe_labels(pair: ComparedPair) -> str:
    if not (pair.gained or pair.lost):
        return "no label's F1 differs clearly (p below 0.05, corrected for all labels)"
    parts = [
        f"{word} clearly: {', '.join(clip(name, 40) for name in names)}"
        for word, names in (("gained", pair.gained), ("lost", pair.lost))
        if names
    ]
    return "; ".join(parts)


def describe_documents(pair: ComparedPair) -> str:
    """How many documents changed, and whether that is more than chance."""
    return (
        f"{pair.only_one_right:,} right → wrong, {pair.only_other_right:,} wrong → right (McNemar "
        f"p = {pair.p_holm:.2g}); {pair.both_right:,} right in both, {pair.both_wrong:,} wrong in "
        "both"
    )


def shown_labels(pair: ComparedPair, most: int) -> list[ComparedLabel]:
    """Those that changed clearly, then those that changed most."""
    changed = [label for label in pair.labels if label.changed]
    others = [label for label in pair.labels if not label.changed and label.f1.difference]
    return changed + others[: max(0, most - len(changed))]


def _label_table(pair: ComparedPair) -> str:
    shown = shown_labels(pair, LABELS)
    if not shown:
        return "             every label has the same F1 in both"
    rows = [("label", "support", "F1", "", "points", "95 % interval", "p")]
    for label in shown:
        low, high = (signed(100 * end) for end in label.f1.interval)
        rows.append(
            (
                clip(label.label, 24),
                f"{label.support:,}",
                f"{label.f1_one:.3f}",
                f"{label.f1_other:.3f}",
                signed(100 * label.f1.difference),
                f"{low} to {high}",
                f"{label.p_holm:.2g}",
            )
        )
    table = format_table(rows, indent=4)
    if more := len(pair.labels) - len(shown):
        table += f"\n    {count_of(more, 'more label')} with smaller differences"
    return table


def _documents(title: str, documents: Sequence[ChangedDocument]) -> Iterator[str]:
    """The first few. One of the two predictions is the true label, by the title."""
    if not documents:
        return
    several = f", {DOCUMENTS} of {len(documents):,}" if len(documents) > DOCUMENTS else ""
    yield f"  {title}{several}"
    for document in documents[:DOCUMENTS]:
        named = "" if document.id is None else f" ({document.id})"
        change = f"{format_names(document.one)} → {format_names(document.other)}"
        yield _fill(f"{document.row}{named}: {change}", " " * 4, " " * 6)
        if document.text:
            yield _fill(clip(" ".join(document.text.split()), TEXT), " " * 6, " " * 6)


def format_names(names: Names) -> str:
    """A row's label, or its labels."""
    return names if isinstance(names, str) else ", ".join(names) or "no label"


def _fill(text: str, first: str = "", later: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    )
