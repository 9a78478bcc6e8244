"""A finished run → the sections of its `results.json`."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from transformers import PreTrainedModel

from finetune.compute.hardware_plan import Hardware
from finetune.config.schema import Recipe
from finetune.data.corpus import SHOWN, Corpus, Finding, Split, class_counts
from finetune.data.language import guess_language
from finetune.evaluation.analysis_model import Analysis
from finetune.reporting.results_model import (
    FILE,
    BackOff,
    Cost,
    DataSection,
    FindingSummary,
    Hashes,
    LrRange,
    Machine,
    ModelSection,
    Results,
    SplitSummary,
    StageSummary,
    TrainSection,
)
from finetune.runtime.atomic_files import write_json
from finetune.runtime.cost_meter import CostMeter
from finetune.runtime.environment import library_versions, machine
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.token_table import TokenTable
from finetune.tokenization.truncation_audit import ReadingOption
from finetune.training.stages import Stage
from finetune.training.train_log import TrainLog


@dataclass(frozen=True)
class Execution:
    """How a run was executed.

    Attributes:
        started: local time.
        sharded: whether each process holds a part of the weights only.
    """

    started: datetime
    num_processes: int
    sharded: bool
    hardware: Hardware

    @classmethod
    def of(cls, started: datetime, accelerator: Accelerator, hardware: Hardware) -> "Execution":
        return cls(started, accelerator.num_processes, accelerator.is_fsdp2, hardware)


def build_results(
    recipe: Recipe,
    execution: Execution,
    data: DataSection,
    model: ModelSection,
    train: TrainSection,
    analysis: Analysis,
    hashes: Hashes,
    cost: Cost,
) -> Results:
    """The whole of `results.json`.

    Args:
        data, model, train, cost: of this module's functions.
        analysis: of `analysis.analyse`.
    """
    return Results(
        recipe=recipe.run.name,
        seed=recipe.run.seed,
        started=execution.started.isoformat(timespec="seconds"),
        num_processes=execution.num_processes,
        sharded=execution.sharded,
        hashes=hashes,
        data=data,
        model=model,
        train=train,
        cost=cost,
        hardware=execution.hardware,
        machine=Machine(**machine()),
        versions=library_versions(),
        **{name: getattr(analysis, name) for name in Analysis.model_fields},
    )


def data_section(
    recipe: Recipe,
    corpus: Corpus,
    tables: Mapping[str, TokenTable],
    reading: DocumentFormat,
    audit: Sequence[ReadingOption],
) -> DataSection:
    """The documents of a run.

    Args:
        tables: the tokens of each split, by its name.
        audit: what each way of reading long documents would do to those of train.
    """
    return DataSection(
        source=recipe.data.source,
        labels=list(corpus.labels),
        multi_label=corpus.multi_label and corpus.tasks is None,
        task=recipe.data.task if corpus.tasks is None else "tasks",
        language=guess_language(corpus.train.texts),
        splits={
            split.name: summarize_split(split, corpus.labels, tables[split.name])
            for split in corpus.splits()
        },
        folds=None if corpus.folds is None else int(corpus.folds.max()) + 1,
        reading=reading,
        truncation_audit=[
            dataclasses.replace(one, time=round(one.time, 3), memory=round(one.memory, 3))
            for one in audit
        ],
        findings=[summarize_finding(finding) for finding in corpus.findings],
    )


def summarize_split(split: Split, labels: Sequence[str], table: TokenTable) -> SplitSummary:
    """A split in numbers."""
    return SplitSummary(
        origin=split.origin,
        rows=len(split.texts),
        classes=class_counts(split, labels),
        truncated_rows=table.truncated,
        cut_tokens=table.total_lost_tokens,
        median=int(np.median(table.full)),
        longest=int(table.full.max()),
    )


def summarize_finding(finding: Finding) -> FindingSummary:
    """A finding with the first few of its rows."""
    return FindingSummary(
        kind=finding.kind,
        split=finding.split,
        count=finding.count,
        places=list(finding.places[:SHOWN]),
        rule=finding.rule,
        other=finding.other,
        message=str(finding),
    )


def model_section(recipe: Recipe, model: PreTrainedModel, reading: DocumentFormat) -> ModelSection:
    """The model of the last stage."""
    return ModelSection(
        source=recipe.model.source,
        parameters=sum(p.numel() for p in model.parameters()),
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        max_length=reading.max_length,
        custom_code=bool(getattr(model.config, "auto_map", None)),
    )


def train_section(
    recipe: Recipe,
    stages: Sequence[Stage],
    log: TrainLog,
    best_step: float,
    back_offs: Sequence[Mapping[str, Any]] = (),
    lr_ranges: Sequence[Mapping[str, Any]] = (),
) -> TrainSection:
    """The training loop.

    Args:
        stages: all of the run, with the rates that were found.
        best_step: the step of the saved model.
        back_offs: each with diverged_at, rate_scale and why.
        lr_ranges: of `lr_finder.read_range_tests`.
    """
    last = stages[-1]
    return TrainSection(
        steps=log.steps,
        planned_steps=last.end,
        min_steps=last.recipe.train.min_steps,
        minutes=last.recipe.train.minutes,
        best_step=int(best_step),
        rows=log.rows,
        tokens=log.tokens,
        seconds=log.seconds,
        rows_per_second=log.rows / log.seconds,
        tokens_per_second=log.tokens / log.seconds,
        clipped=log.clipped / log.steps,
        back_offs=[BackOff.model_validate(one) for one in back_offs],
        stages=[
            StageSummary.model_validate(one.as_json()) for one in stages if recipe.train.stages
        ],
        lr_ranges=[LrRange.model_validate(one) for one in lr_ranges],
    )


def cost_section(meter: CostMeter, log: TrainLog) -> Cost:
    """What the run has cost this process so far."""
    cost = meter.cost()
    return Cost(
        seconds=cost["seconds"],
        steps=log.timer.read(),
        peak_memory=cost["peak_memory"],
        peak_device_memory=cost["peak_device_memory"],
    )


def write_results(results: Results, folder: Path) -> None:
    """Write `results.json`.

    Raises:
        InputError: where it cannot be written.
    """
    write_json(folder / FILE, results.as_json())
