"""Run folders → the README's table of results.

    python scripts/studies/results_table.py runs/*/* --readme README.md

Each row is a run's `results.json`. The baseline is computed anew on the run's own rows, which
must be the same ones: their fingerprint is compared.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.exit_codes import run_command
from finetune.config import loader
from finetune.runtime.errors import InputError

if TYPE_CHECKING:
    from finetune.reporting.results_model import Results

BEGIN, END = "<!-- results: .* -->", "<!-- end of results -->"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--readme", type=Path, help="put the table between its marks there")
    known = parser.parse_args()
    return run_command(lambda: write_table(known.runs, known.readme))


def write_table(runs: Sequence[Path], readme: Path | None) -> int:
    """Print the table, or put it into a file.

    Raises:
        InputError: for a run whose documents are other ones now.
    """
    table = "\n".join([HEAD, *(row(run) for run in runs)])
    if readme is None:
        print(table)
    else:
        put(readme, table)
    return 0


HEAD = (
    "| recipe | train / test rows | labels | test accuracy, % (95 % interval) | macro-F1 "
    "| TF-IDF + SVM, accuracy | ECE, as trained → calibrated |\n"
    "|---|---|---|---|---|---|---|"
)


def row(run: Path) -> str:
    """One run as a row of the table."""
    from finetune.data import prepare, sources
    from finetune.data.corpus import corpus_hash
    from finetune.evaluation import baselines
    from finetune.reporting.results_model import read_results

    results = read_results(run)
    choices = loader.load_saved(run)
    corpus = prepare.prepare_corpus(sources.load_rows(choices.data), choices.data)
    if corpus_hash(corpus) != results.hashes.data:
        raise InputError(f"{run}: the documents of {choices.data.source} are not those of the run")
    test = results.test
    if not test.labelled or not test.has("accuracy") or not test.has("f1_macro"):
        raise InputError(f"{run}: expected accuracy and f1_macro on a labelled test split")
    of = "f1_micro" if results.data.multi_label else "accuracy"
    note = " micro-F1" * (of == "f1_micro")
    if not test.has(of):
        raise InputError(f"{run}: expected {of} on a labelled test split")
    low, high = test.intervals[of] or (0.0, 1.0)
    plain = baselines.tfidf_accuracy(corpus)
    return (
        f"| [{results.recipe}](recipes/{results.recipe}.yaml) "
        f"| {results.data.splits['train'].rows:,} / {test.rows:,} "
        f"| {len(results.data.labels)} "
        f"| {100 * (test.metric(of) or 0):.1f}{note} ({100 * low:.1f} to {100 * high:.1f}) "
        f"| {100 * (test.metric('f1_macro') or 0):.1f} | {100 * (plain or 0):.1f}{note} "
        f"| {calibration_error(results)} |"
    )


def calibration_error(results: "Results") -> str:
    """On test, as trained and after calibration where there was any."""
    calibration = results.calibration
    if calibration.test is None:
        return "–"
    before, after = calibration.test.before.ece, calibration.test.after.ece
    if calibration.temperature == 1:
        return f"{before:.3f}"
    return f"{before:.3f} → {after:.3f}"


def put(readme: Path, table: str) -> None:
    """Replace what stands between the marks.

    Raises:
        InputError: where a mark is missing.
    """
    text = readme.read_text(encoding="utf-8")
    begin = re.search(BEGIN, text)
    if begin is None or END not in text:
        raise InputError(f"{readme}: expected the lines '<!-- results: … -->' and '{END}'")
    rest = text[begin.end() :].split(END, 1)[1]
    readme.write_text(f"{text[: begin.end()]}\n{table}\n{END}{rest}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
