"""Run folders → the README's table of results.

    python scripts/results_table.py runs/*/* --readme README.md

Each row is a run's `results.json`. The baseline is computed anew on the run's own rows, which
must be the same ones: their fingerprint is compared.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.config import loader
from finetune.data import prepare, sources
from finetune.data.corpus import corpus_hash
from finetune.evaluation import baselines
from finetune.reporting import results_model as results_module
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
    results = results_module.read_results(run).as_json()
    choices = loader.load(run / "recipe.yaml")
    corpus = prepare.prepare_corpus(sources.load_rows(choices.data), choices.data)
    if corpus_hash(corpus) != results["hashes"]["data"]:
        raise InputError(f"{run}: the documents of {choices.data.source} are not those of the run")
    test = results["test"]
    if "accuracy" not in test or "f1_macro" not in test:
        raise InputError(f"{run}: expected accuracy and f1_macro on a labelled test split")
    of = "f1_micro" if results["data"].get("multi_label") else "accuracy"
    note = " micro-F1" * (of == "f1_micro")
    if of not in test:
        raise InputError(f"{run}: expected {of} on a labelled test split")
    low, high = test["intervals"][of]
    plain = baselines.tfidf_accuracy(corpus)
    return (
        f"| [{results['recipe']}](recipes/{results['recipe']}.yaml) "
        f"| {results['data']['splits']['train']['rows']:,} / {test['rows']:,} "
        f"| {len(results['data']['labels'])} "
        f"| {100 * test[of]:.1f}{note} ({100 * low:.1f} to {100 * high:.1f}) "
        f"| {100 * test['f1_macro']:.1f} | {100 * (plain or 0):.1f}{note} "
        f"| {calibration_error(results)} |"
    )


def calibration_error(results: Mapping[str, Any]) -> str:
    """On test, as trained and after calibration where there was any."""
    found = results["calibration"]
    if found is None or found["test"] is None:
        return "–"
    before, after = (f"{found['test'][when]['ece']:.3f}" for when in ("before", "after"))
    return f"{before} → {after}" if found["temperature"] != 1 else before


def put(readme: Path, table: str) -> None:
    """Replace what stands between the marks."""
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise InputError(f"{readme}: expected the lines '{BEGIN}' and '{END}'")
    before, rest = text.split(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
