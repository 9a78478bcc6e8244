"""Export a trained model for ONNX Runtime, and check it against torch on real rows.

    finetune export MODEL OUT --data FILE [--label COLUMN] [--int8]
    finetune predict OUT INPUT --output answers.csv      # runs it

Prints how often it predicts torch's labels, and both speeds. With labelled rows, also its accuracy
and torch's. Where its predictions differ from torch's, it refuses, and writes nothing.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.runtime import console
from finetune.runtime.commands import install
from finetune.runtime.errors import InputError

if TYPE_CHECKING:
    from finetune.inference.classifier import Classifier
    from finetune.inference.onnx_comparison import Check


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    return run_command(lambda: export(known))


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = CommandParser(prog=prog, description=__doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="a run folder, a model folder or a Hub id")
    add("out", metavar="OUT", type=Path, help="the folder to write")
    add(
        "--int8",
        action="store_true",
        help="use 8-bit weights and products, which is smaller and faster",
    )
    add(
        "--data",
        required=True,
        help="real documents to check the export on, given as INPUT of predict",
    )
    add("--split", help="the split of a data set, or the file of that name in a folder")
    add("--label", help="the column with the right labels, which gives accuracies")
    add(
        "--rows",
        type=int,
        default=1000,
        help="the number of documents to check (default: %(default)s)",
    )
    add("--threads", type=int, help="the number of CPU threads (default: all cores)")
    return parser


def export(known: argparse.Namespace) -> int:
    """Export the model, check it, and print both engines' numbers.

    Raises:
        InputError: without the extra `onnx`, for input that cannot be read, or where the exported
            model's predictions differ from torch's.
    """
    _require_onnx()
    from finetune.inference import inputs, onnx_export
    from finetune.inference.classifier import Classifier
    from finetune.inference.model_folder import find_model
    from finetune.runtime.errors import ProblemList

    problems = ProblemList()
    if known.out.exists():
        problems.append(f"{known.out}: exists already; choose another name")
    source, items = "", []
    with problems.collect():
        source = find_model(known.model)
    with problems.collect():
        items = inputs.find_inputs(inputs.InputSpec(known.data, split=known.split))
    problems.raise_if_any()
    console.quiet_libraries()
    classifier = Classifier(source, engine="torch", precision="fp32", threads=known.threads)
    rows = read_rows(known, items, classifier)
    truth = true_labels(known, rows, classifier, source) if known.label else None
    checks = onnx_export.export_onnx(
        classifier, source, known.out, rows, truth, known.int8, known.threads
    )
    console.print_line(f"{len(rows):,} rows")
    print_checks(checks)
    console.print_line(f"\nWritten to {known.out}: {checks[-1].name}")
    return 0


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401 # before torch looks for it, to say what is missing
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"{error.name} is not installed; {install('onnx')}") from None


def read_rows(known: argparse.Namespace, items: Sequence[Any], classifier: "Classifier") -> Any:
    """The first rows of the input that can be read, each with its label where one is asked for.

    Raises:
        InputError: where there are none, or a column is missing.
    """
    from finetune.data.formats.source import ReadProgress
    from finetune.inference import inputs
    from finetune.inference.records import RequestedColumns, read_records

    keep = (known.label,) if known.label else ()
    columns = classifier.reading.column_spec()
    asked = RequestedColumns(classifier.columns, columns, "the model's", keep=keep, kept="--label")
    inputs.check_inputs(items, asked)
    readable = (
        row
        for item in items
        for row in read_records(item, asked, ReadProgress())
        if row.error is None
    )
    rows = list(itertools.islice(readable, known.rows))
    if not rows:
        raise InputError(f"{known.data}: no row that can be read")
    return rows


def true_labels(
    known: argparse.Namespace, rows: Sequence[Any], classifier: "Classifier", source: str
) -> Any:
    """The class of each row, as its label column says. (rows,)

    Raises:
        InputError: for a label that the model does not know, or a multi-label model.
    """
    import numpy as np

    if classifier.rules.multi_label:
        raise InputError(f"--label: {source} is multi-label; leave it out")
    index = {label: i for i, label in enumerate(classifier.labels)}
    found = [str(row.beside[0]) for row in rows]
    unknown = sorted(set(found) - set(index))
    if unknown:
        raise InputError(
            f"{known.data}: --label {known.label}: expected {', '.join(index)}, found "
            f"{', '.join(unknown[:5])}"
        )
    return np.array([index[label] for label in found])


def print_checks(checks: "Sequence[Check]") -> None:
    """A line for each engine: how much its labels and logits are torch's, its speed, its size."""
    table = [("", "same labels", "max logit difference", "accuracy", "rows/s", "MB")]
    table += [
        (
            check.name,
            f"{100 * check.agreement:.2f} %",
            f"{check.max_difference:.1e}",
            "" if check.accuracy is None else f"{100 * check.accuracy:.2f} %",
            f"{check.rows_per_second:,.0f}",
            f"{check.megabytes:,.0f}",
        )
        for check in checks
    ]
    console.print_line(console.format_table(table))
