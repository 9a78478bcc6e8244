"""A recipe's data → its rows by how likely their label is wrong, for a person to go through.

    python scripts/find_label_errors.py RECIPE [section.key=value …] --output suspects.csv

Judges train and validation; test is left alone. The most suspicious rows come first, with what the
label might be instead. The encoder stays as it came: a logistic regression on its frozen states
judges each row without having seen it, and cleanlab ranks them (extra `suspects`). The file is csv,
or JSON Lines where its name does not end in .csv. --truth FILE, the same rows with right labels,
tells how many of the wrong ones were found.
"""

import argparse
import sys
from pathlib import Path

from finetune.config import loader
from finetune.data import prepare, read_rows, sources
from finetune.data.columns import ColumnSpec
from finetune.evaluation import label_errors
from finetune.runtime import console
from finetune.runtime.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="find_label_errors.py RECIPE [section.key=value …] --output FILE [--truth FILE]",
    )
    parser.add_argument("recipe", help="a YAML file, such as recipes/ag_news.yaml")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="csv or jsonl")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="the rows with right labels")
    known, words = parser.parse_known_args()
    try:
        label_errors.require_cleanlab()
        console.quiet_libraries()
        choices = loader.load(known.recipe, words)
        corpus = prepare.prepare_corpus(
            sources.load_rows(choices.data, choices.cache.folder()), choices.data
        )
        splits = [split for split in (corpus.train, corpus.validation) if len(split)]
        truth = {}
        if known.truth is not None:
            wanted = ColumnSpec(choices.data.columns(), choices.data.label, needs_label=True)
            right = read_rows.read_file(known.truth, wanted)
            numbers = {
                right.places.short(i): str(label) for i, label in enumerate(right.labels or ())
            }
            for split in splits:
                for i in range(len(split)):
                    place, within = split.places.place(i), split.places.short(i)
                    if within not in numbers:
                        raise InputError(f"--truth: {known.truth} has no {within}, as {place} is")
                    truth[place] = numbers[within]
        found = label_errors.find_suspects(choices, corpus, splits)
        label_errors.write_suspects(found, known.output)
    except InputError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return 2
    likely = sum(one.likely_wrong for one in found)
    print(f"{len(found):,} rows judged, {likely:,} of them likely wrong: {known.output}")
    if truth:
        wrong = label_errors.score_against_truth(found, truth)
        total = int(wrong.sum())
        for many in sorted({total, 2000, likely} & set(range(1, len(found) + 1))):
            chance = round(wrong.mean() * many)
            print(
                f"among the {many:,} most suspicious: {int(wrong[:many].sum()):,} of the {total:,} "
                f"wrong labels (chance: {chance:,})"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
