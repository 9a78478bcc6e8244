"""Rank the rows of a recipe's data by how likely their label is wrong, for a person to check.

    finetune suspects RECIPE [section.key=value …] --output suspects.csv

Checks train and validation; test is left alone. The most suspicious rows come first, with what the
label might be instead; rows of labels that have too few rows to be checked come last. The encoder
stays as it came: a logistic regression on its frozen states scores each row without having seen it,
and cleanlab ranks them (extra `suspects`). The file is csv, or JSON Lines where its name does not
end in .csv. --truth FILE, the same rows with right labels, tells how many of the wrong ones were
found.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.exit_codes import run_command
from finetune.cli.output_files import add_overwrite, check_output
from finetune.cli.path_checks import check_recipe
from finetune.cli.recipe_argument import load_recipe, parse_recipe, recipe_parser
from finetune.config.schema import Data
from finetune.runtime import console
from finetune.runtime.errors import InputError, shorten
from finetune.runtime.wording import count_of

if TYPE_CHECKING:
    from finetune.data.corpus import Split
    from finetune.evaluation.label_errors import Suspect


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known, overrides = parse_recipe(build_parser(prog), arguments)
    return run_command(lambda: find_label_errors(known, overrides))


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = recipe_parser(prog, __doc__, "--output FILE [--overwrite] [--truth FILE]")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="the csv or JSON Lines file to write",
    )
    add_overwrite(parser, "the file of --output, where there is one")
    parser.add_argument(
        "--truth", type=Path, metavar="FILE", help="the same rows with right labels"
    )
    return parser


def find_label_errors(known: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Rank the rows, write them, and print how many are likely wrong.

    Raises:
        InputError: without cleanlab, or for a problem in the recipe or its data.
    """
    check_output("--output", known.output, known.overwrite)  # people note in it what they decided
    recipe, _ = load_recipe(known, overrides)
    check_recipe(recipe)
    if recipe.data.task == "number":
        raise InputError(
            "data.task: expected classes or ordered, got number: suspects looks for labels that "
            "contradict their text; the report of a run lists the largest errors of numbers"
        )
    if recipe.data.tasks is not None:
        raise InputError(
            "data.tasks: expected null, as suspects checks one column of labels; name it by "
            "data.label, for each task in turn (data.tasks=null data.label=COLUMN)"
        )
    from finetune.data import prepare, sources
    from finetune.evaluation import label_errors

    label_errors.require_cleanlab()
    console.quiet_libraries()
    corpus = prepare.prepare_corpus(
        sources.load_rows(recipe.data, recipe.cache.folder()), recipe.data
    )
    splits = [split for split in (corpus.train, corpus.validation) if len(split)]
    truth = {} if known.truth is None else read_truth(known.truth, recipe.data, splits)
    found = label_errors.find_suspects(recipe, corpus, splits)
    label_errors.write_suspects(found, known.output)
    checked = [one for one in found if one.score is not None]
    likely = sum(bool(one.likely_wrong) for one in checked)
    console.print_line(
        f"{len(checked):,} rows checked, {likely:,} of them likely wrong: {known.output}"
    )
    share, commonest = label_errors.measure_agreement(checked)
    console.print_wrapped(
        f"The check predicts {share:.1%} of the labels, each of a row that it had not seen; the "
        f"commonest alone would be {commonest:.1%}. The nearer the two are, the less its "
        "suspicions say.".replace("%", " %"),
        mark="",
    )
    print_unchecked(found[len(checked) :])
    if truth:
        print_precision(checked, truth, likely)
    return 0


def read_truth(file: Path, data: Data, splits: "Sequence[Split]") -> dict[str, str]:
    """The right label of each row of some splits, by the row's place.

    Raises:
        InputError: where the file lacks one of the rows.
    """
    from finetune.data import read_rows
    from finetune.data.columns import ColumnSpec

    columns = ColumnSpec(
        data.columns(),
        data.label,
        needs_label=True,
        encoding=data.encoding,
        delimiter=data.delimiter,
        hierarchy=data.hierarchy,
    )
    right = read_rows.read_file(file, columns)
    numbers = {right.places.short(i): str(label) for i, label in enumerate(right.labels or ())}
    truth = {}
    for split in splits:
        for i in range(len(split)):
            place, within = split.places.place(i), split.places.short(i)
            if within not in numbers:
                raise InputError(f"--truth: {file} has no {within}, as {place} is")
            truth[place] = numbers[within]
    return truth


def print_unchecked(found: "Sequence[Suspect]") -> None:
    """The labels that have too few rows to be checked; nothing where there is none."""
    from finetune.evaluation.label_errors import FOLDS

    if found:
        counts = Counter(one.label for one in found)
        listed = shorten([f"{label} ({count})" for label, count in counts.items()], 10)
        console.print_wrapped(
            f"{count_of(len(found), 'row')} not checked, and last in the file: their labels have "
            f"fewer rows than the {FOLDS} folds of the check: {listed}",
            mark="",
        )


def print_precision(found: "Sequence[Suspect]", truth: dict[str, str], likely: int) -> None:
    """How many wrong labels are among the most suspicious rows."""
    from finetune.evaluation import label_errors

    wrong = label_errors.score_against_truth(found, truth)
    total = int(wrong.sum())
    for many in sorted({total, 2000, likely} & set(range(1, len(found) + 1))):
        chance = round(wrong.mean() * many)
        console.print_line(
            f"among the {many:,} most suspicious: {int(wrong[:many].sum()):,} of the {total:,} "
            f"wrong labels (chance: {chance:,})"
        )
