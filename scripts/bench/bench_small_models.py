"""Rows a second of `finetune predict`, and accuracy: a teacher, its students, and cascades of both.

    python scripts/bench/bench_small_models.py TEACHER STUDENT … --data test.jsonl
        [--rows 4000] [--rounds 3] [--max-loss 0.3] [--threads N]

TEACHER and STUDENT are folders of runs with the same `data` section, as scripts/studies/
small_model_study.py --keep leaves them. Jobs run by turns in one process, and say themselves how
long they took, as the command does: from the first row that is read to the last that is written.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.runtime import console


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("teacher")
    add("students", nargs="+")
    add("--data", type=Path, required=True, help="jsonl with the columns text and label")
    add("--rows", type=int, default=4000)
    add("--rounds", type=int, default=3)
    add("--max-loss", type=float, default=0.3)
    add("--threads", type=int)
    known = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home:
        print(time_sides(known, Path(home)))
    return 0


def time_sides(known: argparse.Namespace, home: Path) -> str:
    """A line for each side, the medians of its rounds."""
    rows = home / "rows.jsonl"
    with known.data.open(encoding="utf-8") as lines:
        rows.write_text("".join(itertools.islice(lines, known.rows)), encoding="utf-8")
    sides: list[tuple[str, str | None]] = [(known.teacher, None)]
    sides += [(student, None) for student in known.students]
    sides += [(known.teacher, student) for student in known.students]
    rates: dict[tuple[str, str | None], list[float]] = {side: [] for side in sides}
    accuracies, shares = {}, {}
    for _ in range(known.rounds):
        for side in sides:
            found = predict(known, side, rows, home / "out.jsonl")
            rates[side].append(found.computed / found.seconds)
            accuracies[side] = score(home / "out.jsonl")
            shares[side] = None if found.by_student is None else found.by_student / found.rows
    teacher = sides[0]
    table: list[Sequence[str]] = [("", "rows/s", "times", "accuracy", "points", "by student")]
    for side, took in rates.items():
        ratio = statistics.median(a / b for a, b in zip(took, rates[teacher], strict=True))
        name, share = Path(side[0]).name, shares[side]
        table.append(
            (
                name if side[1] is None else f"cascade of {Path(side[1]).name}",
                f"{statistics.median(took):,.0f}",
                f"{ratio:.2f}",
                f"{100 * accuracies[side]:.2f}",
                f"{100 * (accuracies[side] - accuracies[teacher]):+.2f}",
                "" if share is None else f"{100 * share:.1f} %",
            )
        )
    return console.format_table(table)


def predict(known: argparse.Namespace, side: tuple[str, str | None], rows: Path, out: Path) -> Any:
    """The summary of a job."""
    from finetune.inference.batch_job import run_job
    from finetune.inference.cascade import CascadeOptions
    from finetune.inference.engines import EngineOptions, ModelSource
    from finetune.inference.inputs import InputSpec
    from finetune.inference.job_options import ColumnOptions, JobOptions, OutputOptions

    model, student = side
    options = JobOptions(
        ModelSource(model),
        InputSpec(str(rows)),
        OutputOptions(out, overwrite=True),
        ColumnOptions(keep=("truth=label",)),
        cascade=None if student is None else CascadeOptions(ModelSource(student), known.max_loss),
        compute=EngineOptions(threads=known.threads),
    )
    with console.CONSOLE.at(console.Verbosity.SILENT):
        found = run_job(options)
    assert found is not None, "it overwrites"
    return found


def score(out: Path) -> float:
    """The share of rows whose label is right."""
    with out.open(encoding="utf-8") as lines:
        return statistics.fmean(row["label"] == row["truth"] for row in map(json.loads, lines))


if __name__ == "__main__":
    sys.exit(main())
