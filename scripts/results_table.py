"""Run folders → the README's table of results.

    python scripts/results_table.py runs/*/* --readme README.md

Each row is a run's `results.json`. The baseline is computed anew on the run's own rows, which
must be the same ones: their fingerprint is compared.
"""

import argparse
import sys
from pathlib import Path

from finetune.config import loader
from finetune.data import prepare, sources
from finetune.data.corpus import corpus_hash
from finetune.evaluation import baselines
from finetune.reporting.results_model import Results, read_results
from finetune.runtime.errors import InputError

BEGIN, END = "<!-- results: scripts/results_table.py -->", "<!-- end of results -->"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--readme", type=Path, help="put the table between its marks there")
    known = parser.parse_args()
    try:
        table = "\n".join([HEAD, *(row(run) for run in known.runs)])
        if known.readme is None:
            print(table)
        else:
            put(known.readme, table)
    except InputError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return 2
    return 0


HEAD = (
    "| recipe | train / test rows | labels | test accuracy, % (95 % interval) | macro-F1 "
    "| TF-IDF + SVM, accuracy | ECE, as trained → calibrated |\n"
    "|---|---|---|---|---|---|---|"
)


def row(run: Path) -> str:
    """One run as a row of the table."""
    results = read_results(run)
    choices = loader.load(run / "recipe.yaml")
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


def calibration_error(results: Results) -> str:
    """On test, as trained and after calibration where there was any."""
    calibration = results.calibration
    if calibration.test is None:
        return "–"
    before, after = calibration.test.before.ece, calibration.test.after.ece
    if calibration.temperature == 1:
        return f"{before:.3f}"
    return f"{before:.3f} → {after:.3f}"


def put(readme: Path, table: str) -> None:
    """Replace what stands between the marks."""
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise InputError(f"{readme}: expected the lines '{BEGIN}' and '{END}'")
    before, rest = text.split(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
