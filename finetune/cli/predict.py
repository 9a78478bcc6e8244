"""Predict a label for each document, and write the labels to a csv, jsonl or Parquet file.

    finetune predict MODEL INPUT --output OUT [--keep COLUMN …] [--resume]
    accelerate launch -m finetune predict MODEL INPUT --output OUT   # over processes and GPUs

MODEL: a run folder, a model folder, a folder of finetune export, or a Hub id. INPUT: a csv,
tsv, json, jsonl, parquet or txt file, each also gzipped; a folder or a quoted glob of them; a Hub
data set; or - for standard input. Rows keep their order. A row that cannot be read stops nothing:
it goes to the output with its `error`, or to --errors FILE.
"""

import argparse
import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from finetune.cli.argument_types import add_text_options, positive
from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.cli.path_checks import check_model, is_local
from finetune.data.formats.registry import FILE_FORMATS
from finetune.inference.engines import AUTO, ENGINES, EngineOptions, ModelSource
from finetune.runtime import console
from finetune.runtime.errors import InputError, ProblemList, StoppedError

MAX_LOSS = 0.3  # points of accuracy

if TYPE_CHECKING:
    from finetune.inference.batch_job import JobSummary
    from finetune.inference.cascade import CascadeOptions
    from finetune.inference.job_options import JobOptions


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    return run_command(
        lambda: predict(known),
        remedy="the same command with --resume computes what is missing",
        verbosity=console.chosen_verbosity(known.quiet, known.json),
    )


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = CommandParser(
        prog=prog,
        description=__doc__,
        epilog="Exit codes: 0 done; 2 something that you can fix; 75 stopped by a signal, go on\n"
        "with --resume.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a run folder, a model folder or a Hub id")
    add("input", metavar="INPUT", help="a file, folder, quoted glob or Hub data set, or -")
    add(
        "--output",
        type=Path,
        required=True,
        help="the file to write: *.csv, *.tsv, *.jsonl (also .gz) or *.parquet",
    )
    add("--errors", type=Path, help="the file for rows that cannot be read (default: the output)")
    add("--text", nargs="+", default=[], metavar="COLUMN", help="the column of the documents "
        "(default: the one that the model was trained on, or text)")  # fmt: skip
    add("--id", metavar="COLUMN", help="the column that names a row (default: data.id of the "
        "model's recipe where every input has it; else its number in the whole input, from 1 as in "
        "messages; the path of a text file in a folder)")  # fmt: skip
    add("--keep", nargs="+", default=[], action="extend", metavar="[NAME=]COLUMN",
        help="columns to copy to the output, under a name of your own")  # fmt: skip
    add("--probabilities", action="store_true", help="also write each label's probability")
    add("--explain", type=positive, default=0, metavar="WORDS", help="also write the most telling "
        "words of each label, this many at most, with their scores and characters, in the column "
        "`explanation` (torch engine; a document takes some 25 times as long)")  # fmt: skip
    _add_cascade(add)
    add(
        "--resume",
        action="store_true",
        help="continue a job that was stopped; finished chunks are kept",
    )
    add("--overwrite", action="store_true", help="replace the output, and drop an unfinished job")
    add("--split", help="the split of a data set, or the file of that name in a folder")
    add("--config", help="the configuration of a Hub data set")
    add("--format", choices=FILE_FORMATS, help="the format of standard input, and of files whose "
        "name does not say it. Without it, standard input is JSON Lines, JSON, or one document a "
        "line, as its beginning says")  # fmt: skip
    add("--txt", choices=("lines", "documents"), help="what a .txt file holds: a document a line "
        "(default for a single file), or one document (default in a folder or glob)")  # fmt: skip
    _add_text_options(add)
    _add_computing(add)
    return parser


def _add_cascade(add: Callable[..., object]) -> None:
    """Add the options of a fast model that answers what it is sure of."""
    add("--cascade", metavar="STUDENT", help="a faster model of the same labels, which answers "
        "where its probability is above a threshold; MODEL, its teacher, answers the rest. The "
        "column `answered_by` says which did, and OUT.cascade.json what is to be "
        "expected")  # fmt: skip
    add("--max-loss", type=float, metavar="POINTS", help="the points of accuracy that the cascade "
        f"may lose against MODEL alone, on the rows that choose the threshold (default: "
        f"{MAX_LOSS:g})")  # fmt: skip
    add("--cascade-data", metavar="FILE", help="labelled documents that choose the threshold, "
        "which neither model has learned from, read with --text, --encoding and --delimiter as "
        "INPUT is; of a folder or Hub data set, its only split or test (default: the validation "
        "split of both models' runs)")  # fmt: skip
    add("--cascade-label", nargs="+", default=[], metavar="COLUMN", help="the column of their "
        "labels (default: that of MODEL's recipe, or label)")  # fmt: skip


def _add_text_options(add: Callable[..., object]) -> None:
    """Add the options that say how text is read and written."""
    add_text_options(add)
    add(
        "--spreadsheet-safe",
        action="store_true",
        help="write an apostrophe before text that a spreadsheet would run as a formula (csv, tsv)",
    )


def _add_computing(add: Callable[..., object]) -> None:
    """Add the options that change how the labels are computed and told, not which rows are read."""
    add(
        "--engine",
        choices=(*ENGINES, AUTO),
        help="what computes; auto: the fastest that keeps 99.8 %% of torch's labels in a probe of "
        "a second (default: that which MODEL was exported to, else torch); with --cascade, what "
        "computes MODEL: STUDENT is computed by what it was exported to, else by torch",
    )
    add(
        "--precision",
        choices=("auto", "bf16", "fp16", "fp32"),
        default="auto",
        help="the precision of the matrix products (torch engine)",
    )
    add(
        "--threads",
        type=positive,
        help="the number of CPU threads of each process (default: all cores, shared)",
    )
    add("--tokens", type=positive, help="the most tokens in a micro-batch, which bounds memory")
    add("--window", type=positive, default=4096, metavar="ROWS", help="the rows of a "
        "chunk: they are sorted by length and written together (default: %(default)s)")  # fmt: skip
    add("--revision", help="the branch, tag or commit of a model on the Hub")
    add("--trust-remote-code", action="store_true", help="run code that comes with a Hub model")
    add("--quiet", action="store_true", help="print only the summary")
    add("--json", action="store_true", help="print only the summary, as JSON")


def predict(known: argparse.Namespace) -> int:
    """Run the job, and print its summary.

    Raises:
        InputError: for what the user can fix.
        StoppedError: after a signal.
    """
    _check_cascade(known)
    options = _job_options(known)
    _check_paths(options)
    from finetune.inference import batch_job

    with stop_on_signals():
        summary = batch_job.run_job(options)
    if summary is None:
        console.print_line(
            f"{known.output} is complete: nothing to resume, whatever its model and input were; "
            "--overwrite starts again",
            even_if_quiet=True,
        )
    elif console.CONSOLE.is_main:
        print_summary(summary, known)
    return 0


def _check_cascade(known: argparse.Namespace) -> None:
    """
    Raises:
        InputError: for options of a cascade without one, or beyond their range.
    """
    problems = [
        f"{option}: needs --cascade STUDENT"
        for option, value in (
            ("--max-loss", known.max_loss is not None),
            ("--cascade-data", known.cascade_data),
            ("--cascade-label", known.cascade_label),
        )
        if value and known.cascade is None
    ]
    if known.cascade_label and known.cascade_data is None and known.cascade is not None:
        problems.append("--cascade-label: needs --cascade-data FILE, whose labels it names")
    if known.max_loss is not None and not 0 <= known.max_loss < 100:  # nor NaN
        problems.append(f"--max-loss: expected 0 to less than 100 points, got {known.max_loss:g}")
    if problems:
        raise InputError(problems)


def _cascade_options(known: argparse.Namespace) -> "CascadeOptions | None":
    if known.cascade is None:
        return None
    from finetune.inference.cascade import CascadeOptions
    from finetune.inference.labelled_input import LabelledInput

    data = known.cascade_data
    if data is not None:
        data = LabelledInput(
            data,
            text=tuple(known.text),
            label=tuple(known.cascade_label),
            encoding=known.encoding,
            delimiter=known.delimiter,
        )
    return CascadeOptions(
        ModelSource(known.cascade, trust_remote_code=known.trust_remote_code),
        MAX_LOSS if known.max_loss is None else known.max_loss,
        data,
    )


def _check_paths(options: "JobOptions") -> None:
    """Look at the files and folders that are named, before anything that takes seconds to load.

    Raises:
        InputError: with all that is wrong with them.
    """
    from finetune.inference.inputs import check_inputs, find_inputs
    from finetune.inference.outputs import check_output_file

    problems, found = ProblemList(), []
    if options.cascade is not None:
        with problems.collect():
            check_model(options.cascade.student.name, "--cascade")
        if options.cascade.data is not None:
            with problems.collect():
                is_local(options.cascade.data.source, "--cascade-data")
    for file in (options.output.file, options.output.errors):
        with problems.collect():
            check_output_file(file)
    with problems.collect():
        check_model(options.model.name)
    with problems.collect():
        if is_local(options.input.source, "INPUT"):
            found = find_inputs(options.input)
    problems += options.find_lost_files(found)
    problems += options.columns.find_taken_names(cascades=options.cascade is not None)
    problems += options.output.find_too_many_words()
    if problems and found:  # what is known of the columns without the model is told at once
        with problems.collect():
            check_inputs(found, options.columns.given)
    problems.raise_if_any()


def _job_options(known: argparse.Namespace) -> "JobOptions":
    from finetune.inference.inputs import InputSpec
    from finetune.inference.job_options import ColumnOptions, JobOptions, OutputOptions

    return JobOptions(
        model=ModelSource(known.model, known.revision, known.trust_remote_code),
        input=InputSpec(
            known.input,
            known.split,
            known.config,
            known.format,
            known.txt,
            known.encoding,
            known.delimiter,
        ),
        output=OutputOptions(
            file=known.output,
            errors=known.errors,
            probabilities=known.probabilities,
            explain=known.explain,
            resume=known.resume,
            overwrite=known.overwrite,
            chunk_rows=known.window,
            spreadsheet_safe=known.spreadsheet_safe,
        ),
        columns=ColumnOptions(tuple(known.text), known.id, tuple(known.keep)),
        engine=known.engine,
        cascade=_cascade_options(known),
        compute=EngineOptions(known.precision, known.threads, known.tokens),
    )


def print_summary(found: "JobSummary", known: argparse.Namespace) -> None:
    """Rows, speed, and how often each label was given."""
    if known.json:
        console.print_json(json.dumps(asdict(found), ensure_ascii=False))
        return
    rate = found.computed / found.seconds
    done = f"{found.rows:,} rows in {found.seconds:.0f} s, {rate:,.0f} rows/s"
    if found.computed < found.rows:
        done += f" ({found.rows - found.computed:,} by earlier runs)"
    console.print_line()
    console.print_line(done, even_if_quiet=True)
    for label, many in found.counts.items():
        console.print_line(f"  {many:>11,}  {label}")
    for many, what in (
        (found.abstained, _describe_abstained(found)),
        (found.errors, _describe_errors(known.errors)),
    ):
        if many:
            console.print_line(f"  {many:>11,}  {what}", even_if_quiet=True)
    if found.by_student is not None:
        valid = found.rows - found.errors
        console.print_line(
            f"The student answered {found.by_student:,} of {valid:,} rows "
            f"({100 * found.by_student / max(1, valid):.1f} %)",
            even_if_quiet=True,
        )
    console.print_line(f"Written to {known.output}", even_if_quiet=True)
    if found.errors and known.errors:
        console.print_line(f"Invalid rows: {known.errors}", even_if_quiet=True)


def _describe_abstained(found: "JobSummary") -> str:
    """The words after the number of rows without a label."""
    if not found.out_of_scope:
        return "without a label"
    return f"without a label, {found.out_of_scope:,} of them out of scope"


def _describe_errors(file: Path | None) -> str:
    """The words after the number of invalid rows."""
    return "invalid rows" if file else "invalid rows (the column `error` says why)"


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the job with a message on how to go on."""
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    raise StoppedError(
        f"stopped by {signal.Signals(number).name}; to go on, run the same with --resume"
    )
