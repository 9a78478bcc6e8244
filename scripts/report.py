"""Run folders → their report.html, drawn anew from results.json and metrics.jsonl.

    python scripts/report.py runs/bbc_news/…

As after an update of this package; the numbers stay those of the run.
"""

import argparse
import sys
from pathlib import Path

from finetune.reporting import html_report, results_model
from finetune.runtime.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    known = parser.parse_args()
    try:
        for run in known.runs:
            html_report.write_report(results_model.read_results(run), run)
            print(run / "report.html")
    except InputError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
