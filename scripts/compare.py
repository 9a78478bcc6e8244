"""Run folders of the same test rows → which is better, by how much, and how sure that is.

    python scripts/compare.py runs/bbc_news/A runs/bbc_news/B [--page comparison.html] [--json]

Prints a table and a line for each pair, and writes a page. Runs whose test rows differ are refused.
"""

import argparse
import json
import sys
from pathlib import Path

from finetune.reporting import compare
from finetune.runtime.atomic_files import write_text
from finetune.runtime.console import print_line, print_wrapped
from finetune.runtime.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, two or more")
    parser.add_argument("--page", type=Path, default=Path("comparison.html"), help="where it goes")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON alone")
    known = parser.parse_args()
    try:
        if len(known.runs) < 2:
            raise InputError(f"expected two run folders or more, got {known.runs[0]} alone")
        found = compare.compare_runs([compare.read_run(run) for run in known.runs])
        write_text(known.page, compare.as_page(found))
    except InputError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return 2
    if known.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    print_line(f"{found['rows']:,} test documents\n")
    print_line(compare.as_text(found))
    print_line()
    for pair in found["pairs"]:
        print_wrapped(compare.describe_pair(pair), mark="")
    print_line(f"\nReport: {known.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
