"""Finished runs of the same test rows → which is better, by how much, how certain that is."""

import os
from pathlib import Path

from finetune.reporting import compare as comparing
from finetune.reporting.comparison_model import Comparison
from finetune.reporting.run_progress import run_of
from finetune.runtime.errors import InputError


def compare(*runs: str | os.PathLike[str]) -> Comparison:
    """Compare two finished runs or more, paired by test row.

        comparison = finetune.compare(run, "runs/tickets/2026-01-31_12-00-00")
        comparison.pairs[0].accuracy.interval

    Prints nothing and writes nothing; `print(comparison)` shows a table and the verdicts.

    Args:
        runs: runs, or their folders.

    Raises:
        InputError: for fewer than two, or runs that were not tested on the same rows.
    """
    if len(runs) < 2:
        raise InputError(f"finetune.compare: expected two runs or more, got {len(runs)}")
    folders = [run_of(Path(run)) for run in runs]
    return comparing.compare_runs([comparing.read_run(one) for one in folders])
