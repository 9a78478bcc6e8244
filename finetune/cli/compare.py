"""Compare runs on the same test rows: which is better, by how much, and how sure that is.

    finetune compare runs/bbc_news/A runs/bbc_news/B [--page comparison.html] [--json]

Prints a table and a line for each pair, and writes a page. Runs whose test rows differ are refused.
"""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from finetune.cli.exit_codes import run_command
from finetune.cli.path_checks import check_all, check_run
from finetune.runtime.console import print_json, print_line, print_wrapped
from finetune.runtime.errors import InputError


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    return run_command(lambda: compare_runs(known.runs, known.page, known.json))


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, two or more")
    parser.add_argument(
        "--page",
        type=Path,
        default=Path("comparison.html"),
        help="the HTML page to write (default: %(default)s)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print the numbers as JSON, and nothing else"
    )
    return parser


def compare_runs(runs: Sequence[Path], page: Path, as_json: bool) -> int:
    """Compare the runs, write the page, and print the verdicts.

    Raises:
        InputError: for fewer than two runs, or runs of other test rows.
    """
    check_all(*(partial(check_run, run) for run in runs))
    from finetune.reporting import compare
    from finetune.runtime.atomic_files import write_text

    if len(runs) < 2:
        raise InputError(f"expected two run folders or more, got {runs[0]} alone")
    found = compare.compare_runs([compare.read_run(run) for run in runs])
    write_text(page, compare.as_page(found))
    if as_json:
        print_json(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    print_line(f"{found['rows']:,} test documents\n")
    print_line(compare.as_text(found))
    print_line()
    for pair in found["pairs"]:
        print_wrapped(compare.describe_pair(pair), mark="")
    print_line(f"\nReport: {page}")
    return 0
