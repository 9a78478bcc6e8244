"""A model and millions of documents → a file of answers: streamed, resumable, by many processes.

    run(Choices(model="runs/…", where=Where("news/*.jsonl"), out=Path("answers.parquet")))

The rows are read in windows, each of which is tokenized while the one before is computed. A window
is sorted by length inside, answered, and written as a part (`shards.py`). Of several processes each
takes every n-th window. At the end the main process puts all parts, in order, into one file. Memory
holds three windows, whatever the input's size.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from finetune.compute import launch_checks
from finetune.data.formats.source import DataSource
from finetune.inference import inputs, outputs
from finetune.inference.chunks import WINDOW, Chunk, Pace, read_ahead, read_chunks
from finetune.inference.classifier import Classifier, find_model
from finetune.inference.inputs import InputSpec
from finetune.inference.outputs import Columns
from finetune.inference.records import RequestedColumns
from finetune.inference.shards import Footer, ShardStore
from finetune.runtime import console
from finetune.runtime.distributed import run_on_main, run_on_main_first
from finetune.runtime.errors import Collected, InputError
from finetune.tokenization.token_table import TokenTable


@dataclass(frozen=True)
class JobOptions:
    """What a person asks for; `scripts/predict.py --help` says what each means."""

    model: str
    where: InputSpec
    out: Path
    errors: Path | None = None
    text: tuple[str, ...] = ()
    id: str | None = None
    keep: tuple[str, ...] = ()  # COLUMN or NAME=COLUMN
    probabilities: bool = False
    resume: bool = False
    overwrite: bool = False
    engine: str | None = None
    precision: str = "auto"
    threads: int | None = None
    tokens: int | None = None
    window: int = WINDOW
    revision: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True)
class JobSummary:
    """How a job ended: rows in all, those that were not right, those without a label, by label."""

    rows: int
    errors: int
    abstained: int
    counts: dict[str, int]
    seconds: float
    computed: int  # rows that this run answered itself, the others stood there already


def run_job(choices: JobOptions) -> JobSummary | None:
    """Everything that a job asks for; None where the output stands there whole already.

    Raises:
        InputError: for what the user can mend, before anything is computed where that can be known.
    """
    console.quiet_libraries()
    accelerator = Accelerator(
        # One process may be done long before another.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=7))]
    )
    launch_checks.check_processes_joined(accelerator)
    console.speak_only_if(accelerator.is_main_process)
    asked, names = _columns(choices)
    problems = Collected()
    for file in (choices.out, choices.errors):
        with problems.within():
            _check_file(file)
    if choices.where.source == "-" and accelerator.num_processes > 1:
        problems.append(
            f"-: {accelerator.num_processes} processes cannot share standard input; write it to a "
            "file first"
        )
    with problems.within():
        find_model(choices.model)
    items: list[DataSource] = []
    with problems.within():
        items = run_on_main_first(accelerator, lambda: inputs.find_inputs(choices.where))
    problems += _overwritten(choices, items)
    problems.tell()
    if choices.out.exists() and not choices.overwrite:
        parts = ShardStore(choices.out)
        if not choices.resume:
            raise InputError(
                f"{choices.out}: is there already; choose another name, or --overwrite it"
            )
        if not parts.folder.exists():
            return None
    classifier = run_on_main_first(accelerator, lambda: _classifier(choices, accelerator))
    asked = replace(asked, spec=classifier.reading.wanted())
    if not choices.text:
        asked = replace(asked, texts=classifier.columns, option="the model's")
    if asked.id is None and all(item.kind == "document" for item in items):
        asked = replace(asked, id="file")
    with problems.within():
        _check_names(names, classifier, choices)
    with problems.within():
        run_on_main(accelerator, lambda: inputs.check_inputs(items, asked))
    problems.tell()
    _say_start(choices, items, classifier, accelerator)
    parts = ShardStore(choices.out)
    job = {
        "model": classifier.identity,
        "columns": [*asked.texts, *asked.beside],
        "names": list(names),
        "probabilities": choices.probabilities,
        "window": choices.window,
    }
    if choices.overwrite and not choices.resume:
        run_on_main(accelerator, parts.replace)
    try:
        standing = run_on_main(accelerator, lambda: parts.begin(job, choices.resume))
        return _compute(choices, items, asked, names, classifier, parts, accelerator, standing)
    finally:
        if accelerator.is_main_process:
            parts.drop_if_empty()  # after a refusal: nothing is worth going on with
            parts.let_go()


def _compute(
    choices: JobOptions,
    items: Sequence[DataSource],
    asked: RequestedColumns,
    names: Sequence[str],
    classifier: Classifier,
    parts: ShardStore,
    accelerator: Accelerator,
    standing: bool,
) -> JobSummary:
    me, processes = accelerator.process_index, accelerator.num_processes
    pace, computed, many = Pace(), 0, 0

    def prepared() -> Iterator[tuple[Chunk, TokenTable | None]]:
        """Each window with its tokens, where it is this process's and not done."""
        for window in read_chunks(items, asked, choices.window):
            table = None
            if window.index % processes == me:
                done = parts.footer(window.index) if standing else None
                if done is None:
                    table = classifier.encode(window.rows)
                elif done.input != window.input:
                    raise InputError(
                        f"--resume: the input is not what it was: rows {window.first:,} to "
                        f"{window.last:,} differ from those that were answered; start anew with "
                        "--overwrite"
                    )
            yield window, table

    for window, table in read_ahead(prepared()):
        many = window.index + 1
        if table is not None:
            lines, footer = answered(window, table, names, classifier, choices)
            parts.write(window.index, lines, footer)
            computed += len(window.rows)
            pace.show(window)
        elif window.index % processes == me:
            pace.skip(window)
    counted = torch.tensor([computed], device=accelerator.device)
    computed = int(accelerator.reduce(counted).item())  # all parts stand from here on
    found = run_on_main(accelerator, lambda: _join(choices, names, classifier, parts, many))
    seconds = time.perf_counter() - pace.began
    counts = sum((Counter(dict(footer.counts)) for footer in found), Counter())
    return JobSummary(
        rows=sum(footer.rows for footer in found),
        errors=sum(footer.errors for footer in found),
        abstained=sum(footer.abstained for footer in found),
        counts={label: counts[label] for label in classifier.labels},
        seconds=seconds,
        computed=computed,
    )


def answered(
    window: Chunk,
    table: TokenTable,
    names: Sequence[str],
    classifier: Classifier,
    choices: JobOptions,
) -> tuple[list[str], dict[str, Any]]:
    """A window's rows of output as lines of JSON, and what its part says of them."""
    lines, counts, errors, abstained = [], Counter[str](), 0, 0
    kinds: dict[str, set[str]] = {name: set() for name in names}
    answers = classifier.answers(window.rows, table, choices.probabilities)
    for number, (row, answer) in enumerate(zip(window.rows, answers, strict=True), window.first):
        beside = row.beside if len(row.beside) == len(names) else (number, *row.beside)
        for name, value in zip(names, beside, strict=True):
            if (kind := outputs.kind_of(value)) is not None:
                kinds[name].add(kind)
        if "error" in answer:
            errors += 1
        elif classifier.rules.several:
            counts.update(answer["labels"])
            abstained += not answer["labels"]
        elif answer["label"] is None:
            abstained += 1
        else:
            counts[answer["label"]] += 1
        line = dict(zip(names, beside, strict=True)) | answer
        lines.append(json.dumps(line, ensure_ascii=False, allow_nan=False))
    return lines, {
        "errors": errors,
        "abstained": abstained,
        "input": window.input,
        "counts": dict(counts),
        "kinds": {name: sorted(found) for name, found in kinds.items()},
    }


def _join(
    choices: JobOptions, names: Sequence[str], classifier: Classifier, parts: ShardStore, many: int
) -> list[Footer]:
    """Put the parts into the output, and remove them."""
    footers = [parts.read(index)[1] for index in range(many)]
    answer = ("labels", "scores") if classifier.rules.several else ("label", "score")
    kinds = {name: frozenset[str]().union(*(f.kinds[name] for f in footers)) for name in names}
    kinds |= {"score": frozenset({"float"}), "labels": frozenset({"texts"})}
    kinds |= {"scores": frozenset({"floats"})}
    columns = [*names, *answer]
    if choices.probabilities:
        of_labels = [f"probabilities.{label}" for label in classifier.labels]
        columns += of_labels
        kinds |= dict.fromkeys(of_labels, frozenset({"float"}))

    def rows(wanted: Callable[[bytes, dict[str, Any]], bool]) -> Iterator[dict[str, Any]]:
        for line in parts.lines(many):
            row = json.loads(line)
            if wanted(line, row):
                yield row

    if choices.errors is None:
        everything = Columns((*columns, "error"), kinds)
        outputs.write_rows(rows(lambda line, row: True), choices.out, everything)
    else:
        outputs.write_rows(
            rows(lambda line, row: "error" in row),
            choices.errors,
            Columns((*names, "error"), kinds),
        )
        right = Columns(tuple(columns), kinds)
        outputs.write_rows(rows(lambda line, row: "error" not in row), choices.out, right)
    parts.drop()
    return footers


def _columns(choices: JobOptions) -> tuple[RequestedColumns, tuple[str, ...]]:
    """The columns to read, and what they are called in the output."""
    pairs = [word.rpartition("=")[::2] for word in choices.keep]
    keep = tuple(column for _, column in pairs)
    names = ("id", *(name or column for name, column in pairs))
    return RequestedColumns(choices.text, id=choices.id, keep=keep), names


def _check_names(names: Sequence[str], classifier: Classifier, choices: JobOptions) -> None:
    taken = ["label", "score", "labels", "scores", "probabilities", "error"]
    taken += [f"probabilities.{label}" for label in classifier.labels]
    problems = [
        f"--keep {name}: the output has a column '{name}' of its own; write --keep my_{name}={name}"
        for i, name in enumerate(names)
        if i and (name in taken or name in names[:i])
    ]
    if choices.text and len(choices.text) != len(classifier.columns):
        problems.append(
            f"--text: the model reads {len(classifier.columns)} columns "
            f"({', '.join(classifier.columns)}), got {len(choices.text)}"
        )
    if problems:
        raise InputError(problems)


def _check_file(file: Path | None) -> None:
    if file is None:
        return
    outputs.ending(file)
    if not file.parent.is_dir():
        raise InputError(f"{file}: no folder {file.parent}; make it first")
    if file.is_dir():
        raise InputError(f"{file}: expected a file, found a folder")


def _overwritten(choices: JobOptions, items: Sequence[DataSource]) -> Iterator[str]:
    """What would be lost if the output were written."""
    read = {item.path.resolve() for item in items if item.path is not None}
    for option, file in (("--output", choices.out), ("--errors", choices.errors)):
        if file is not None and file.resolve() in read:
            yield f"{option}: {file} is what is read; choose another name"
    if choices.errors is None:
        return
    if choices.errors.resolve() == choices.out.resolve():
        yield f"--errors: expected another file than --output, got {choices.errors} for both"
    elif choices.errors.exists() and not (choices.overwrite or choices.resume):
        yield f"{choices.errors}: is there already; choose another name, or --overwrite it"


def _classifier(choices: JobOptions, accelerator: Accelerator) -> Classifier:
    return Classifier(
        choices.model,
        engine=choices.engine,
        precision=choices.precision,
        threads=choices.threads,
        tokens=choices.tokens,
        device=accelerator.device,
        revision=choices.revision,
        trust_remote_code=choices.trust_remote_code,
    )


def _say_start(
    choices: JobOptions,
    items: Sequence[DataSource],
    classifier: Classifier,
    accelerator: Accelerator,
) -> None:
    kinds = sorted({item.kind for item in items})
    what = items[0].name if len(items) == 1 else f"{len(items):,} files of {choices.where.source}"
    console.print_line(f"Input  {what} ({', '.join(kinds)})")
    labels = classifier.labels
    shown = ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
    console.print_line(f"Model  {choices.model}, {len(labels)} labels: {shown}")
    several = f", {accelerator.num_processes} processes" * (accelerator.num_processes > 1)
    for i, reason in enumerate(classifier.engine.reasons):
        console.print_wrapped(reason + several * (i == 0), mark="       " if i else "On     ")
