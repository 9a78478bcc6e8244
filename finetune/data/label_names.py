"""What is odd about the names of labels, as findings: nothing is changed here.

- Labels that look alike are kept apart, where the recipe does not have them merged; if they mean
  the same, they split its rows.
- A label such as `sport;money` may be two, with something between them.
- A label such as `NaN` may be a missing one, as programs write it where they have none.
- A label of the label space may have no row in train.
- A list of one label in each row makes a job of several labels out of one that has one a row.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from finetune.data.cells import format_rows
from finetune.data.corpus import Finding
from finetune.data.label_space import MergedLabels
from finetune.data.row_rules import FindingLog, SplitRows, split_names
from finetune.data.similar_labels import find_joined, find_similar, show_apart, show_label
from finetune.runtime.errors import shorten

# How pandas, R, SQL, Excel, JSON and YAML write a cell that has no value, in lower case.
MISSING = frozenset(
    ["nan", "null", "none", "na", "n/a", "#n/a", "#na", "<na>", "nil", "nat", "undefined", "\\n"]
)


def note_label_names(
    splits: Mapping[str, SplitRows], merged: MergedLabels, log: FindingLog
) -> None:
    """Note what is odd about the labels' names, each label with its rows in all splits.

    Args:
        merged: what labels became that look like others.
    """
    labelled = [split for split in splits.values() if split.is_labelled]
    counts: Counter[str] = Counter()
    for split in labelled:
        counts += split.count_labels()
    _note_merged_labels(merged, log)
    _note_similar_labels(counts, log)
    _note_missing_labels(counts, log)
    if any(split.rows.multi_label for split in labelled):
        _note_single_labels(labelled, log)
    else:
        _note_joined_labels(counts, log)


def note_unused_labels(
    space: Sequence[str], pool: SplitRows, log: FindingLog, has_shares: bool
) -> None:
    """Labels of the label space that no train row has."""
    used = pool.count_labels()
    unused = tuple(name for name in space if name not in used)
    if unused:
        rule = "kept in the label space, and never learned"
        if has_shares:
            rule = "kept in the label space, and learned from its shares alone"
        log.findings.append(Finding("unused label", "train", len(unused), unused, rule))


def _note_merged_labels(merged: MergedLabels, log: FindingLog) -> None:
    groups = [_list_group(names, merged.counts) for names in merged.groups().values()]
    if groups:
        into = shorten([show_label(name) for name in merged.groups()], 10)
        rule = f"merged into {into} (data.similar_labels)"
        log.findings.append(Finding("merged labels", "source", len(groups), tuple(groups), rule))


def _note_similar_labels(counts: Mapping[str, int], log: FindingLog) -> None:
    nodes = count_nodes(counts, log.data.hierarchy)
    groups = [_list_group(group, nodes) for group in find_similar(nodes)]
    if groups:
        rule = "kept apart; if they mean the same, correct the data"
        if log.data.similar_labels == "apart" and log.data.label_probabilities is None:
            rule += ", or set data.similar_labels=merge"
        log.findings.append(Finding("similar labels", "source", len(groups), tuple(groups), rule))


def count_nodes(counts: Mapping[str, int], separator: str | None) -> Counter[str]:
    """The rows of labels, and of what is above them where their names have levels."""
    if separator is None:
        return Counter(counts)
    nodes: Counter[str] = Counter()
    for label, count in counts.items():
        parts = label.split(separator)
        for i in range(len(parts)):
            nodes[separator.join(parts[: i + 1])] += count
    return nodes


def _list_group(labels: Sequence[str], counts: Mapping[str, int]) -> str:
    """Labels that look alike, so that they can be told apart, with their rows."""
    return " and ".join(
        f"{shown} ({format_rows(counts[name])})"
        for name, shown in zip(labels, show_apart(labels), strict=True)
    )


def _note_missing_labels(counts: Mapping[str, int], log: FindingLog) -> None:
    found = [label for label in counts if label.strip().lower() in MISSING]
    if found:
        listed = [f"{show_label(label)} ({format_rows(counts[label])})" for label in found]
        rule = "read as any other label; where it means none, leave the cell empty"
        log.findings.append(Finding("missing labels", "source", len(found), listed, rule))


def _note_joined_labels(counts: Mapping[str, int], log: FindingLog) -> None:
    """Note the labels that may be several, with something between them."""
    found = find_joined(counts)
    if found is not None:
        mark, labels = found
        rows = sum(counts[label] for label in labels)
        listed = [f"{show_label(label)} ({format_rows(counts[label])})" for label in labels]
        rule = (
            f"each read as one label, in {format_rows(rows)} in all; where a row may have several, "
            f"set data.label_separator='{mark}'"
        )
        log.findings.append(Finding("joined labels", "source", len(labels), listed, rule))


def _note_single_labels(labelled: Sequence[SplitRows], log: FindingLog) -> None:
    """Note that rows that may have several labels have one, where that is so of all."""
    sizes = {
        len(split_names(split.distinct_labels[code]))
        for split in labelled
        for code in np.unique(split.label_codes[split.keep])
    }
    if sizes == {1}:
        rows = sum(len(split.keep) for split in labelled)
        rule = (
            "read as rows that may have several, each label with a probability of its own; where a "
            "row never has more than one, give it as text in one column, not as a list, and "
            "without data.label_separator"
        )
        log.findings.append(Finding("single labels", "source", rows, (), rule))
