"""Name the unlabelled documents whose labels would teach a model most, for a person to label.

    finetune suggest MODEL INPUT --n 50 --output to_label.csv

MODEL and INPUT are those of `finetune predict`, but no standard input. The file has a row for each
document, the most useful first: its id or number, its columns, an empty `label` to fill in, what
the model predicts, and how sure it is. No document in it is a near-duplicate of another. Add the
labelled rows to the train data, train, and suggest again.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.argument_types import add_text_options, positive
from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.cli.output_files import add_overwrite, check_output
from finetune.cli.path_checks import check_all, check_model
from finetune.data.formats.registry import FILE_FORMATS, FORMATS
from finetune.runtime import console
from finetune.runtime.errors import InputError
from finetune.runtime.wording import count_of

if TYPE_CHECKING:
    from finetune.inference.suggestions import Suggestions

STRATEGIES = ("margin", "entropy", "core_set", "cluster_margin")
OWN = ("label", "predicted", "score", "margin", "entropy")  # columns of the file


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    return run_command(
        lambda: suggest(known), verbosity=console.chosen_verbosity(known.quiet, known.json)
    )


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = CommandParser(prog=prog, description=__doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="a run folder, a model folder or a Hub id")
    add("input", metavar="INPUT", help="a file, folder, quoted glob or Hub data set")
    add("--output", type=Path, required=True, metavar="FILE",
        help="the file to write: *.csv, *.tsv, *.jsonl (also .gz) or *.parquet")  # fmt: skip
    add("--n", type=positive, default=50, help="how many documents (default: %(default)s)")
    add("--strategy", choices=STRATEGIES, default="margin", help="margin: the least difference "
        "between the two most probable labels; entropy: the highest entropy of the probabilities; "
        "core_set: each as unlike those before as can be; cluster_margin: the least margins of "
        "different kinds (default: %(default)s)")  # fmt: skip
    add_overwrite(parser, "the file of --output")
    add("--text", nargs="+", default=[], metavar="COLUMN", help="the column of the documents "
        "(default: the one that the model was trained on)")  # fmt: skip
    add("--id", metavar="COLUMN", help="the column that names a row (default: data.id of the "
        "model's recipe where every input has it; else its number in the whole input)")  # fmt: skip
    add("--keep", nargs="+", default=[], action="extend", metavar="[NAME=]COLUMN",
        help="columns to copy to the file, beside those of the documents")  # fmt: skip
    add("--split", help="the split of a data set, or the file of that name in a folder")
    add("--config", help="the configuration of a Hub data set")
    add("--format", choices=FILE_FORMATS, help="the format of files whose name does not say it")
    add("--txt", choices=("lines", "documents"), help="what a .txt file holds: a document a line "
        "(default for a single file), or one document (default in a folder or glob)")  # fmt: skip
    add_text_options(add)
    add("--spreadsheet-safe", action="store_true", help="write an apostrophe before text that a "
        "spreadsheet would run as a formula (csv, tsv)")  # fmt: skip
    add("--quiet", action="store_true", help="print only the summary")
    add("--json", action="store_true", help="print only the summary, as JSON")
    return parser


def suggest(known: argparse.Namespace) -> int:
    """Read, choose, write the file, and say what is in it.

    Raises:
        InputError: for what the user can fix.
    """
    _check_paths(known)
    from finetune.inference import inputs
    from finetune.inference.classifier import Classifier
    from finetune.inference.inputs import InputSpec
    from finetune.inference.job_options import ColumnOptions
    from finetune.inference.suggestions import SuggestOptions, suggest

    console.quiet_libraries()
    where = (known.input, known.split, known.config, known.format, known.txt)
    items = inputs.find_inputs(InputSpec(*where, known.encoding, known.delimiter), _print_note)
    output = known.output.resolve()
    if any(item.path is not None and item.path.resolve() == output for item in items):
        raise InputError(f"--output: {known.output} is also the input; choose another name")
    classifier = Classifier(known.model)
    classifier.rules.refuse_number("finetune suggest", "is uncertain of no label")
    classifier.rules.refuse_tasks("finetune suggest", "each of which would ask for other documents")
    has_columns = all(FORMATS[item.kind].has_columns for item in items)
    shown = tuple(known.text or classifier.columns) if has_columns else ()
    options = ColumnOptions(tuple(known.text), known.id, (*shown, *known.keep))
    _check_names(options.names, known)
    columns = options.request(classifier, items, _print_note)
    inputs.check_inputs(items, columns)
    found = suggest(classifier, items, columns, SuggestOptions(known.n, known.strategy))
    if not found.found:
        raise InputError(f"{known.input}: no row of it is a document that the model can classify")
    rows = [*_make_rows(found, options.names, columns.id is not None, has_columns)]
    _write(rows, known)
    _print_summary(found, known)
    return 0


def _write(rows: Sequence[dict[str, Any]], known: argparse.Namespace) -> None:
    from finetune.inference import outputs

    kinds = {
        name: frozenset(kind for row in rows if (kind := outputs.json_kind(row[name])) is not None)
        for name in rows[0]
    }
    columns = outputs.Columns(tuple(rows[0]), kinds, known.spreadsheet_safe)
    outputs.write_rows(iter(rows), known.output, columns)


def _check_paths(known: argparse.Namespace) -> None:
    """
    Raises:
        InputError: for files and folders that cannot be read or written, or would be lost.
    """
    from finetune.inference import outputs

    if known.input == "-":
        raise InputError("INPUT: expected a file, which is read twice, got standard input")
    check_output("--output", known.output, known.overwrite)  # people write their labels in it
    check_all(partial(outputs.check_output_file, known.output), partial(check_model, known.model))


def _check_names(names: Sequence[str], known: argparse.Namespace) -> None:
    """
    Raises:
        InputError: for columns of the input that are called as one of the file's own, or twice.
    """
    problems = [
        f"'{name}': the file has a column '{name}' of its own or already; rename it in the input, "
        f"or write --keep my_{name}={name} where it is kept"
        for i, name in enumerate(names)
        if name in OWN or name in names[:i]
    ]
    if problems:
        raise InputError(problems)


def _make_rows(
    found: "Suggestions", names: Sequence[str], has_id: bool, has_columns: bool
) -> Iterator[dict[str, Any]]:
    for one in found.found:
        values = one.record.beside if has_id else (one.number, *one.record.beside)
        prediction = one.prediction
        row = dict(zip(names, values, strict=True))
        if not has_columns:
            row["text"] = one.record.texts[0]
        yield row | {
            "label": None,
            "predicted": prediction.get("label", prediction.get("labels")),
            "score": prediction.get("score", prediction.get("scores")),
            "margin": round(one.margin, 6),
            "entropy": round(one.entropy, 6),
        }


def _print_note(message: str) -> None:
    console.print_wrapped(message, mark="  ! ")


def _print_summary(found: "Suggestions", known: argparse.Namespace) -> None:
    if known.json:
        counts = {
            "suggested": len(found.found),
            "read": found.read,
            "invalid": found.invalid,
            "near_duplicates": found.near_duplicates,
        }
        console.print_json(json.dumps(counts))
        return
    said = f"{count_of(len(found.found), 'document')} to label, of {found.read:,}"
    if found.near_duplicates:
        said += f"; {count_of(found.near_duplicates, 'near-duplicate')} of these left out"
    if found.invalid:
        said += f"; {count_of(found.invalid, 'row')} left out that cannot be classified"
    console.print_line(said, even_if_quiet=True)
    console.print_line(f"Written to {known.output}", even_if_quiet=True)
