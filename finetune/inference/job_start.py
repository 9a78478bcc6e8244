"""What a batch job knows before it computes: inputs, a model with an engine, what is wrong.

items = find_items(options, accelerator)
classifier = load_classifier(options, items, store, accelerator)
find_misfits(options, classifier).raise_if_any()
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from accelerate import Accelerator

from finetune.data.formats.source import DataSource, ReadProgress
from finetune.inference import inputs
from finetune.inference.classifier import Classifier
from finetune.inference.engine_choice import MOST_ROWS, Choice
from finetune.inference.engines import AUTO, EngineOptions
from finetune.inference.explanation import check_explainable
from finetune.inference.job_options import JobOptions, OutputOptions
from finetune.inference.outputs import check_output_file
from finetune.inference.records import Record, read_records
from finetune.inference.shards import ShardStore
from finetune.modeling.model_folder import find_model
from finetune.runtime import console
from finetune.runtime.distributed import run_on_main, run_on_main_first
from finetune.runtime.errors import InputError, ProblemList
from finetune.runtime.wording import count_of

MAX_LABELS = 8  # that are printed


def find_items(options: JobOptions, accelerator: Accelerator) -> list[DataSource]:
    """The inputs.

    Raises:
        InputError: with all that can be known to be wrong before the model is loaded.
    """
    problems = ProblemList()
    for file in (options.output.file, options.output.errors):
        with problems.collect():
            check_output_file(file)
    if options.input.source == "-" and accelerator.num_processes > 1:
        problems.append(
            f"-: {accelerator.num_processes} processes cannot share standard input; write it to a "
            "file first"
        )
    with problems.collect():
        find_model(options.model.name)
    items: list[DataSource] = []
    with problems.collect():
        items = run_on_main_first(
            accelerator, lambda: inputs.find_inputs(options.input, print_note)
        )
    problems += options.find_lost_files(items)
    problems.raise_if_any()
    return items


def is_complete(output: OutputOptions, store: ShardStore) -> bool:
    """Whether `resume` has nothing to do.

    Raises:
        InputError: where the output exists, and neither `resume` nor `overwrite` is on.
    """
    if not output.file.exists() or output.overwrite:
        return False
    if not output.resume:
        raise InputError(
            f"{output.file}: the file exists already; choose another name, or add --overwrite"
        )
    return not store.folder.exists()


def load_classifier(
    options: JobOptions, items: Sequence[DataSource], store: ShardStore, accelerator: Accelerator
) -> Classifier:
    """The classifier, in all processes with the same engine."""
    compute = replace(options.compute, device=accelerator.device)
    choice = Choice(options.engine, options.model.name)
    if options.engine == AUTO:
        choice = run_on_main(accelerator, lambda: _choose_engine(options, compute, items, store))
    source = choice.apply(options.model)
    classifier = run_on_main_first(
        accelerator, lambda: Classifier.with_options(source, choice.engine, compute)
    )
    classifier.engine.reasons = (*choice.reasons, *classifier.engine.reasons)
    return classifier


def _choose_engine(
    options: JobOptions, compute: EngineOptions, items: Sequence[DataSource], store: ShardStore
) -> Choice:
    """The fastest engine for the first rows; that of the job which goes on."""
    if options.output.explain:
        return Choice("torch", options.model.name, ("auto: torch, which alone explains",))
    before = store.read_job().get("engine") if options.output.resume else None
    if before is not None:
        name, folder, *graph = before  # which earlier versions did not note
        return Choice(name, folder, (f"auto: {name}, as the job began",), *graph)

    def read_rows(classifier: Classifier) -> list[Record]:
        columns = options.columns.request(classifier, items)
        rows = (row for item in items for row in read_records(item, columns, ReadProgress()))
        return [*itertools.islice(rows, MOST_ROWS)]

    can_reread = all(item.table is not None or item.can_reopen for item in items)  # no pipe
    return Classifier.choose_engine(options.model, compute, read_rows if can_reread else None)


def find_misfits(options: JobOptions, classifier: Classifier) -> ProblemList:
    """What is asked of a model that it cannot do."""
    problems = ProblemList()
    with problems.collect():
        options.columns.check(classifier, cascades=options.cascade is not None)
    with problems.collect():
        if options.output.probabilities:
            classifier.rules.refuse_number("--probabilities", "has none")
    with problems.collect():
        if options.output.explain:
            check_explainable(classifier, "--explain")
    return problems


def print_note(message: str) -> None:
    """Print what a person should know of the input: what is not read, or read in a certain way."""
    console.print_wrapped(message, mark="  ! ")


def print_start(
    options: JobOptions, items: Sequence[DataSource], classifier: Classifier, processes: int
) -> None:
    kinds = sorted({item.kind for item in items})
    name = items[0].name if len(items) == 1 else f"{len(items):,} files of {options.input.source}"
    console.print_line(f"Input  {name} ({', '.join(kinds)})")
    labels = classifier.labels
    more = f" and {len(labels) - MAX_LABELS} more" if len(labels) > MAX_LABELS else ""
    shown = ", ".join(labels[:MAX_LABELS]) + more
    about = f"{len(labels)} labels: {shown}"
    if classifier.rules.number is not None:
        about = f"predicts the number '{labels[0]}'"
    if classifier.rules.tasks is not None:
        about += f" of the tasks {', '.join(classifier.rules.tasks.names)}"
    console.print_line(f"Model  {options.model.name}, {about}")
    first, *others = classifier.engine.reasons
    if processes > 1:
        first += f", {count_of(processes, 'process', 'processes')}"
    console.print_wrapped(first, mark="On     ")
    for reason in others:
        console.print_wrapped(reason, mark="       ")
