"""A trained model on new labelled rows → the analysis that a run makes of its test split.

    evaluate_rows(EvaluationOptions(ModelSource("runs/…"), LabelledInput("june.csv")))

The rows are read as training reads them, tokenized as the model's config says, and computed by the
engine that predicts. Where the model is a run's, the rows are compared with its test split. In a
run's own precision and micro-batches, its test split gives the very numbers of its results.json.
"""

import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune.config import loader, schema
from finetune.config.label_tasks import base_metric
from finetune.data import local_paths
from finetune.data.corpus import Split, split_hash
from finetune.data.label_tasks import Task, Tasks
from finetune.data.labelled_rows import LabelledRows
from finetune.evaluation import analysis, number_analysis, scoring
from finetune.evaluation.analysis_model import Analysis
from finetune.evaluation.calibration import Temperature
from finetune.evaluation.drift import Drift, ScoredRows, measure_drift
from finetune.evaluation.metrics import bind_labels, load_metrics
from finetune.evaluation.probabilities import predict_labels
from finetune.evaluation.task_analysis import analyse_task_rows
from finetune.inference import labelled_input
from finetune.inference.classifier import Classifier
from finetune.inference.engine_choice import MOST_ROWS
from finetune.inference.engines import EngineOptions, ModelSource
from finetune.inference.labelled_input import LabelledInput
from finetune.inference.records import Record
from finetune.inference.scope_counts import describe_scope
from finetune.reporting import compare, evaluation_report, predictions
from finetune.reporting import results as results_module
from finetune.reporting.evaluation_model import (
    EvaluatedData,
    EvaluatedModel,
    Evaluation,
    ScopeCounts,
)
from finetune.reporting.results_model import FILE, Machine, Results, read_results
from finetune.runtime.atomic_files import replace_folder, write_json
from finetune.runtime.environment import library_versions, machine
from finetune.runtime.errors import InputError, shorten
from finetune.tokenization.token_table import TokenTable

if TYPE_CHECKING:
    from finetune.evaluation.metrics import Metric


PREDICTIONS = "predictions.jsonl"
UNKNOWN = Temperature(1.0, "the model does not say what its logits were divided by")
# What an evaluation writes: a folder with anything else in it is never replaced.
OWN_FILES = (FILE, PREDICTIONS, "report.html")


@dataclass(frozen=True)
class EvaluationOptions:
    """What to evaluate, on what, and how to compute it; None: as in the model's run."""

    model: ModelSource
    input: LabelledInput
    engine: str | None = None
    precision: str | None = None
    threads: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class TrainedRun:
    """The finished run that a model is of."""

    folder: Path
    results: Results
    recipe: schema.Recipe


@dataclass(frozen=True)
class EvaluatedRows:
    """An evaluation, and what its predictions file holds.

    Attributes:
        logits: (rows, classes)
        thresholds: of a multi-label model. (classes,)
        tasks: of a model of several.
    """

    evaluation: Evaluation
    split: Split
    logits: NDArray[np.float32]
    thresholds: NDArray[np.float64] | None
    tasks: Tasks | None = None

    def write(self, folder: Path) -> None:
        """Write report.html, results.json and predictions.jsonl, all or nothing.

        Raises:
            InputError: where the folder cannot be written.
        """
        found = self.evaluation

        def fill(aside: Path) -> None:
            predictions.write_predictions(
                aside / PREDICTIONS,
                self.split,
                found.data.labels,
                self.logits,
                self.tasks or found.data.multi_label,
                self.thresholds,
                _half_width(found),
            )
            write_json(aside / FILE, found.as_json())
            evaluation_report.write_report(found, aside)

        folder = folder.absolute()  # `.` has no name
        folder.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(folder, fill)


def _half_width(found: Evaluation) -> float | None:
    interval = None if found.numbers is None else found.numbers.interval
    return None if interval is None else interval.half_width


def check_output(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that an evaluation may not replace.

    Raises:
        InputError: where it is there, unless it is to be replaced and an evaluation wrote it.
    """
    if not os.path.lexists(folder):
        return
    if not overwrite:
        raise InputError(
            f"{folder}: exists already; choose another folder with --output, or add --overwrite"
        )
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; choose another with --output")
    others = sorted({child.name for child in folder.iterdir()} - set(OWN_FILES))
    if others:
        raise InputError(
            f"{folder}: holds what no evaluation writes ({shorten(others)}), which --overwrite "
            "would remove; choose another folder with --output"
        )


def find_run(model: str) -> TrainedRun | None:
    """The run of a run folder, or of the model folder in one; None for any other model.

    Raises:
        InputError: where its files cannot be read.
    """
    path = local_paths.resolve_local_path(model, "MODEL", may_be_run=True)
    folders = [] if path is None else [path, *[path.absolute().parent] * (path.name == "model")]
    for folder in folders:
        if (folder / FILE).is_file() and (folder / "recipe.yaml").is_file():
            return TrainedRun(folder, read_results(folder), loader.load_saved(folder))
    return None


def evaluate_rows(
    options: EvaluationOptions, announce: Callable[[str], None] = lambda line: None
) -> EvaluatedRows:
    """Evaluate a model on labelled rows.

    Args:
        announce: is told what is about to take time.

    Raises:
        InputError: where the model or the rows cannot be read, or rows do not fit the model.
    """
    started, run = datetime.now(), find_run(options.model.name)
    classifier, found = _load(options, run)
    announce(
        f"Evaluating {options.model.name} on {len(found.split):,} documents of "
        f"{options.input.source}"
    )
    began = time.perf_counter()
    table = classifier.reading.encode(found.split.texts, found.split.seconds, classifier.tokenizer)
    outputs = classifier.compute(table)
    logits = outputs[:, : len(classifier.labels)]
    seconds = time.perf_counter() - began
    _check_finite(logits, found.split.places)
    metrics = _load_metrics(classifier, run, options)
    bind_labels(metrics, found.labels, classifier.rules.hierarchy)
    scores = _score(found, logits, classifier, metrics)
    analysed = _analyse(found, table, scores, metrics, classifier, run, options.input.slices)
    digest = split_hash(found.split)
    is_test = run is not None and digest == run.results.hashes.test
    evaluation = Evaluation(
        started=started.isoformat(timespec="seconds"),
        seconds=seconds,
        model=EvaluatedModel(
            source=options.model.name,
            run=None if run is None else str(run.folder),
            max_length=classifier.reading.max_length,
            engine=list(classifier.engine.reasons),
            identity=classifier.identity,
        ),
        data=_data_section(options.input.source, found, table, classifier, digest),
        drift=None if run is None or is_test else _measure_drift(run, found, scores, table),
        scope=_count_scope(classifier, found, outputs),
        is_test_of_run=is_test,
        machine=Machine(**machine()),
        versions=library_versions(),
        **{name: getattr(analysed, name) for name in type(analysed).model_fields},
    )
    tasks = classifier.rules.tasks
    return EvaluatedRows(evaluation, found.split, scores.logits, scores.thresholds, tasks)


def _load(options: EvaluationOptions, run: TrainedRun | None) -> tuple[Classifier, LabelledRows]:
    """The model, which computes as its run did unless told otherwise, and the rows."""
    compute = EngineOptions(options.precision or "auto", options.threads, options.tokens)
    if run is not None:
        hardware = run.results.hardware
        compute = EngineOptions(
            options.precision or run.recipe.train.precision,
            options.threads or run.recipe.train.threads,
            options.tokens or hardware.micro_batch_tokens,
            in_turn=True,
            packing=hardware.packed,
        )

    found: list[LabelledRows] = []  # read once: whichever engine computes them reads them alike

    def read(classifier: Classifier) -> LabelledRows:
        if not found:
            data = None if run is None else run.recipe.data
            found.append(labelled_input.read_labelled(options.input, classifier, data))
        return found[0]

    def read_first(classifier: Classifier) -> list[Record]:
        split = read(classifier).split
        seconds = [()] * len(split) if split.seconds is None else [(one,) for one in split.seconds]
        rows = zip(split.texts, seconds, strict=True)
        return [Record((text, *second), ()) for text, second in itertools.islice(rows, MOST_ROWS)]

    classifier = Classifier.with_options(options.model, options.engine, compute, read_first)
    return classifier, read(classifier)


def _load_metrics(
    classifier: Classifier, run: TrainedRun | None, options: EvaluationOptions
) -> "Sequence[Metric]":
    """Those of the run, or the default ones.

    Raises:
        InputError: for one whose code the run was allowed to load, and this command is not.
    """
    tasks, score = classifier.rules.tasks, schema.Score()
    multi_label = classifier.rules.multi_label and tasks is None
    if run is not None:
        score = run.recipe.score
    elif (kind := classifier.rules.kind) in schema.TASK_METRICS:
        names, monitor = schema.TASK_METRICS[kind]
        score = schema.Score(metrics=names, monitor=monitor)
    trusted = score.trust_remote_code and options.model.trust_remote_code
    monitor = base_metric(score.monitor, () if tasks is None else tasks.names)
    try:
        return load_metrics(score.metrics, monitor, trusted, multi_label)
    except InputError as error:
        raise InputError(
            problem.replace("score.trust_remote_code=true allows", "--trust-remote-code allows")
            for problem in error.problems
        ) from None


def _analyse(
    found: LabelledRows,
    table: TokenTable,
    scores: scoring.Scores,
    metrics: "Sequence[Metric]",
    classifier: Classifier,
    run: TrainedRun | None,
    slices: Sequence[str],
) -> Analysis:
    number = classifier.rules.number
    if number is not None:
        return number_analysis.analyse_number_rows(
            found.split,
            table,
            scores,
            found.labels[0],
            metrics,
            number.scale,
            number.interval,
            slices,
        )
    if classifier.rules.tasks is not None:
        return _analyse_tasks(found, table, scores, metrics, classifier.rules.tasks, run, slices)
    return analysis.analyse_rows(
        found.split, table, scores, found.labels, metrics, _choices(classifier, run), slices
    )


def _analyse_tasks(
    found: LabelledRows,
    table: TokenTable,
    scores: scoring.Scores,
    metrics: "Sequence[Metric]",
    tasks: Tasks,
    run: TrainedRun | None,
    slices: Sequence[str],
) -> Analysis:
    of_run = {} if run is None else {one.name: one for one in run.results.tasks}
    monitor = None if run is None else run.results.monitor

    def choices(task: Task) -> analysis.SavedChoices:
        known = of_run.get(task.name)
        if known is None:
            return analysis.SavedChoices(UNKNOWN)
        temperature = Temperature(known.calibration.temperature, known.calibration.why)
        target = threshold = None
        if known.abstention is not None:
            target, threshold = known.abstention.target, known.abstention.threshold
        return analysis.SavedChoices(temperature, target, threshold, known.monitor)

    return analyse_task_rows(found.split, table, scores, tasks, metrics, choices, monitor, slices)


def _check_finite(logits: NDArray[np.float32], places: Sequence[str]) -> None:
    """
    Raises:
        InputError: naming the rows without a finite logit, which no metric can count.
    """
    rows = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(rows):
        listed = shorten([places[int(row)] for row in rows[:6]])
        raise InputError(
            f"the model's logits are not finite for {len(rows):,} of {len(logits):,} documents "
            f"({listed}); try --precision fp32, or another model"
        )


def _score(
    found: LabelledRows, logits: NDArray[np.float32], classifier: Classifier, metrics: Any
) -> scoring.Scores:
    """The scores. Labels that the model does not know have no logit: they are never predicted."""
    labels, rules = found.split.labels, classifier.rules
    assert labels is not None
    if rules.number is not None:
        deviation = rules.number.scale.deviation
        of_numbers = scoring.compute_metrics(logits, labels, metrics, scale=deviation)
        return scoring.Scores(logits, of_numbers)
    if rules.tasks is not None:
        values = scoring.compute_metrics(logits, labels, metrics, scale=rules.tasks)
        return scoring.Scores(logits, values)
    unknown = len(found.labels) - logits.shape[1]
    thresholds = None if rules.thresholds is None else np.array(rules.thresholds)
    if unknown:
        never = np.full((len(logits), unknown), -np.inf, dtype=np.float32)
        logits = np.concatenate([logits, never], axis=1)
        if thresholds is not None:
            thresholds = np.concatenate([thresholds, np.ones(unknown)])
    values = scoring.compute_metrics(logits, labels, metrics, thresholds)
    if unknown:
        values |= {"loss": np.inf, "loss_se": np.inf}
    return scoring.Scores(logits, values, thresholds)


def _count_scope(
    classifier: Classifier, found: LabelledRows, outputs: NDArray[np.float32]
) -> ScopeCounts | None:
    """What the model calls out of scope of these rows; None: it has no detector."""
    detector, classes = classifier.rules.detector, len(classifier.labels)
    if detector is None:
        return None
    assert found.split.labels is not None
    scores = detector.score(outputs[:, :classes], outputs[:, classes:])
    is_known = found.split.labels < classes
    return describe_scope(scores[is_known], scores[~is_known], detector.threshold)


def _choices(classifier: Classifier, run: TrainedRun | None) -> analysis.SavedChoices:
    if run is None:
        rules = classifier.rules
        return analysis.SavedChoices(UNKNOWN, None, rules.abstain_below, hierarchy=rules.hierarchy)
    calibration, abstention = run.results.calibration, run.results.abstention
    rules = classifier.rules
    temperature = Temperature(calibration.temperature, calibration.why, rules.ordered)
    target, threshold, monitor = None, classifier.rules.abstain_below, run.results.monitor
    if abstention is not None:
        target, threshold = abstention.target, abstention.threshold
    return analysis.SavedChoices(temperature, target, threshold, monitor, rules.hierarchy)


def _data_section(
    source: str, found: LabelledRows, table: TokenTable, classifier: Classifier, digest: str
) -> EvaluatedData:
    summary = results_module.summarize_split(found.split, found.labels, table)
    return EvaluatedData(
        source=source,
        labels=list(found.labels),
        multi_label=classifier.rules.multi_label and classifier.rules.tasks is None,
        splits={found.split.name: summary},
        reading=classifier.reading,
        unknown_labels=found.unknown,
        findings=[results_module.summarize_finding(finding) for finding in found.findings],
        hash=digest,
    )


def _measure_drift(
    run: TrainedRun, found: LabelledRows, scores: scoring.Scores, table: TokenTable
) -> Drift | None:
    """The rows beside the run's test split, where that has labels."""
    is_of_labels = run.results.numbers is None and not run.results.tasks
    if not run.results.test.labelled or not is_of_labels:
        return None  # what has drifted is told of labels of one task alone
    old = compare.read_run(run.folder)
    labels = found.split.labels
    assert labels is not None
    multi_label = labels.ndim == 2
    if more := len(found.labels) - len(run.results.data.labels):
        old = replace(
            old, labels=_widen(old.labels, more), predictions=_widen(old.predictions, more)
        )
    return measure_drift(
        ScoredRows(old.labels, old.predictions, run.results.data.splits["test"].median),
        ScoredRows(
            labels,
            predict_labels(scores.logits, multi_label, scores.thresholds),
            int(np.median(table.full)),
        ),
        found.labels,
        run.results.lengths,
        table.full,
    )


def _widen(labels: NDArray[Any], classes: int) -> NDArray[Any]:
    """Class ids as they are; sets with so many more classes, which no row has."""
    return labels if labels.ndim == 1 else np.pad(labels, ((0, 0), (0, classes)))
