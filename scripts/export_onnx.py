"""A trained model → a folder that ONNX Runtime runs, checked against torch on real rows.

    python scripts/export_onnx.py MODEL OUT --data FILE [--label COLUMN] [--int8]
    python scripts/predict.py OUT INPUT --output answers.csv      # runs it

Prints how often it gives torch's labels, and both speeds. With labelled rows its accuracy stands
beside torch's. Refuses, and writes nothing, where it answers otherwise.
"""

import argparse
import itertools
import sys
from pathlib import Path

from finetune.runtime import console
from finetune.runtime.errors import InputError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="run folder, model folder or Hub id")
    add("out", metavar="OUT", type=Path, help="the folder to write")
    add("--int8", action="store_true", help="8-bit weights and products: smaller and faster")
    add(
        "--data",
        required=True,
        help="real documents to check it on: what predict.py takes as INPUT",
    )
    add("--split", help="of a data set, or the file of that name in a folder")
    add("--label", help="the column of the right labels, for accuracies")
    add("--rows", type=int, default=1000, help="how many of them (default: %(default)s)")
    add("--threads", type=int, help="of the CPU (default: all cores)")
    known = parser.parse_args(arguments)
    try:
        export(known)
    except InputError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return 2
    return 0


def export(known: argparse.Namespace) -> None:
    # Heavy imports wait until the command line is known to be right.
    try:
        import onnx  # noqa: F401 # before torch looks for it, to say what is missing
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"{error.name} is not installed; pip install -e '.[onnx]'") from None
    import numpy as np

    from finetune.data.formats.source import ReadProgress
    from finetune.inference import inputs, onnx_export
    from finetune.inference.classifier import Classifier, find_model
    from finetune.inference.records import RequestedColumns, read_records
    from finetune.runtime.errors import Collected

    problems = Collected()
    if known.out.exists():
        problems.append(f"{known.out}: is there already; choose another name")
    source, items = "", []
    with problems.within():
        source = find_model(known.model)
    with problems.within():
        items = inputs.find_inputs(inputs.InputSpec(known.data, split=known.split))
    problems.tell()
    console.quiet_libraries()
    classifier = Classifier(source, engine="torch", precision="fp32", threads=known.threads)
    keep = (known.label,) if known.label else ()
    wanted = classifier.reading.wanted()
    asked = RequestedColumns(classifier.columns, wanted, "the model's", keep=keep, kept="--label")
    inputs.check_inputs(items, asked)
    every = (
        row
        for item in items
        for row in read_records(item, asked, ReadProgress())
        if row.error is None
    )
    rows = list(itertools.islice(every, known.rows))
    if not rows:
        raise InputError(f"{known.data}: no row that can be read")
    truth = None
    if known.label and classifier.rules.multi_label:
        raise InputError(f"--label: {source} gives a document several labels; leave it out")
    if known.label:
        index = {label: i for i, label in enumerate(classifier.labels)}
        found = [str(row.beside[0]) for row in rows]
        unknown = sorted(set(found) - set(index))
        if unknown:
            raise InputError(
                f"{known.data}: --label {known.label}: expected {', '.join(index)}, found "
                f"{', '.join(unknown[:5])}"
            )
        truth = np.array([index[label] for label in found])
    checks = onnx_export.export_onnx(
        classifier, source, known.out, rows, truth, known.int8, known.threads
    )
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
    console.print_line(f"{len(rows):,} rows")
    console.print_line(console.format_table(table))
    console.print_line(f"\nWritten to {known.out}: {checks[-1].name}")


if __name__ == "__main__":
    sys.exit(main())
