"""What `results.json` holds: its types, its keys and what each means; reading it back.

    results = read_results(Path("runs/bbc_news/…"))
    results.test.metric("accuracy")
    describe()                              # every key and its meaning, as a Markdown table

null: the number could not be computed. Every interval is [low, high], of 95 %, over
documents; `evaluation/intervals.py` says by which method.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError

from finetune.compute.hardware_plan import Hardware
from finetune.evaluation.analysis_model import Analysis, MetricValues, Number, Section
from finetune.reporting.run_progress import describe_unfinished, is_run
from finetune.runtime.errors import InputError
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.truncation_audit import ReadingOption

SCHEMA = 5  # raised when a key changes its name or meaning, or the report needs a new one
FILE = "results.json"


class SplitSummary(Section):
    origin: str = Field(description="the file, Hub split or split that it was taken from")
    rows: int = Field(description="documents")
    classes: dict[str, int] = Field(description="rows of each label; empty of numbers")
    truncated_rows: int = Field(description="documents that lost tokens")
    cut_tokens: int = Field(description="tokens that were not read")
    median: int = Field(description="median tokens of a whole text")
    longest: int = Field(description="tokens of the longest whole text")


class FindingSummary(Section):
    kind: str = Field(description="what kind of finding, such as leak or repeat")
    split: str = Field(description="the split where it was found, or source")
    count: int = Field(description="how many rows")
    places: list[str] = Field(description="the first few of them")
    rule: str = Field(description="what was done with them")
    other: str = Field(description="a leak's second split, else empty")
    message: str = Field(description="all of that in a sentence")


class DataSection(Section):
    source: str = Field(description="file, folder, Hub id or package")
    labels: list[str] = Field(description="names of the labels, in the order of the logits")
    multi_label: bool = Field(description="whether a row may have several labels, or none")
    task: Literal["classes", "ordered", "number", "tasks"] = Field(
        "classes",
        description="what labels are; ordered: from the lowest to the highest; number: numbers, "
        "and `labels` is the name of their column; tasks: of several columns, as `column: label`",
    )
    splits: dict[str, SplitSummary] = Field(description="by name: train, validation, test")
    language: str | None = Field(
        None,
        description="ISO 639-1 code of the language of train's documents, by their function "
        "words; null where that is not plain",
    )
    folds: int | None = Field(
        description="cross-validation: into how many folds train was split; test is then train "
        "itself, each fold scored by a model that had not seen it; else null"
    )
    reading: DocumentFormat = Field(
        description="how a document becomes tokens, as `document` in the saved model's config.json"
    )
    truncation_audit: list[ReadingOption] = Field(
        description="what each way of reading long train documents would cut and cost; `time` and "
        "`memory` are estimates, as multiples of the chosen way's"
    )
    findings: list[FindingSummary] = Field(description="what was wrong with rows")


class ModelSection(Section):
    source: str = Field(description="folder or Hub id of the encoder")
    parameters: int = Field(description="parameters of encoder and head")
    trainable_parameters: int = Field(description="parameters that the last stage trained")
    max_length: int = Field(description="tokens that are read at once")
    custom_code: bool = Field(description="whether loading the model needs trust_remote_code")


class BackOff(Section):
    diverged_at: int = Field(description="step at which the run had diverged")
    rate_scale: float = Field(description="what the learning rate was multiplied by from there on")
    why: str = Field(description="what was seen")


class StageSummary(Section):
    freeze: str | int = Field(description="which layers were frozen")
    lr: float = Field(description="peak learning rate")
    steps: int = Field(description="steps of the stage")
    first_step: int = Field(description="its first step, counted through all stages")
    epochs: float = Field(description="passes over train")


class LrRange(Section):
    stage: int = Field(description="the stage before which the test was made")
    rates: list[float] = Field(description="learning rate of each step")
    losses: list[Number] = Field(description="loss of each step")
    smoothed: list[Number] = Field(description="smoothed loss of each step, up to divergence")
    lowest: float = Field(description="rate at which the smoothed loss was lowest")
    diverged: float | None = Field(description="rate at which the loss had risen clearly, or null")
    rate: float = Field(description="rate that was chosen")
    why: str = Field(description="why that rate")


class TrainSection(Section):
    steps: int = Field(description="optimizer updates that were made")
    planned_steps: int = Field(description="more than `steps` where patience ended the run")
    min_steps: int | None = Field(description="train.min_steps of the last stage")
    minutes: float | None = Field(
        None, description="train.minutes, which decided the number of steps, or null"
    )
    best_step: int = Field(
        description="step of the saved model: the best on validation, or the last"
    )
    rows: int = Field(description="documents trained on, each as often as it was seen")
    tokens: int = Field(description="tokens trained on")
    seconds: float = Field(description="time in the training loop, without scoring")
    rows_per_second: float = Field(description="documents a second")
    tokens_per_second: float = Field(description="tokens a second")
    clipped: float = Field(description="share of the steps whose gradient was clipped")
    back_offs: list[BackOff] = Field(description="returns to a checkpoint after divergence")
    stages: list[StageSummary] = Field(description="of train.stages; empty where there are none")
    lr_ranges: list[LrRange] = Field(description="learning rate range tests of optim.lr=auto")


class Hashes(Section):
    """SHA-256 of what decides a run and of what came out, to compare two runs at a glance."""

    data: str = Field(description="labels, texts and classes of all splits")
    validation: str | None = Field(
        None, description="texts and classes of validation; null in results of earlier versions"
    )
    test: str = Field(description="texts and classes of test")
    tokens: str = Field(description="token ids of all splits")
    recipe: str = Field(description="every setting that decides a number")
    first_weights: str = Field(description="weights before the first step")
    weights: str = Field(description="weights of the saved model")


class Cost(Section):
    """Of the main process since it was started."""

    seconds: dict[str, float] = Field(
        description="time by part of the run: prepare, train, score (validation), validate (keep "
        "the best model), checkpoint, close (calibrate), test, analyse"
    )
    steps: dict[str, float] = Field(
        description="training time by part of a step: data, forward, backward, step (clip and "
        "update)"
    )
    peak_memory: int | None = Field(description="most memory held at once, in bytes")
    peak_device_memory: int | None = Field(description="the same on the GPU; null without one")


class Machine(Section):
    system: str = Field(description="operating system")
    processor: str = Field(description="name of the processor")
    cores: int | None = Field(description="its cores")


class Results(Analysis):
    """All numbers of a run."""

    schema_version: int = Field(SCHEMA, alias="schema", description="version of these keys")
    recipe: str | None = Field(description="name of the recipe")
    seed: int = Field(description="seed of row order, dropout and head")
    started: str = Field(description="local time, ISO 8601")
    num_processes: int = Field(description="processes that shared each step")
    sharded: bool = Field(description="whether each process held a part of the weights (FSDP)")
    hashes: Hashes = Field(description="SHA-256 sums")
    data: DataSection = Field(description="documents and splits")
    model: ModelSection = Field(description="encoder and head")
    train: TrainSection = Field(description="the training loop")
    cost: Cost = Field(description="time and memory of the main process")
    hardware: Hardware = Field(
        description="device, its name, precision, attention, micro_batch_tokens, threads, packed "
        "(sequence packing), deterministic, and the reasons for these choices"
    )
    machine: Machine = Field(description="the computer")
    versions: dict[str, str] = Field(description="of Python and the libraries")
    failures: list[str] = Field(
        [], description="what could not be made beside these numbers; run.resume completes it"
    )

    @property
    def is_tuned(self) -> bool:
        """Whether there was a validation split, which picks the model and calibrates it."""
        return self.validation.labelled

    def as_json(self) -> dict[str, Any]:
        """What the file holds: the run first, then its analysis."""
        values = self.model_dump(mode="json", by_alias=True)
        late = {name: values.pop(name) for name in Analysis.model_fields}
        return values | late


def read_results(folder: Path) -> Results:
    """The `results.json` of a finished run.

    Raises:
        InputError: where there is none, it is damaged, or it is of another version.
    """
    file = folder / FILE
    if not file.is_file():
        hint = f"; it is unfinished, {describe_unfinished(folder)}" if is_run(folder) else ""
        raise InputError(
            f"{folder}: expected the folder of a finished run, found no {FILE} in it{hint}"
        )
    again = "train the recipe beside it again"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # of JSON, or of UTF-8
        raise InputError(f"{file}: the file is damaged ({error}); {again}") from None
    if isinstance(found, Mapping) and "incomplete" in found:
        raise InputError(
            f"{file}: the run was trained, but {'; '.join(found.get('failures', ()))}; to complete "
            f"it without training again, run the same with run.resume={folder}"
        )
    version = found.get("schema") if isinstance(found, Mapping) else None
    if version != SCHEMA:
        raise InputError(f"{file}: expected schema {SCHEMA}, found {version}; {again}")
    try:
        return Results.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{file}: the file is damaged ({key}: {first['msg'].lower()}); {again}"
        ) from None


def describe() -> str:
    """Every key of `results.json` and its meaning, as a Markdown table."""
    own = [name for name in Results.model_fields if name not in Analysis.model_fields]
    order = [Results.model_fields[name].alias or name for name in (*own, *Analysis.model_fields)]
    rows = list(_describe(Results, "", {}))
    rows.sort(key=lambda row: order.index(re.split(r"\W", row[0])[0]))  # the run's own keys first
    return "\n".join(
        ["| key | meaning |", "|---|---|", *(f"| `{key}` | {meaning} |" for key, meaning in rows)]
    )


def _describe(section: type, prefix: str, described: dict[type, str]) -> Iterator[tuple[str, str]]:
    """Each key with its meaning; those of a section that was `described` already only once."""
    for name, annotation, meaning in _keys(section):
        inner, more = _inner(annotation)
        key = f"{prefix}{name}{more}"
        if inner in described:
            meaning += f"; keys as in `{described[inner]}`"
        if meaning:
            yield key, meaning.replace("|", "\\|")
        if inner is not None and inner not in described:
            described[inner] = key
            yield from _describe(inner, f"{key}.", described)
    if issubclass(section, MetricValues):
        yield f"{prefix}<metric>", "each metric of the recipe, by its name"


def _keys(section: type) -> Iterator[tuple[str, Any, str]]:
    """Name, type and meaning of each key of a section: of pydantic, or a dataclass of below."""
    if issubclass(section, BaseModel):
        for name, field in section.model_fields.items():
            yield field.alias or name, field.annotation, field.description or ""
    elif is_dataclass(section):
        documented = re.split(r"^ +([\w, ]+): ", section.__doc__ or "", flags=re.MULTILINE)
        meanings = {
            name: " ".join(meaning.split())
            for names, meaning in zip(documented[1::2], documented[2::2], strict=True)
            for name in names.split(", ")
        }
        for one in fields(section):
            yield one.name, None, meanings.get(one.name, "")


def _inner(annotation: Any) -> tuple[type | None, str]:
    """The section that a key holds, alone, in a list or by name; and how that is written."""
    origin, given = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _inner(given[0])
    if origin in (Union, UnionType):
        return _inner(next(one for one in given if one is not type(None)))
    if origin in (list, dict):
        inner, _ = _inner(given[-1])
        return inner, "" if inner is None else "[]" if origin is list else ".<name>"
    is_class = isinstance(annotation, type)
    is_section = is_class and (issubclass(annotation, BaseModel) or is_dataclass(annotation))
    return (annotation if is_section else None), ""
