"""A leaderboard on the terminal, in lines of at most 80 columns; and as a csv file for programs."""

import csv
import io
import json
import textwrap
from collections.abc import Iterator
from typing import Any

from finetune.data.cells import clip
from finetune.reporting.leaderboard_model import Group, Leaderboard, RankedRun
from finetune.reporting.number_formats import (
    format_interval,
    format_score,
    format_seconds,
    short_names,
)
from finetune.reporting.run_differences import format_setting
from finetune.runtime.wording import count_of

WIDTH = 80
SETTINGS = 320  # characters of a run's settings
HEADER = ("", "run", "validation", "test", "95 % interval", "trained", "date")


def describe_leaderboard(board: Leaderboard) -> str:
    """All groups, then the runs that are not finished."""
    blocks = [_describe_group(group) for group in board.groups]
    if len(board.groups) > 1:
        blocks.append("Scores of different groups cannot be compared: their test rows differ.")
    if board.others:
        names = short_names([other.run for other in board.others], 40)
        lines = ["Not ranked"]
        for name, other in zip(names, board.others, strict=True):
            lines.append(_fill(f"{name}: {other.state}, {other.why}", "  ", "    "))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def title_group(group: Group) -> str:
    """The documents that the runs of a group share."""
    return (
        f"{count_of(group.test_rows, 'test document')} of {group.source}, "
        f"{count_of(group.labels, 'label')} (test split {group.test[:12]})"
    )


def explain_rank(group: Group) -> str:
    """What the runs are ranked by, and what for the test score is there."""
    return (
        f"Ranked by {group.metric} on validation, which picks each model. Test is beside it for "
        "the run that you choose; choosing by it would make it too good."
    )


def describe_settings(group: Group, run: RankedRun) -> list[tuple[str, str]]:
    """What is a run's own in its group, key → value."""
    return [(key, format_setting(run.settings[key])) for key in group.keys] + [
        (word, said)
        for word, said, values in (
            ("train rows", f"{run.train_rows:,}", {one.train_rows for one in group.runs}),
            (
                "validation rows",
                f"{run.validation_rows:,}",
                {one.validation_rows for one in group.runs},
            ),
        )
        if len(values) > 1
    ]


def describe_shared(group: Group) -> str:
    """The encoder and the rows, where all runs of a group have the same."""
    first = group.runs[0]
    parts = []
    if len({run.encoder for run in group.runs}) == 1:
        parts.append(f"encoder {first.encoder}")
    if len({run.train_rows for run in group.runs}) == 1:
        parts.append(count_of(first.train_rows, "train document"))
    if len({run.validation_rows for run in group.runs}) == 1:
        parts.append(count_of(first.validation_rows, "validation document"))
    return ", ".join(parts)


def _describe_group(group: Group) -> str:
    lines = [_fill(title_group(group))]
    if shared := describe_shared(group):
        lines.append(_fill(f"All: {shared}"))
    lines += [_fill(explain_rank(group)), *(_fill(note, "! ", "  ") for note in group.notes), ""]
    rows = [HEADER, *(_row(run) for run in group.runs)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    # Names take what is left of a line.
    widths[1] = WIDTH - sum(widths) + widths[1] - 2 * (len(HEADER) - 1)
    names = short_names([run.run for run in group.runs], widths[1])
    widths[1] = max(map(len, ("run", *names)))
    rows = [HEADER, *((row[0], name, *row[2:]) for row, name in zip(rows[1:], names, strict=True))]
    for row, run in zip(rows, [None, *group.runs], strict=True):
        cells = [
            cell.ljust(width) if i in (1, len(HEADER) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
        if run is not None:
            lines += _below(group, run, " " * (widths[0] + 2))
    return "\n".join(lines)


def _row(run: RankedRun) -> tuple[str, ...]:
    """The cells below `HEADER`, but for the name."""
    return (
        "–" if run.rank is None else str(run.rank),
        "",
        format_score(run.validation),
        format_score(run.test, 3),
        format_interval(run.test_interval, 3) or "–",
        format_seconds(60 * run.minutes),
        run.started[:10],
    )


def _below(group: Group, run: RankedRun, indent: str) -> Iterator[str]:
    said = ", ".join(f"{key} {value}" for key, value in describe_settings(group, run))
    if said:
        yield _fill(clip(said, SETTINGS), indent, indent)
    for failure in run.failures:
        yield _fill(f"! {failure}", indent, indent)


def _fill(text: str, first: str = "", later: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    )


def as_csv(board: Leaderboard) -> str:
    """A line for each run, those that are not ranked too; settings are columns of their own."""
    keys = list(board.groups[0].runs[0].settings) if board.groups else []
    fixed = (
        *("group", "rank", "run", "state", "recipe", "started", "encoder", "data"),
        *("metric", "validation", "validation_low", "validation_high"),
        *("test", "test_low", "test_high"),
        *("train_rows", "validation_rows", "test_rows", "minutes", "why"),
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, (*fixed, *keys), restval="", lineterminator="\n")
    writer.writeheader()
    for number, group in enumerate(board.groups, 1):
        for run in group.runs:
            writer.writerow(_csv_row(number, group, run))
    for other in board.others:
        writer.writerow(other.model_dump())
    return text.getvalue()


def _csv_row(number: int, group: Group, run: RankedRun) -> dict[str, Any]:
    row: dict[str, Any] = run.model_dump(
        include={
            *("rank", "run", "recipe", "started", "encoder", "validation", "test"),
            *("train_rows", "validation_rows", "minutes"),
        }
    )
    for split, interval in (("validation", run.validation_interval), ("test", run.test_interval)):
        row[f"{split}_low"], row[f"{split}_high"] = interval or (None, None)
    return (
        row
        | {"group": number, "state": "finished", "data": group.source, "metric": group.metric}
        | {"test_rows": group.test_rows, "why": "; ".join(run.failures)}
        | {key: _csv_value(value) for key, value in run.settings.items()}
    )


def _csv_value(value: Any) -> Any:
    """Text and numbers as they are; lists, objects and truth as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value)
