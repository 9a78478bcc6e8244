"""The sections `score`, `checkpoint`, `cache`, `run` and `publish`."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from finetune.config.section import Count, Fraction, Names, Section, Seed, conflict

REFUSED = '<>:"\\|?*'
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def is_folder_name(name: str) -> bool:
    """Whether Windows, macOS and Linux all take `name`, a folder or one in another (`a/b`)."""
    return all(
        part not in ("", ".", "..")
        and part[-1] not in " ."
        and not any(character in REFUSED or ord(character) < 32 for character in part)
        and not DEVICES.fullmatch(part)
        for part in name.split("/")
    )


def _describe_refusal(name: str) -> str:
    """What was expected of a name that is none for a folder."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "." in parts:
        return (
            "a name below the folder runs/, without '.', '..' or a '/' at its beginning (run.dir "
            "names any folder)"
        )
    if "" in parts:
        return "a name without a '/' at its end, and never two in a row"
    return (
        f"a name that every system takes for a folder (Windows refuses {' '.join(REFUSED)}, names "
        "such as CON and NUL, and a dot or a space at the end)"
    )


class Score(Section):
    """What is measured on validation and test."""

    metrics: Names = Field(
        ("accuracy", "f1_macro"),
        description=(
            "accuracy (multi-label: all labels of a row right), precision_macro, recall_macro, "
            "f1_macro (also _micro, _weighted), matthews_correlation, log_loss, top_3_accuracy "
            "(any number); of ordered labels also quadratic_weighted_kappa, rank_mae (mean "
            "absolute error in ranks) and within_one_accuracy; of numbers r2, mae, rmse and "
            "spearman, and no others; of data.hierarchy also "
            "hierarchical_f1 (also _precision, _recall) and level_1_accuracy (any level); with "
            "score.trust_remote_code any name of evaluate.load. The default of multi-label "
            "documents is f1_micro, f1_macro, accuracy, and that of data.task ordered "
            "quadratic_weighted_kappa, rank_mae, within_one_accuracy, accuracy; that of number is "
            "r2, mae, rmse, spearman; that of "
            "data.hierarchy has hierarchical_f1 and level_1_accuracy beside the usual; with "
            "data.tasks each is measured of every task, and the mean of these"
        ),
    )
    monitor: str = Field(
        "accuracy",
        description=(
            "the validation metric that picks the best model; multi-label default: f1_macro; "
            "default of data.task ordered: quadratic_weighted_kappa; of number: r2; of data.tasks: "
            "f1_macro, the mean of the tasks' (topic.f1_macro is that of the task topic)"
        ),
    )
    every: Literal["epoch"] | Annotated[int, Field(ge=1)] = Field(
        "epoch", description="score validation after each epoch, or every so many steps"
    )
    patience: Count | None = Field(
        None,
        description=(
            "early stopping: stop after so many scorings in a row without an improvement of "
            "score.monitor"
        ),
    )
    min_improvement: float = Field(
        0.0, ge=0, description="for score.patience: a smaller gain does not count as an improvement"
    )
    target_accuracy: Fraction | None = Field(
        None,
        description=(
            "the accuracy that predictions should have: the saved model predicts no label below "
            "the probability that reaches it on validation with a margin; null: it predicts a "
            "label for every document, and the report shows what half of the errors would take"
        ),
    )
    abstain: bool = Field(
        True,
        description=(
            "with score.target_accuracy: write the threshold into the model, which then abstains; "
            "false: only report it"
        ),
    )
    interval_coverage: Fraction = Field(
        0.9,
        description=(
            "for data.task number: the share of documents whose number the prediction interval "
            "should hold; its width is that of the errors on validation (split conformal)"
        ),
    )
    slices: Names | None = Field(
        None,
        description=(
            "columns by whose values every metric is scored too, such as a channel or a language, "
            "each value against the other documents; also by length, and by file where there are "
            "several"
        ),
    )
    explained_rows: int = Field(
        0,
        ge=0,
        le=10_000,
        description=(
            "have the report mark the words that spoke for the most confident mistakes, and list "
            "each label's strongest words, from so many documents of the split that it analyses; "
            "0: neither. One document costs some 25 predictions"
        ),
    )
    out_of_scope: str = Field(
        "off",
        min_length=1,
        description=(
            "auto: after training, choose and save a detector of documents that no label fits, "
            "which then get no label; validation chooses it, by labels that are held out in turn. "
            "A file of such documents: the same, and the report says how many of them are found. "
            "off: each document gets a label. For documents with one label, three labels or more "
            "and a validation split"
        ),
    )
    out_of_scope_rate: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description=(
            "for score.out_of_scope: the share of documents of known labels that may be taken for "
            "out of scope; validation sets the threshold"
        ),
    )
    trust_remote_code: bool = Field(
        False,
        description=(
            "let evaluate.load run the code of metrics that this package does not have; in a "
            "recipe file it needs --trust on the command line as well"
        ),
    )

    @model_validator(mode="after")
    def _monitor_is_measured(self) -> Self:
        measured = (*self.metrics, "loss")
        if self.monitor not in measured and self.monitor.rpartition(".")[2] not in self.metrics:
            raise conflict(
                "monitor",
                f"one of score.metrics ({', '.join(self.metrics)}) or loss, got {self.monitor!r}",
            )
        if self.slices is not None and len(set(self.slices)) < len(self.slices):
            raise conflict("slices", f"each column once, got {list(self.slices)}")
        return self


class Checkpoint(Section):
    """What a run keeps so that it can go on after it was stopped."""

    every: Literal["evaluation", "never"] | Annotated[int, Field(ge=1)] = Field(
        "evaluation",
        description=(
            "save after each scoring of validation, or every so many steps; and after the last step"
        ),
    )
    minutes: float | None = Field(
        15.0,
        gt=0,
        description=(
            "also save when the last checkpoint is that old; null: only as checkpoint.every says"
        ),
    )
    keep: Count = Field(
        2,
        description=(
            "how many of the newest checkpoints stay; with 2, one is left if the other is damaged"
        ),
    )


class Cache(Section):
    """What the tokenizer and frozen layers make of the rows, computed once and kept on disk."""

    frozen_states: Literal["auto", "bf16", "fp32", "off"] = Field(
        "auto",
        description=(
            "keep the token states of frozen layers that have no dropout, in this precision "
            "(auto: that of the matrix products), so that they are computed once"
        ),
    )
    tokens: bool = Field(
        True,
        description="keep tokenized data sets of more than a million characters on disk",
    )
    dir: str | None = Field(
        None,
        description=(
            "null: ~/.cache/finetune-documents; during a run, texts that do not fit into memory "
            "are there too"
        ),
    )
    keep: bool = Field(
        True,
        description=(
            "keep the cache for later runs; false: frozen states are deleted after the run, "
            "tokens are not stored"
        ),
    )

    max_gb: float | None = Field(
        50.0,
        gt=0,
        description=(
            "gigabytes that the cache may take on disk; the least recently used entries go first, "
            "and one that is larger is not kept; null: no limit"
        ),
    )

    def max_bytes(self) -> float | None:
        """The limit of the cache."""
        return None if self.max_gb is None else self.max_gb * 1e9

    def folder(self) -> Path:
        """The cache's root folder."""
        default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "finetune-documents"
        return Path(self.dir or default).expanduser()


class Run(Section):
    """Where the run goes, and its seed."""

    name: str | None = Field(None, description="null: the recipe's file name", min_length=1)
    dir: str | None = Field(
        None, description="the run folder; null: runs/<name>/<time>", min_length=1
    )
    overwrite: bool = Field(False, description="replace an earlier run in run.dir")
    resume: str | None = Field(
        None,
        description=(
            "auto: continue the run in run.dir, or the newest unfinished one of this name, from "
            "its newest intact checkpoint, and start a new one where there is none; or the path "
            "of a run folder, or of a checkpoint, whose later ones are then deleted"
        ),
        min_length=1,
    )
    seed: Seed = Field(0, description="the seed of row order, dropout and head initialization")
    deterministic: bool = Field(
        False,
        description=(
            "on a CUDA device, use only algorithms that give the same bits at each run on the same "
            "GPU, which are slower here and there; on a CPU it is so in any case"
        ),
    )
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)] | None = Field(
        None, description="a list: one run for each seed, and the mean and spread of their scores"
    )
    folds: Annotated[int, Field(ge=2, le=100)] | None = Field(
        None,
        description=(
            "cross-validation instead of a test split, for few documents: so many runs, each "
            "scored on the part of train that it did not see; then one run on all rows"
        ),
    )
    hang_minutes: float | None = Field(
        10.0,
        gt=0,
        description=(
            "of several processes: give up after so many minutes without a sign of life from one "
            "of them, which it gives while it computes or waits, however long; null: never"
        ),
    )
    trackers: Annotated[
        tuple[Literal["mlflow", "tensorboard", "trackio", "wandb"], ...], Field(strict=False)
    ] = Field((), description="log to these as well, where they are installed")
    mlflow_model: str | None = Field(
        None,
        description=(
            "with mlflow among run.trackers: after scoring, register the model under this name in "
            "MLflow's model registry"
        ),
        min_length=1,
    )

    @model_validator(mode="after")
    def _resumes_or_replaces(self) -> Self:
        if self.name is not None and not is_folder_name(self.name):
            raise conflict(
                "name",
                f"{_describe_refusal(self.name)}, got {self.name!r}",
            )
        if self.mlflow_model is not None and "mlflow" not in self.trackers:
            raise conflict("mlflow_model", "null unless run.trackers has mlflow")
        if self.overwrite and self.resume is not None:
            raise conflict("overwrite", "false with run.resume, which goes on with what is there")
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise conflict("seeds", f"each once, got {list(self.seeds)}")
        if self.folds is not None and self.seeds is not None:
            raise conflict("folds", "null with run.seeds; set run.folds or run.seeds, not both")
        return self


class Publish(Section):
    """Publishing the model on the Hub."""

    repo_id: str | None = Field(
        None,
        description=(
            "push the model folder to this repository after scoring; in a recipe file it needs "
            "--publish on the command line as well, as a file cannot decide it by itself. The "
            "token comes from HF_TOKEN or `hf auth login`"
        ),
        pattern=r"^[\w.-]+/[\w.-]+$",
        examples=["OWNER/NAME"],
    )
    private: bool = Field(False, description="create the repository as private")
    revision: str | None = Field(
        None,
        description="push to this branch, created where it is missing; null: main",
        min_length=1,
    )
    pull_request: bool = Field(False, description="open a pull request, or update the open one")
    onnx: bool = Field(
        False,
        description=(
            "also push the model in the standard layout of `finetune export`, which optimum and "
            "transformers.js load without remote code, to the branch `onnx` of the repository (of "
            "`publish.revision`: REVISION-onnx)"
        ),
    )
    license: str | None = Field(
        None,
        description=(
            "the model's license, as the Hub names it (apache-2.0); null: that of the encoder's "
            "model card, where it has one"
        ),
        pattern=r"^[a-z0-9][a-z0-9.-]*$",
        examples=["apache-2.0"],
    )
    language: Names | None = Field(
        None,
        description=(
            "the languages of the documents, as ISO 639 codes (en); null: that of most of their "
            "words, or where that is not plain, those of the encoder's model card"
        ),
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.pull_request and self.revision is not None:
            raise conflict("revision", "null with publish.pull_request, which is against main")
        if self.pull_request and self.onnx:
            raise conflict("onnx", "false with publish.pull_request, which is against main")
        return self
