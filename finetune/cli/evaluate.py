"""Evaluate a trained model on new labelled documents: how good is it on these, and what changed?

    finetune evaluate MODEL june.csv
    finetune evaluate runs/bbc_news/A june.csv --text body --label topic --output june

MODEL: a run folder, a model folder, an exported folder, or a Hub id. DATA: a csv, tsv, json, jsonl
or parquet file, each also gzipped; a folder with a file per split or a sub-folder per label; or a
Hub data set. The report is that of a run's test split: scores with intervals, calibration,
abstention, error analysis. Where MODEL is a run folder, the documents are compared with the run's
test split: label shares, accuracy by label and lengths, and which of them changed by more than
chance. Writes report.html, results.json and predictions.jsonl into a folder.
"""

import argparse
import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from finetune.cli.argument_types import add_text_options, positive
from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.cli.path_checks import check_all, check_model, is_local
from finetune.inference.engines import AUTO, ENGINES, ModelSource
from finetune.runtime import console


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    verbosity = console.chosen_verbosity(known.quiet, known.json)
    return run_command(lambda: evaluate(known), verbosity=verbosity)


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called."""
    parser = CommandParser(prog=prog, description=__doc__)
    add = parser.add_argument
    add("model", metavar="MODEL", help="a run folder, a model folder or a Hub id")
    add("data", metavar="DATA", help="a file, a folder or a Hub data set with labelled documents")
    add("--output", type=Path, metavar="FOLDER", help="the folder to write (default: "
        "evaluations/NAME in the run folder, or else here, with the name of DATA)")  # fmt: skip
    add("--overwrite", action="store_true", help="replace the folder of an earlier evaluation")
    add("--text", nargs="+", default=[], metavar="COLUMN", help="the columns of the documents, in "
        "the order of those that the model was trained on (default: these)")  # fmt: skip
    add("--label", nargs="+", default=[], metavar="COLUMN", help="the column of the labels, or "
        "several of 0 and 1 (default: that of the run's recipe, or label)")  # fmt: skip
    add("--id", metavar="COLUMN", help="the column that identifies documents (default: data.id of "
        "the model's recipe, where the data has it)")  # fmt: skip
    add("--slices", nargs="+", default=[], action="extend", metavar="COLUMN", help="columns by "
        "whose values the documents are scored too, each value against the other documents; also "
        "by length, and by file where there are several")  # fmt: skip
    add("--label-separator", metavar="TEXT", help="what separates several labels in a cell "
        "(default: that of the run's recipe)")  # fmt: skip
    add("--unknown-labels", choices=("stop", "drop", "wrong"), default="stop", help="documents "
        "with labels that the model does not know: stop, leave them out, or count them as wrong "
        "(default: %(default)s)")  # fmt: skip
    add("--split", help="the split of DATA (default: the only one, or test)")
    add("--config", help="the configuration of a Hub data set")
    add_text_options(add)
    add("--engine", choices=(*ENGINES, AUTO), help="what computes; auto: the fastest that "
        "keeps 99.8 %% of torch's labels in a probe of a second (default: that which MODEL was "
        "exported to, else torch)")  # fmt: skip
    add("--precision", choices=("auto", "bf16", "fp16", "fp32"), help="the precision of the matrix "
        "products (default: that of the run's recipe, or auto)")  # fmt: skip
    add("--threads", type=positive, help="the number of CPU threads (default: all cores)")
    add("--tokens", type=positive, help="the most tokens in a micro-batch, which bounds memory")
    add("--revision", help="the branch, tag or commit of a model on the Hub")
    add("--trust-remote-code", action="store_true", help="run code that comes with a Hub model")
    add("--quiet", action="store_true", help="print only the score and the report's path")
    add("--json", action="store_true", help="print only results.json")
    return parser


def evaluate(known: argparse.Namespace) -> int:
    """Evaluate, write the folder, and print the scores.

    Raises:
        InputError: for what the user can fix.
    """
    check_all(partial(check_model, known.model), partial(is_local, known.data, "DATA"))
    from finetune.inference import evaluation_job
    from finetune.inference.labelled_input import LabelledInput
    from finetune.reporting import evaluation_report

    console.quiet_libraries()
    folder = known.output or _default_output(known)
    evaluation_job.check_output(folder, known.overwrite)
    found = evaluation_job.evaluate_rows(
        evaluation_job.EvaluationOptions(
            model=ModelSource(known.model, known.revision, known.trust_remote_code),
            input=LabelledInput(
                known.data,
                known.config,
                known.split,
                tuple(known.text),
                tuple(known.label),
                known.label_separator,
                known.unknown_labels,
                known.encoding,
                known.delimiter,
                known.id,
                tuple(known.slices),
            ),
            engine=known.engine,
            precision=known.precision,
            threads=known.threads,
            tokens=known.tokens,
        ),
        announce=console.print_line,
    )
    found.write(folder)
    evaluation_report.print_evaluation(found.evaluation, folder)
    if known.json:
        console.print_json(json.dumps(found.evaluation.as_json(), indent=2, ensure_ascii=False))
    return 0


def _default_output(known: argparse.Namespace) -> Path:
    """`evaluations/NAME` in the run folder, or here: NAME is that of the data, and of a split."""
    from finetune.inference.evaluation_job import find_run

    run = find_run(known.model)
    name = re.split(r"[/\\]", known.data.rstrip("/\\"))[-1]
    name = re.sub(r"(\.\w+)?(\.gz)?$", "", name).strip(".") or "data"
    if known.split is not None:
        name += f"-{known.split}"
    return (Path() if run is None else run.folder) / "evaluations" / name
