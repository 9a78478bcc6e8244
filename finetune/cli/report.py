"""Write the report.html of finished runs again, from results.json and metrics.jsonl.

    finetune report runs/bbc_news/…

Useful after an update of this package; the numbers stay those of the run.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.cli.path_checks import check_all, check_run
from finetune.runtime.console import print_line


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    return run_command(lambda: write_reports(known.runs))


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    return parser


def write_reports(runs: Sequence[Path]) -> int:
    """
    Raises:
        InputError: for a folder that holds no finished run.
    """
    check_all(*(partial(check_run, run) for run in runs))
    from finetune.reporting import html_report, results_model

    for run in runs:
        html_report.write_report(results_model.read_results(run), run)
        print_line(str(run / "report.html"), even_if_quiet=True)
    return 0
