"""Export a trained model, and check it against torch on real rows.

    finetune export MODEL OUT --data FILE [--label COLUMN] [--int8]
    finetune predict OUT INPUT --output answers.csv      # runs it
    finetune export MODEL OUT --layout standard          # for optimum, transformers.js, servers

Prints how often it predicts torch's labels, and both speeds. With labelled rows, also its accuracy
and torch's. Where its predictions differ from torch's, it refuses, and writes nothing.
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.argument_types import positive
from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.runtime import console
from finetune.runtime.errors import InputError

if TYPE_CHECKING:
    from finetune.inference.classifier import Classifier
    from finetune.inference.onnx_comparison import Check


@dataclass(frozen=True)
class Layout:
    """What an export writes.

    Attributes:
        meaning: for whom it is.
        module, function: which writes it; arguments and result as of `onnx_export.export_onnx`.
        needs_data: whether it is checked only on documents that are given.
        keeps_fp32: whether fp32 is written beside int8.
    """

    meaning: str
    module: str
    function: str
    needs_data: bool = True
    keeps_fp32: bool = False


LAYOUTS = {
    "onnx": Layout("for finetune predict", "finetune.inference.onnx_export", "export_onnx"),
    "standard": Layout(
        "also for optimum, transformers.js and servers, without this package or its code",
        "finetune.inference.standard_layout",
        "export_standard",
        needs_data=False,
        keeps_fp32=True,
    ),
    "openvino": Layout(
        "for finetune predict with OpenVINO",
        "finetune.inference.openvino_export",
        "export_openvino",
    ),
}


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
        "--layout",
        choices=tuple(LAYOUTS),
        default="onnx",
        help="; ".join(f"{name}: {layout.meaning}" for name, layout in LAYOUTS.items())
        + " (default: %(default)s)",
    )
    add(
        "--data",
        help="real documents to check the export on, given as INPUT of predict; with --layout "
        "standard, without it: the beginnings of a run's test documents, or drawn texts",
    )
    add("--split", help="the split of a data set, or the file of that name in a folder")
    add("--label", help="the column with the right labels, which gives accuracies")
    add(
        "--rows",
        type=positive,
        default=1000,
        help="the number of documents to check (default: %(default)s)",
    )
    add("--threads", type=positive, help="the number of CPU threads (default: all cores)")
    return parser


def export(known: argparse.Namespace) -> int:
    """Export the model, check it, and print both engines' numbers.

    Raises:
        InputError: without the extra `onnx`, for input that cannot be read, or where the exported
            model's predictions differ from torch's.
    """
    from finetune.inference import inputs, onnx_export, standard_layout
    from finetune.inference.classifier import Classifier
    from finetune.modeling.model_folder import find_model
    from finetune.runtime.errors import ProblemList
    from finetune.tokenization.document_format import NO_DETECTOR

    onnx_export.check_installed()
    layout, problems = LAYOUTS[known.layout], ProblemList()
    if known.out.exists():
        problems.append(f"{known.out}: exists already; choose another name")
    if known.data is None:
        problems += [
            f"{option} needs --data FILE, with the documents to check the export on"
            for option, given in (
                (f"--layout {known.layout}", layout.needs_data),
                ("--label", known.label is not None),
                ("--split", known.split is not None),
            )
            if given
        ]
    source, items = "", []
    with problems.collect():
        source = find_model(known.model)
    if known.data is not None:
        with problems.collect():
            items = inputs.find_inputs(inputs.InputSpec(known.data, split=known.split))
    problems.raise_if_any()
    console.quiet_libraries()
    classifier = Classifier(source, engine="torch", precision="fp32", threads=known.threads)
    if known.data is None:
        rows = standard_layout.sample_rows(known.model, classifier, known.rows)
    else:
        rows = read_rows(known, items, classifier)
    truth = true_labels(known, rows, classifier, source) if known.label else None
    write = getattr(import_module(layout.module), layout.function)
    checks = write(classifier, source, known.out, rows, truth, known.int8, known.threads)
    console.print_line(f"{len(rows):,} rows")
    print_checks(checks, of_numbers=classifier.rules.number is not None)
    written = {check.name: None for check in (checks[1:2] if layout.keeps_fp32 else [])}
    names = " and ".join(written | {checks[-1].name: None})
    console.print_line(f"\nWritten to {known.out}: {names}")
    if classifier.reading.out_of_scope:
        console.print_wrapped(NO_DETECTOR, mark="  ! ")
    return 0


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

    classifier.rules.refuse_number("--label", "has no accuracy; leave it out")
    classifier.rules.refuse_tasks("--label", "each with an accuracy of its own; leave it out")
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


def print_checks(checks: "Sequence[Check]", of_numbers: bool = False) -> None:
    """A line for each engine: how much its predictions and logits are torch's, its speed, its size.

    Args:
        of_numbers: whether the model predicts numbers, which have no accuracy.
    """
    accuracy = [] if of_numbers else ["accuracy"]
    same, difference = "same labels", "max logit difference"
    if of_numbers:
        same, difference = "same numbers", "max difference"
    table = [["", same, difference, *accuracy, "rows/s", "MB"]]
    for check in checks:
        row = [check.name, f"{100 * check.agreement:.2f} %", f"{check.max_difference:.1e}"]
        if not of_numbers:
            row.append("" if check.accuracy is None else f"{100 * check.accuracy:.2f} %")
        table.append([*row, f"{check.rows_per_second:,.0f}", f"{check.megabytes:,.0f}"])
    console.print_line(console.format_table(table))
