"""A model and millions of documents → a file of predictions: streamed, resumable, by any number of
processes.

    run_job(JobOptions(ModelSource("runs/…"), InputSpec("news/*.jsonl"), OutputOptions(file)))

The rows are read in chunks, each of which is tokenized while the one before is computed. A chunk is
sorted by length inside, classified, and written as a shard (`shards.py`). Of several processes each
takes every n-th chunk. At the end the main process merges all shards, in order, into one file.
Memory holds three chunks, whatever the input's size.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs

from finetune.compute import launch_checks
from finetune.data.formats.source import DataSource
from finetune.inference import inputs
from finetune.inference.cascade import Cascade, CascadePlan
from finetune.inference.cascade_job import load_student, plan_job, write_plan
from finetune.inference.chunks import Chunk, Throughput, read_ahead, read_chunks
from finetune.inference.classifier import Classifier
from finetune.inference.job_options import JobOptions, OutputOptions
from finetune.inference.job_output import JobOutput
from finetune.inference.job_start import (
    find_items,
    find_misfits,
    is_complete,
    load_classifier,
    print_note,
    print_start,
)
from finetune.inference.records import RequestedColumns
from finetune.inference.shards import ShardStore
from finetune.runtime import console, heartbeat
from finetune.runtime.distributed import (
    TIME_TO_JOIN,
    run_on_main,
    run_on_main_first,
    wait_while_others_live,
)
from finetune.runtime.errors import InputError, ProblemList
from finetune.runtime.memory_errors import explain_memory_errors
from finetune.tokenization.token_table import TokenTable

LOWER = "lower --window or --tokens, or end other programs; finished chunks are kept for --resume"


@dataclass(frozen=True)
class JobSummary:
    """How a job ended: rows in all, invalid ones, those without a label, rows by label."""

    rows: int
    errors: int
    abstained: int
    counts: dict[str, int]
    seconds: float
    computed: int  # rows that this run classified itself; the others an earlier run
    without_id: int = 0  # rows without a value in the column that names them
    repeated_ids: int = 0  # rows whose value there is that of an earlier row
    engine: str = "torch"  # that computed them
    out_of_scope: int = 0  # of the rows without a label, those that no label fits
    by_student: int | None = None  # of a cascade, the rows that its student answered
    cascade: dict[str, Any] | None = None  # its threshold, and what that came to on labelled rows


def run_job(options: JobOptions) -> JobSummary | None:
    """Run a batch job; None where `resume` finds its output complete already.

    Raises:
        InputError: for what the user can correct, before anything is computed where that can be
            known.
    """
    accelerator = _join_processes()
    items = find_items(options, accelerator)
    store = ShardStore(options.output.file)
    if is_complete(options.output, store):
        return None
    classifier = load_classifier(options, items, store, accelerator)
    notes: list[str] = []
    columns = options.columns.request(classifier, items, notes.append)
    problems, student = ProblemList(), None
    problems += find_misfits(options, classifier)
    with problems.collect():
        student = run_on_main_first(
            accelerator, lambda: load_student(options, classifier, accelerator.device)
        )
    with problems.collect():
        run_on_main(accelerator, lambda: inputs.check_inputs(items, columns))
    problems.raise_if_any()
    for note in notes:  # not before an error, to which they would be noise
        print_note(note)
    print_start(options, items, classifier, accelerator.num_processes)
    has_numbers = columns.id is None or all(item.kind == "document" for item in items)
    row_id, names = None if has_numbers else columns.id, options.columns.names
    output = JobOutput(options.output, names, classifier.rules, row_id, student is not None)
    plan: CascadePlan | None = None
    predictor: Classifier | Cascade = classifier
    if student is not None:
        plan = run_on_main(accelerator, lambda: plan_job(options, classifier, student, store))
        console.print_wrapped(plan.describe(), mark="Cascade ")
        for note in plan.warnings():
            print_note(note)
        predictor = Cascade(classifier, student, plan.chosen.threshold)
    identity = _identify(options.output, predictor, columns, output.names, plan)
    if options.output.overwrite and not options.output.resume:
        run_on_main(accelerator, store.replace)
    try:
        chosen = {"engine": [classifier.engine_name, classifier.source, classifier.graph]}
        resumed = run_on_main(
            accelerator, lambda: store.begin(identity, options.output.resume, chosen)
        )
        job = BatchJob(items, columns, output, predictor, store, accelerator, resumed)
        with explain_memory_errors("reading and predicting", LOWER):
            found = job.execute()
        if plan is not None:
            found = replace(found, cascade=plan.as_json())
        run_on_main(accelerator, lambda: _conclude(options.output, plan, found, store))
        return found
    finally:
        if accelerator.is_main_process:
            store.drop_if_empty()  # after a refusal: there is nothing to resume
            store.release()


def _conclude(
    output: OutputOptions, plan: CascadePlan | None, found: JobSummary, store: ShardStore
) -> None:
    """Put the plan of a cascade beside the output, and then remove the shards: until they are gone,
    a job that is killed can be resumed."""
    if plan is not None:
        write_plan(output.cascade_file, plan, found.rows - found.errors, found.by_student or 0)
    elif output.overwrite:
        output.cascade_file.unlink(missing_ok=True)  # of the output that was replaced
    store.drop()


def _join_processes() -> Accelerator:
    """This process among those of the job."""
    console.quiet_libraries()
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=TIME_TO_JOIN)])
    launch_checks.check_processes_joined(accelerator)
    wait_while_others_live()  # one process may be done long before another
    heartbeat.start(heartbeat.MINUTES, "run the same command again with --resume")
    heartbeat.note("predict")
    console.CONSOLE.is_main = accelerator.is_main_process
    return accelerator


def _identify(
    options: OutputOptions,
    classifier: Classifier | Cascade,
    columns: RequestedColumns,
    names: Sequence[str],
    plan: CascadePlan | None,
) -> dict[str, Any]:
    """What must be the same for a job to go on with the shards of another."""
    return {
        "model": classifier.identity,
        "columns": [*columns.texts, *columns.beside],
        "names": list(names),
        "probabilities": options.probabilities,
        **({"explain": options.explain} if options.explain else {}),
        "window": options.chunk_rows,
        **({} if plan is None else {"cascade": plan.as_json()}),
    }


@dataclass(frozen=True)
class BatchJob:
    """A job whose options are known to be right.

    Attributes:
        resumed: whether `store` may hold shards of an earlier run.
    """

    items: Sequence[DataSource]
    columns: RequestedColumns
    output: JobOutput
    classifier: Classifier | Cascade
    store: ShardStore
    accelerator: Accelerator
    resumed: bool

    def execute(self) -> JobSummary:
        """Classify this process's chunks; then the main process writes the output."""
        throughput, computed, count = Throughput(), 0, 0
        for chunk, table in read_ahead(self._tokenize()):
            count = chunk.index + 1
            if table is not None:
                options = self.output.options
                predictions = self.classifier.predict(
                    chunk.rows, table, options.probabilities, options.explain
                )
                self.store.write(chunk.index, *self.output.make_shard(chunk, predictions))
                computed += len(chunk.rows)
                throughput.show(chunk)
            elif self._is_mine(chunk):
                throughput.skip(chunk)
        rows = torch.tensor([computed], device=self.accelerator.device)
        computed = int(self.accelerator.reduce(rows).item())  # all shards are written from here on
        footers, ids = run_on_main(
            self.accelerator, lambda: self.output.merge_shards(self.store, count)
        )
        for said in ids.describe(str(self.output.id)):
            print_note(said)
        counts = sum((Counter(dict(footer.counts)) for footer in footers), Counter())
        return JobSummary(
            rows=sum(footer.rows for footer in footers),
            errors=sum(footer.errors for footer in footers),
            abstained=sum(footer.abstained for footer in footers),
            counts={label: counts[label] for label in self._counted()},
            seconds=time.perf_counter() - throughput.began,
            computed=computed,
            engine=self._main.engine_name,
            without_id=ids.missing,
            repeated_ids=ids.repeated,
            out_of_scope=sum(footer.out_of_scope for footer in footers),
            by_student=(
                sum(footer.by_student for footer in footers) if self.output.cascades else None
            ),
        )

    @property
    def _main(self) -> Classifier:
        """The classifier; of a cascade, the teacher."""
        return self.classifier.teacher if isinstance(self.classifier, Cascade) else self.classifier

    def _counted(self) -> Sequence[str]:
        """The labels whose rows are counted: a model of numbers has none."""
        rules = self.output.rules
        return rules.labels if rules.number is None else ()

    def _is_mine(self, chunk: Chunk) -> bool:
        rank: int = self.accelerator.process_index
        return chunk.index % int(self.accelerator.num_processes) == rank

    def _tokenize(self) -> Iterator[tuple[Chunk, TokenTable | None]]:
        """Each chunk, with its tokens where it is this process's and not done."""
        most = self.output.options.chunk_rows
        for chunk in read_chunks(self.items, self.columns, most, print_note):
            table = None
            if self._is_mine(chunk):
                done = self.store.footer(chunk.index) if self.resumed else None
                if done is None:
                    table = self.classifier.encode(chunk.rows)
                elif done.input != chunk.input:
                    raise InputError(
                        f"--resume: the input has changed: rows {chunk.first:,} to "
                        f"{chunk.last:,} differ from those already classified; start again with "
                        "--overwrite"
                    )
            yield chunk, table
