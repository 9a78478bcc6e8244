"""Predict a label for each row of Parquet, JSON Lines, csv or tsv files, in parallel on Ray Data.

    finetune predict-ray MODEL INPUT --output FOLDER [--actors 4] [--address auto]

The same classifier as predict's, in as many actors as asked for, on this machine or on a cluster
that runs already. Ray restarts actors and repeats batches that fail; rows keep their order. A
folder of files comes out, in the format that went in, or as JSON Lines where that was csv or tsv.
Columns stay, but for `label`, `score` and `error`, which are the model's.
"""

# Much of Ray is not typed.
# mypy: disable-error-code="no-untyped-call"

import argparse
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune.cli.argument_types import add_text_options
from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.runtime import console
from finetune.runtime.commands import install
from finetune.runtime.errors import InputError

FORMATS = {".parquet": "parquet", ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl",
           ".csv": "csv", ".tsv": "tsv"}  # fmt: skip


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    return run_command(lambda: predict(known))


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = CommandParser(prog=prog, description=__doc__)
    add = parser.add_argument
    add(
        "model",
        metavar="MODEL",
        help="a run folder, model folder or Hub id that every machine sees",
    )
    add("input", metavar="INPUT", type=Path, help="a Parquet, JSON Lines, csv or tsv file, or a "
        "folder of such")  # fmt: skip
    add("--output", type=Path, required=True, help="the folder to write, which must not exist yet")
    add("--text", nargs="+", default=[], metavar="COLUMN", help="the column of the documents")
    add("--keep", nargs="+", metavar="COLUMN", help="the columns to keep (default: all)")
    add("--probabilities", action="store_true", help="also write each label's probability")
    add_text_options(add)
    add(
        "--actors",
        type=int,
        default=1,
        help="the number of actors, each with the model (default: %(default)s)",
    )
    add("--cpus", type=int, default=1, help="the CPUs of each actor (default: %(default)s)")
    add("--gpus", type=float, default=0, help="the GPUs of each actor (default: %(default)s)")
    add("--batch", type=int, default=4096, help="the rows of a batch (default: %(default)s)")
    add("--address", help="the address of a running cluster (default: Ray on this machine)")
    add(
        "--precision",
        choices=("auto", "bf16", "fp16", "fp32"),
        default="auto",
        help="the precision of the matrix products",
    )
    return parser


def predict(known: argparse.Namespace) -> int:
    """Run the job, and print how many rows it wrote.

    Raises:
        InputError: for what can be known to be wrong beforehand.
    """
    from finetune.modeling.model_folder import find_model
    from finetune.runtime.errors import ProblemList

    # Else Ray would pack an environment of its own for each worker under some tools.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    ray = _import_ray()
    problems = ProblemList()
    kind, model = "", known.model
    with problems.collect():
        model = find_model(known.model)
    with problems.collect():
        kind = find_format(known.input)
        check_files(known, kind)
    if known.output.exists():
        problems.append(f"{known.output}: exists already; choose another name")
    problems.raise_if_any()
    with _cluster(ray, known):
        rows = _map_batches(ray, known, kind, model)
    console.print_line(f"{rows:,} rows written to {known.output}")
    return 0


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise InputError(f"Ray is not installed; {install('ray')}") from None
    return ray


@contextmanager
def _cluster(ray: Any, known: argparse.Namespace) -> Iterator[None]:
    """The cluster at an address, or one on this machine for as long as the job lasts.

    Raises:
        InputError: where it has too few CPUs for the actors.
    """
    needed = known.actors * known.cpus + 1  # one reads
    began_it = not ray.is_initialized()
    if began_it:
        local = {"num_cpus": max(needed, os.cpu_count() or 1), "include_dashboard": False}
        ray.init(
            address=known.address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if known.address else local),
        )
    try:
        there = ray.cluster_resources().get("CPU", 0)
        if there < needed:
            raise InputError(
                f"--actors {known.actors}: with {known.cpus} CPU each and one to read, Ray needs "
                f"{needed}, and has {there:g}"
            )
        yield
    finally:
        if began_it:
            ray.shutdown()


def _map_batches(ray: Any, known: argparse.Namespace, kind: str, model: str) -> int:
    """Classify every row, and write the rows in their order; how many there are."""
    from finetune.inference.ray_actor import OrderedSink, RayClassifier

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    source, target = str(known.input.resolve()), str(known.output.resolve())
    classified = (
        _read(ray, known, kind, source)
        .map_batches(
            RayClassifier,
            fn_constructor_kwargs={
                "source": model,
                "text": known.text,
                "keep": known.keep,
                "probabilities": known.probabilities,
                "precision": known.precision,
                "threads": known.cpus,
            },
            batch_size=known.batch,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=known.actors),
            num_cpus=known.cpus,
            num_gpus=known.gpus or None,
        )
        .materialize()
    )
    if kind == "parquet":
        classified.write_datasink(OrderedSink(target))
    else:
        classified.write_json(target)
    return int(classified.count())


def _read(ray: Any, known: argparse.Namespace, kind: str, source: str) -> Any:
    """The rows, by Ray's own readers where these read such files."""
    if kind == "parquet":
        return ray.data.read_parquet(source)
    if not _reads_itself(known, kind):
        return ray.data.read_json(source)
    from finetune.inference.ray_reader import FileReader

    paths = [{"path": str(file.resolve())} for file in find_files(known.input)]
    files = ray.data.from_items(paths, override_num_blocks=len(paths))
    reader = FileReader(_make_source(known, kind), known.text)
    return files.map_batches(reader, batch_size=1, batch_format="pyarrow")


def _reads_itself(known: argparse.Namespace, kind: str) -> bool:
    """Whether this package parses the files, and not Ray, which knows no encodings."""
    from finetune.data.formats.encodings import is_utf_8

    return kind in ("csv", "tsv") or (kind == "jsonl" and not is_utf_8(known.encoding))


def _make_source(known: argparse.Namespace, kind: str, file: Path | None = None) -> Any:
    from finetune.data.formats.source import DataSource

    return DataSource(
        str(file), kind, file, encoding=known.encoding, encoding_option="--encoding ",
        delimiter=known.delimiter, delimiter_option="--delimiter ",
    )  # fmt: skip


def check_files(known: argparse.Namespace, kind: str) -> None:
    """Look at the beginning of each file that this package parses.

    Raises:
        InputError: with what is wrong with each.
    """
    from finetune.data.formats.registry import peek_columns
    from finetune.runtime.errors import ProblemList

    problems = ProblemList()
    for file in find_files(known.input) if _reads_itself(known, kind) else ():
        with problems.collect():
            peek_columns(_make_source(known, kind, file), known.text)
    problems.raise_if_any()


def find_files(source: Path) -> list[Path]:
    """The files whose names say that they hold rows."""
    files = [source] if source.is_file() else sorted(source.rglob("*"))
    return [file for file in files if file.suffix.lower() in FORMATS]


def find_format(source: Path) -> str:
    """parquet, jsonl, csv or tsv, by the names of the files.

    Raises:
        InputError: where there are none, or several kinds.
    """
    found = sorted({FORMATS[file.suffix.lower()] for file in find_files(source)})
    if len(found) != 1:
        raise InputError(
            f"{source}: expected files of one kind (Parquet, JSON Lines, csv or tsv), found "
            f"{' and '.join(found) or 'none'}"
        )
    return found[0]
