"""Compare runs on the same test rows, or rank all runs of a folder.

    finetune compare runs/bbc_news/A runs/bbc_news/B [--page comparison.html]
    finetune compare runs/ [--page leaderboard.html] [--csv runs.csv]

Of two runs or more: which is better, what differs between their recipes, which labels changed and
which documents. Runs whose test rows differ are refused. Of a folder with runs in it: a leaderboard
by validation, with the test scores beside it. Nothing is written but what an option names.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.cli.output_files import add_overwrite, check_output
from finetune.cli.path_checks import check_all, check_run
from finetune.runtime.console import print_json, print_line
from finetune.runtime.errors import InputError


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    return run_command(lambda: compare(known))


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = CommandParser(prog=prog, description=__doc__)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or folders that hold runs")
    add("--all", action="store_true", help="rank the runs, also where each is named by itself")
    add("--page", type=Path, metavar="FILE", help="the HTML page to write")
    add("--csv", type=Path, metavar="FILE", help="the csv file of the leaderboard to write")
    add_overwrite(parser, "the files of --page and --csv, where there are some")
    add("--json", action="store_true", help="print the numbers as JSON, and nothing else")
    return parser


def compare(known: argparse.Namespace) -> int:
    """Compare the runs, or rank those of the folders.

    Raises:
        InputError: for what the user can fix.
    """
    check_all(
        partial(check_output, "--page", known.page, known.overwrite),
        partial(check_output, "--csv", known.csv, known.overwrite),
        *(partial(check_run, run) for run in known.runs if len(known.runs) > 1),
    )
    from finetune.reporting.run_progress import is_run, run_of

    runs = [run_of(run) for run in known.runs]
    if known.all or any(run.is_dir() and not is_run(run) for run in runs):
        return rank_runs(runs, known.page, known.csv, known.json)
    if known.csv is not None:
        raise InputError(
            "--csv: it is the leaderboard's; name a folder that holds runs, or add --all"
        )
    return compare_runs(runs, known.page, known.json)


def compare_runs(runs: Sequence[Path], page: Path | None, as_json: bool) -> int:
    """Compare the runs, write the page, and print what differs.

    Raises:
        InputError: for fewer than two runs, or runs of other test rows.
    """
    from finetune.reporting import compare, comparison_page, comparison_text
    from finetune.runtime.atomic_files import write_text

    if len(runs) < 2:
        raise InputError(
            f"expected two run folders or more, or a folder that holds runs, got {runs[0]} alone"
        )
    found = compare.compare_runs([compare.read_run(run) for run in runs])
    if page is not None:
        write_text(page, comparison_page.render_comparison(found))
    if as_json:
        print_json(found.model_dump_json(indent=2))
        return 0
    print_line(comparison_text.describe_comparison(found))
    print_line(f"\nReport: {page}" if page else "\n--page FILE writes all of it as a page")
    return 0


def rank_runs(folders: Sequence[Path], page: Path | None, csv: Path | None, as_json: bool) -> int:
    """Rank the runs of some folders, write page and csv file, and print the leaderboard.

    Raises:
        InputError: where there is no run in them.
    """
    from finetune.reporting import leaderboard, leaderboard_page, leaderboard_text
    from finetune.runtime.atomic_files import write_text

    board = leaderboard.rank_runs(folders)
    if page is not None:
        write_text(page, leaderboard_page.render_leaderboard(board, page))
    if csv is not None:
        write_text(csv, leaderboard_text.as_csv(board))
    if as_json:
        print_json(board.model_dump_json(indent=2))
        return 0
    print_line(leaderboard_text.describe_leaderboard(board))
    written = [str(file) for file in (page, csv) if file is not None]
    print_line(f"\nWritten to {', '.join(written)}" if written else "\n--page, --csv and --json "
               "have all of it")  # fmt: skip
    return 0
