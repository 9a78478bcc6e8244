"""What a recipe is: every choice of a run, typed, frozen, with its default.

`loader.py` reads one from a YAML file and writes it back.
"""

import os
import string
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

# What SGD and AdamW start from where a recipe names no rate.
DEFAULT_LR = {"sgd": 0.03, "adamw": 2e-4}
# What decides how many steps there are, in the whole run or in a stage.
LENGTH = ("epochs", "max_steps", "min_steps")

# How often train is passed over by default; and how many steps few rows then make at least.
EPOCHS = 3
LEAST_STEPS = 45

# Fewer rows would tell nothing: the interval of their accuracy is wider than 50 points.
LEAST_VALIDATION = 10

# What is measured, by default, where a row may have several labels.
SEVERAL_METRICS = ("f1_micro", "f1_macro", "accuracy")

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Weights = dict[str, Annotated[float, Field(gt=0)]]


class Section(BaseModel):
    """A frozen part of the recipe. Unknown keys and values of another type are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Data(Section):
    """Which documents, how they are split, and the rules for rows that are not right."""

    source: str = Field(
        description="Hub id, file (csv, tsv, json, jsonl, parquet, txt; .gz too), folder with a "
        "file per split, folder with a sub-folder per label, saved `datasets` folder, or "
        "package:NAME/path"
    )
    config: str | None = Field(None, description="the Hub data set's configuration")
    revision: str | None = Field(None, description="the Hub data set's branch, tag or commit")
    train: str = Field(
        "auto", description="the split to train on; auto: the one called train, or the only one"
    )
    validation: str = Field(
        "auto",
        description="the split to tune on; carve: cut it from train; none: train on all rows, tune "
        "nothing, and keep the last step's model; auto: validation, valid, val, dev or eval where "
        f"there is one, else carve, or none where that gives fewer than {LEAST_VALIDATION} rows",
    )
    test: str = Field(
        "auto",
        description="the split scored once, at the end; carve: cut it from train; auto: the one "
        "called test where there is one, else carve",
    )
    text: str | Names = Field(
        "text", description="the column of the documents; or several, which are joined"
    )
    template: str | None = Field(
        None,
        description="how columns are joined, as '{title}: {body}'; null: a blank line between them",
    )
    text_pair: str | None = Field(
        None, description="the column of the second text of each pair, where documents are pairs"
    )
    label: str | Names = Field(
        "label",
        description="the column of the labels, whose cells may be lists of labels; or several "
        "columns of 0 and 1, each a label",
    )
    label_separator: str | None = Field(
        None, description="what stands between a cell's labels where it has several", min_length=1
    )
    labels: Names | None = Field(
        None, description="the labels in order, which also names integer labels 0, 1, 2, …"
    )
    validation_fraction: Fraction = Field(0.1, description="the share cut off for validation")
    test_fraction: Fraction = Field(0.1, description="the share cut off for test")
    split_seed: int = Field(0, ge=0, description="the seed of the cut, apart from run.seed")
    fold: str | None = Field(
        None,
        description="2/5: of five parts of train, score the second as test, and train on the "
        "others; run.folds does so with each",
        pattern=r"^[1-9]\d*/[1-9]\d*$",
    )
    max_train_rows: Count | None = Field(None, description="train on that many rows, drawn once")
    rows_per_class: Count | None = Field(
        None, description="train on that many rows of each label, drawn once by split_seed"
    )
    max_validation_rows: Count | None = Field(None, description="the same for validation")
    max_test_rows: Count | None = Field(None, description="the same for test")
    max_length: int | None = Field(
        None,
        ge=4,
        description="tokens kept of each document, or of each window; null: the encoder's limit, "
        "at most 512",
    )
    truncation: Literal["head", "tail", "head_tail", "windows"] = Field(
        "head",
        description="what stays of a document that is longer: its head; its tail; a quarter of the "
        "room for its head and the rest for its tail; or all of it in windows, whose logits are "
        "pooled, in training too",
    )
    stride: int | None = Field(
        None,
        ge=0,
        description="tokens that neighbouring windows share; null: a quarter of data.max_length",
    )
    window_pooling: Literal["mean", "max"] = Field(
        "mean", description="how the logits of a document's windows become one row"
    )
    max_windows: Count | None = Field(
        None, description="of each document, from its start, which bounds memory; null: all"
    )
    on_undecodable: Literal["replace", "drop", "stop"] = Field(
        "replace", description="rows with bytes that are not UTF-8: put U+FFFD there, drop, or stop"
    )
    on_empty: Literal["drop", "keep", "stop"] = Field(
        "drop", description="rows whose text is missing or only white space"
    )
    on_null_label: Literal["drop", "stop"] = Field(
        "drop", description="rows without a label in a split that has labels"
    )
    on_duplicate: Literal["drop", "keep", "stop"] = Field(
        "drop",
        description="rows that repeat an earlier text and label of train (a given validation or "
        "test split keeps its repeats, so that its score stays comparable)",
    )
    on_leak: Literal["warn", "drop", "stop"] = Field(
        "warn",
        description="texts of test or validation that also stand, exactly or nearly, in train (or "
        "of test in validation): say so, drop them there (the score stays comparable), or stop",
    )
    on_unseen_label: Literal["stop", "drop"] = Field(
        "stop", description="validation or test rows whose label train lacks"
    )

    @model_validator(mode="after")
    def _cuts_leave_rows(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 1:
            raise conflict(
                "validation_fraction",
                f"together with data.test_fraction below 1, got {self.validation_fraction} + "
                f"{self.test_fraction}",
            )
        if self.rows_per_class is not None and self.max_train_rows is not None:
            raise conflict("rows_per_class", "null with data.max_train_rows, which draws as well")
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            raise conflict("labels", f"each name once, got {list(self.labels)}")
        if self.labels is not None and not all(name.strip() for name in self.labels):
            raise conflict("labels", f"names that are not blank, got {list(self.labels)}")
        for key in ("validation", "test"):
            if (
                getattr(self, key) not in ("auto", "carve", "none")
                and getattr(self, key) == self.train
            ):
                raise conflict(key, f"another split than data.train, got '{self.train}' for both")
        if self.test == "none":
            raise conflict("test", "a split, carve or auto, got 'none': something must be scored")
        if self.test == self.validation and self.test not in ("auto", "carve"):
            raise conflict(
                "test",
                f"another split than data.validation, got '{self.test}' for both; test is never "
                "used for tuning",
            )
        return self

    @model_validator(mode="after")
    def _fold_is_one_of_several(self) -> Self:
        if (parts := self.fold_of()) is not None and not parts[0] <= parts[1] > 1:
            raise conflict("fold", f"one of two parts or more, as 2/5, got {self.fold}")
        return self

    def never_stopping(self) -> Self:
        """The same, where rows that are not right stop nothing: to look at all that there is."""
        mild = {"on_undecodable": "replace", "on_leak": "warn"}
        stops = [key for key in type(self).model_fields if getattr(self, key) == "stop"]
        return self.model_copy(update={key: mild.get(key, "drop") for key in stops})

    def fold_of(self) -> tuple[int, int] | None:
        """Which part of how many is the test split."""
        if self.fold is None:
            return None
        part, many = map(int, self.fold.split("/"))
        return part, many

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        try:
            fields = None if self.template is None else columns_in(self.template)
        except ValueError as error:
            what = f"columns as {{title}}, got {self.template!r} ({error})"
            raise conflict("template", what) from None
        named = (self.text,) if isinstance(self.text, str) else self.text
        if len(set(named)) < len(named):
            raise conflict("text", f"each column once, got {list(named)}")
        if fields is not None and not fields:
            raise conflict("template", f"a column as {{title}} in it, got {self.template!r}")
        default = ("text",)  # also where it was written out, as in the recipe of a run
        if fields is not None and named != default and set(named) != set(fields):
            raise conflict(
                "template",
                f"just the columns of data.text, {list(named)}; it has {list(fields)}",
            )
        labels = (self.label,) if isinstance(self.label, str) else self.label
        for column in labels:
            if column in self.columns():
                raise conflict("label", f"another column than data.text, got '{column}' for both")
        if not isinstance(self.label, str):
            if len(set(labels)) < len(labels) or len(labels) < 2:
                raise conflict("label", f"two columns or more, each once, got {list(labels)}")
            for key in ("labels", "label_separator"):
                if getattr(self, key) is not None:
                    raise conflict(key, "null where data.label names several columns")
        if self.text_pair is not None and self.text_pair in (*self.columns(), *labels):
            raise conflict(
                "text_pair",
                f"another column than data.text and data.label, got '{self.text_pair}' again",
            )
        return self

    @model_validator(mode="after")
    def _windows_are_of_single_texts(self) -> Self:
        if self.text_pair is not None and self.truncation != "head":
            raise conflict(
                "truncation",
                "head with data.text_pair, as pairs are cut where they are longest, got "
                f"'{self.truncation}'",
            )
        for key in ("stride", "window_pooling", "max_windows"):
            default = type(self).model_fields[key].default
            if self.truncation != "windows" and getattr(self, key) != default:
                raise conflict(
                    key, f"no choice without data.truncation 'windows', got {getattr(self, key)!r}"
                )
        return self

    def columns(self) -> tuple[str, ...]:
        """The columns that make a document."""
        if self.template is not None:
            return columns_in(self.template)
        return (self.text,) if isinstance(self.text, str) else self.text


class Model(Section):
    """The pretrained encoder and the linear logits head on it."""

    source: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        description="the encoder: Hub id, folder, or package:NAME/path",
    )
    revision: str | None = Field(None, description="the Hub model's branch, tag or commit")
    trust_remote_code: bool = Field(False, description="run Python code that comes with the model")
    head: Literal["linear", "native"] = Field(
        "linear",
        description="linear: pooling, dropout and one linear layer; native: the architecture's own "
        "classification class, which needs no custom code to load",
    )
    pooling: Literal["mean", "cls"] = Field(
        "mean", description="how token states become one vector (head: linear)"
    )
    pooled_norm: float | None = Field(
        None,
        gt=0,
        description="the length that each document's vector is scaled to before the head, so that "
        "only its direction counts: 10 serves few rows; null: as it comes (head: linear)",
    )
    head_init: Literal["zeros", "normal", "label_names"] = Field(
        "zeros",
        description="zeros: the text says nothing yet; normal: std 0.02; label_names: each class "
        "starts from what the encoder makes of its name ('_' read as a space), which serves few "
        "rows if names tell. In all three, each of several labels a row starts as likely as it is "
        "in train, one label a row as likely as another",
    )
    dropout: float | None = Field(
        0.0,
        ge=0,
        lt=1,
        description="probability at every dropout, in the encoder and before the head; null: as "
        "the encoder came",
    )
    freeze: Literal["auto", "none", "embeddings", "encoder"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="what keeps its pretrained weights; a number: the embeddings and that many "
        "first layers; auto: embeddings for sgd, none for adamw",
    )
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto", description="the attention implementation; auto: what pays on this hardware"
    )

    @model_validator(mode="after")
    def _pooling_belongs_to_linear(self) -> Self:
        for key in ("pooling", "pooled_norm"):
            value, default = getattr(self, key), type(self).model_fields[key].default
            if self.head == "native" and value != default:
                raise conflict(
                    key,
                    "no choice with model.head 'native', whose class pools in its own way, got "
                    f"{value!r}",
                )
        return self


class Stage(Section):
    """A part of the training with a freeze, a length and a learning rate of its own.

    What it leaves out is as the recipe says; all else always is.
    """

    freeze: Literal["none", "embeddings", "encoder"] | Annotated[int, Field(ge=1)] | None = Field(
        None, description="null: as model.freeze"
    )
    epochs: Count | None = Field(None, description="null: as train.epochs")
    max_steps: Count | None = Field(None, description="null: as train.max_steps")
    min_steps: Count | None = Field(None, description="null: as train.min_steps")
    lr: Annotated[float, Field(gt=0)] | Literal["auto"] | None = Field(
        None,
        description="the peak, as each stage warms up and decays by itself; null: optim.lr; auto: "
        "found by a range test before the stage's first step",
    )


class Train(Section):
    """The loop."""

    stages: Annotated[tuple[Stage, ...], Field(strict=False)] = Field(
        (),
        description="train in several stages, as [{freeze: encoder, epochs: 10, lr: 0.3}, {}]: "
        "first the head alone, then as the rest of the recipe says. Weights go on from stage to "
        "stage; the optimizer starts anew, and steps are counted through all. The best model of "
        "all stages is kept; score.patience ends the last one only",
    )
    epochs: Count | Literal["auto"] = Field(
        "auto",
        description=f"passes over the training rows; auto: {EPOCHS}, or where rows are so few that "
        f"this makes less than {LEAST_STEPS} steps (or train.min_steps, where that is less), as "
        f"many times {EPOCHS} as it takes (scored "
        f"{EPOCHS} times in all, and with sampling: stratified)",
    )
    max_steps: Count | None = Field(None, description="stop the schedule after that many steps")
    min_steps: Count | None = Field(
        None,
        description="go on for at least that many steps, however few rows there are: of a few "
        "dozen, epochs are too short a measure",
    )
    batch_size: Count = Field(
        32, description="documents in each optimizer step, over all processes together"
    )
    micro_batch_tokens: Count | None = Field(
        None,
        description="tokens a process sends through the encoder at once: memory and speed, never "
        "the result; null: by hardware",
    )
    packing: Literal["auto", "off"] = Field(
        "auto",
        description="auto: rows end to end instead of padded, where the encoder's layers are "
        "BERT's and this is a CPU; the same mathematics, faster",
    )
    loss: Literal["cross_entropy", "focal", "generalised_cross_entropy"] = Field(
        "cross_entropy",
        description="what is descended; focal turns to hard rows, generalised_cross_entropy bears "
        "wrong labels. What validation and test report as loss is always the plain cross-entropy",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="of cross_entropy: share of the target spread evenly over all classes",
    )
    focal_gamma: float = Field(2.0, ge=0, description="of focal; 0 is cross_entropy")
    gce_q: float = Field(
        0.7,
        gt=0,
        le=1,
        description="of generalised_cross_entropy: near 0 it is cross_entropy, 1 bears most",
    )
    class_weights: Literal["balanced"] | Weights | None = Field(
        None,
        description="what a row's loss is multiplied by, by its label; balanced: n / (classes × n "
        "of the label). In train alone: the loss of validation and test has no weights",
    )
    sampling: Literal["auto", "uniform", "balanced", "stratified"] = Field(
        "auto",
        description="uniform: an epoch takes each row once, in any order; stratified: with each "
        "label's share in each step, so that none is missing by chance; balanced: as many rows, "
        "all labels equally often, so that rows of a rare one come again; auto: stratified where "
        "rows are few (see epochs), else uniform",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="of the matrix products; auto: what pays on this hardware"
    )
    threads: Count | None = Field(
        None, description="of each process; null: the machine's cores, shared by its processes"
    )
    log_every: Count = Field(10, description="steps between lines of metrics.jsonl")
    on_divergence: Literal["stop", "back_off"] = Field(
        "stop",
        description="when a loss is not finite, or the model collapses to one class; back_off: "
        "return to a checkpoint from when all was well, and halve the rate; five times at most",
    )

    @field_validator("class_weights", mode="before")
    @classmethod
    def _labels_are_words(cls, weights: object) -> object:
        """YAML reads the labels 0 and true as a number and a truth value."""
        if not isinstance(weights, dict):
            return weights
        return {
            str(name).lower() if isinstance(name, bool) else str(name): weight
            for name, weight in weights.items()
        }

    @model_validator(mode="after")
    def _options_belong_to_loss(self) -> Self:
        owners = {
            "label_smoothing": "cross_entropy",
            "focal_gamma": "focal",
            "gce_q": "generalised_cross_entropy",
        }
        for key, owner in owners.items():
            default = type(self).model_fields[key].default
            if self.loss != owner and getattr(self, key) != default:
                raise conflict(key, f"{default} with train.loss '{self.loss}' (it is of {owner})")
        if self.min_steps is not None and self.min_steps > (self.max_steps or self.min_steps):
            raise conflict(
                "min_steps", f"at most train.max_steps ({self.max_steps}), got {self.min_steps}"
            )
        for number, stage in enumerate(self.stages, 1):
            least, most = stage.min_steps or self.min_steps, stage.max_steps or self.max_steps
            if least is not None and most is not None and least > most:
                raise conflict(
                    "stages",
                    f"stage {number} with min_steps of at most max_steps ({most}), got {least}",
                )
        if self.sampling == "balanced" and self.class_weights == "balanced":
            raise conflict(
                "class_weights",
                "null with train.sampling 'balanced', got 'balanced': one of the two is enough",
            )
        return self


class Optim(Section):
    """Gradient descent and its schedule."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="the optimizer")
    lr: Annotated[float, Field(gt=0)] | Literal["auto"] | None = Field(
        None,
        description="peak learning rate; null: 0.03 for sgd, 2e-4 for adamw; auto: found by a "
        "range test on train rows before the first step (of each stage that has none of its own)",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    nesterov: bool = Field(False, description="Nesterov's momentum, sgd only")
    weight_decay: float = Field(0.0, ge=0, description="spares biases and norms")
    betas: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(strict=False)] = Field(
        (0.9, 0.999), description="of adamw", min_length=2, max_length=2
    )
    eps: float = Field(1e-8, gt=0, description="of adamw")
    max_grad_norm: float | None = Field(
        1.0, gt=0, description="clip_grad_norm_ to this; null: no clipping"
    )
    head_lr_scale: float | None = Field(
        None,
        gt=0,
        description="what the head's rate is multiplied by; null: 10 for adamw; 1 for sgd, or of "
        "more than 8 labels an eighth of their number (where a row may have several of them, 1)",
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="a layer's rate is this times that of the layer after it; the embeddings come "
        "before the first",
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="how the rate falls after warm-up; linear and cosine end at 0"
    )
    schedule_every: Literal["step", "epoch"] = Field("step", description="when the rate falls")
    warmup: float = Field(
        0.06, ge=0, lt=1, description="share of all steps over which the rate first rises"
    )

    def freezes(self) -> Literal["none", "embeddings"]:
        """What model.freeze 'auto' means with this optimizer."""
        return "embeddings" if self.name == "sgd" else "none"

    @model_validator(mode="after")
    def _options_belong_to_optimizer(self) -> Self:
        owners = {"momentum": "sgd", "nesterov": "sgd", "betas": "adamw", "eps": "adamw"}
        for key, owner in owners.items():
            default = type(self).model_fields[key].default
            if self.name != owner and getattr(self, key) != default:
                raise conflict(key, f"{default} with optim.name '{self.name}' (it is of {owner})")
        if self.nesterov and self.momentum == 0:
            raise conflict("nesterov", "momentum above 0, got optim.momentum 0.0")
        return self


class Score(Section):
    """What is measured on validation and test."""

    metrics: Names = Field(
        ("accuracy", "f1_macro"),
        description="accuracy (of several labels a row: all of them right), precision_macro, "
        "recall_macro, f1_macro (also _micro, _weighted), matthews_correlation, log_loss, "
        "top_3_accuracy (any number); with score.trust_remote_code any name of evaluate.load. "
        "Where a row may have several labels, the default is f1_micro, f1_macro, accuracy",
    )
    monitor: str = Field(
        "accuracy",
        description="the validation metric that picks the model; by default, of several labels a "
        "row: f1_macro",
    )
    every: Literal["epoch"] | Annotated[int, Field(ge=1)] = Field(
        "epoch", description="score validation after each epoch, or every so many steps"
    )
    patience: Count | None = Field(
        None, description="stop after that many scorings in a row without improvement of `monitor`"
    )
    min_improvement: float = Field(
        0.0, ge=0, description="what patience takes for an improvement: more than that"
    )
    target_accuracy: Fraction | None = Field(
        None,
        description="how often answers should be right where the model may abstain: the report "
        "says from which probability on; null: with half of validation's mistakes",
    )
    trust_remote_code: bool = Field(
        False, description="let evaluate.load run the code of other metrics than this package's"
    )

    @model_validator(mode="after")
    def _monitor_is_measured(self) -> Self:
        if self.monitor not in (*self.metrics, "loss"):
            raise conflict(
                "monitor",
                f"one of score.metrics ({', '.join(self.metrics)}) or loss, got {self.monitor!r}",
            )
        return self


class Checkpoint(Section):
    """What a run keeps so that it can go on after it was stopped."""

    every: Literal["evaluation", "never"] | Annotated[int, Field(ge=1)] = Field(
        "evaluation",
        description="after each scoring of validation, or every so many steps; and after the last",
    )
    minutes: float | None = Field(
        15.0, gt=0, description="also when the last one is that old; null: only as `every` says"
    )
    keep: Count = Field(2, description="the newest so many; the one before serves if one is bad")


class Cache(Section):
    """What the tokenizer and frozen layers make of the rows, computed once and kept on disk."""

    frozen_states: Literal["auto", "bf16", "fp32", "off"] = Field(
        "auto",
        description="with frozen layers and no dropout in them: their states for each token, in "
        "this precision (auto: in that of the matrix products)",
    )
    tokens: bool = Field(
        True,
        description="keep on disk what the tokenizer makes of more than a million characters",
    )
    dir: str | None = Field(
        None,
        description="null: ~/.cache/finetune-documents; while a run lasts, texts that would crowd "
        "memory are there too",
    )
    keep: bool = Field(
        True, description="for later runs; false: states are removed with this one, tokens not kept"
    )

    def folder(self) -> Path:
        """Where all of it stands."""
        default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "finetune-documents"
        return Path(self.dir or default).expanduser()


class Run(Section):
    """Where the run goes, and its seed."""

    name: str | None = Field(None, description="null: the recipe's file name", min_length=1)
    dir: str | None = Field(None, description="the run folder; null: runs/<name>/<time>")
    overwrite: bool = Field(False, description="replace a run that stands in run.dir")
    resume: str | None = Field(
        None,
        description="auto: go on with the run in run.dir, or the newest unfinished one of this "
        "name, from its newest good checkpoint, and start where there is none; or the path of a "
        "run folder, or of a checkpoint, whose later ones are then removed",
        min_length=1,
    )
    seed: Seed = Field(0, description="of the order of rows, dropout and the head")
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)] | None = Field(
        None, description="several: a run for each, and their mean and spread"
    )
    folds: Annotated[int, Field(ge=2, le=100)] | None = Field(
        None,
        description="cross-validation in the place of a test split, where documents are few: so "
        "many runs, each scored on the part of train that it left out; then one on all rows",
    )
    trackers: Annotated[
        tuple[Literal["tensorboard", "trackio", "wandb"], ...], Field(strict=False)
    ] = Field((), description="also log to these, where installed")

    @model_validator(mode="after")
    def _resumes_or_replaces(self) -> Self:
        if self.overwrite and self.resume is not None:
            raise conflict("overwrite", "false with run.resume, which goes on with what is there")
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise conflict("seeds", f"each once, got {list(self.seeds)}")
        if self.folds is not None and self.seeds is not None:
            raise conflict("folds", "one of run.folds and run.seeds alone, got both")
        return self


class Publish(Section):
    """The Hub."""

    repo_id: str | None = Field(
        None,
        description="push the model folder there after scoring; the token comes from HF_TOKEN or "
        "`hf auth login`",
        pattern=r"^[\w.-]+/[\w.-]+$",
    )
    private: bool = Field(False, description="create the repository as private")
    revision: str | None = Field(
        None, description="a branch, created where it is missing; null: main", min_length=1
    )
    pull_request: bool = Field(False, description="open a pull request, or go on with the open one")
    license: str | None = Field(
        None,
        description="the model's, as the Hub names it (apache-2.0); null: as the encoder's own "
        "card says, where its folder has one",
        pattern=r"^[a-z0-9][a-z0-9.-]*$",
    )
    language: Names | None = Field(
        None, description="the documents', as ISO 639 codes (en); null: as the encoder's card says"
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.pull_request and self.revision is not None:
            raise conflict("revision", "null with publish.pull_request, which is against main")
        return self


class Recipe(Section):
    """A whole run: every choice, with its default."""

    data: Data
    model: Model = Model()
    train: Train = Train()
    optim: Optim = Optim()
    score: Score = Score()
    checkpoint: Checkpoint = Checkpoint()
    cache: Cache = Cache()
    run: Run = Run()
    publish: Publish = Publish()

    @model_validator(mode="after")
    def _folds_score_all_of_train(self) -> Self:
        if self.run.folds is None:
            return self
        if self.data.test not in ("auto", "carve"):
            raise conflict(
                "data.test",
                f"auto with run.folds, where train is scored, in parts, got '{self.data.test}'",
            )
        for key in ("test_fraction", "max_test_rows", "fold"):
            default, value = Data.model_fields[key].default, getattr(self.data, key)
            if value != default:
                wanted = "null" if default is None else f"{default}, its default,"
                raise conflict(
                    f"data.{key}",
                    f"{wanted} with run.folds, which scores each row of train once, got {value}",
                )
        return self

    @model_validator(mode="after")
    def _layers_that_learn_have_rates(self) -> Self:
        frozen = {stage.freeze or self.model.freeze for stage in self.train.stages or (Stage(),)}
        if frozen == {"encoder"} and self.optim.layer_decay != 1:
            raise conflict(
                "optim.layer_decay",
                f"1.0 with model.freeze 'encoder', got {self.optim.layer_decay}",
            )
        return self

    @model_validator(mode="after")
    def _stages_leave_no_key_without_use(self) -> Self:
        """Else a sweep over it would try the same run again and again."""
        stages, train = self.train.stages, Train()
        if not stages:
            return self
        by_default: dict[str, tuple[object, ...]] = {
            "model.freeze": ("auto", self.optim.freezes()),
            "optim.lr": (None, DEFAULT_LR[self.optim.name]),
            **{f"train.{key}": (getattr(train, key),) for key in LENGTH},
            "train.epochs": ("auto", EPOCHS),  # what auto means, unless rows are few
        }
        for name, defaults in by_default.items():
            section, key = name.split(".")
            value = getattr(getattr(self, section), key)
            if value not in defaults and all(getattr(s, key) is not None for s in stages):
                raise conflict(
                    name,
                    f"{defaults[0] or 'null'}, its default, as each of train.stages has its own, "
                    f"got {value}",
                )
        return self

    def by_stage(self) -> tuple[Self, ...]:
        """The recipe as each stage has it, in order; without stages, itself alone."""
        if not self.train.stages:
            return (self,)
        return tuple(
            self.model_copy(
                update={
                    "model": self.model.model_copy(update=_said(stage, {"freeze"})),
                    "optim": self.optim.model_copy(update=_said(stage, {"lr"})),
                    "train": self.train.model_copy(update=_said(stage, LENGTH) | {"stages": ()}),
                }
            )
            for stage in self.train.stages
        )

    def with_rate(self, rate: float | Literal["auto"], stage: int = 1) -> Self:
        """The same with another peak learning rate, of so many a stage where there are stages."""
        stages = [*self.train.stages]
        if not stages:
            return self.model_copy(update={"optim": self.optim.model_copy(update={"lr": rate})})
        stages[stage - 1] = stages[stage - 1].model_copy(update={"lr": rate})
        changes: dict[str, object] = {
            "train": self.train.model_copy(update={"stages": tuple(stages)})
        }
        if all(one.lr is not None for one in stages):  # then optim.lr is no stage's
            default = {"lr": DEFAULT_LR[self.optim.name]}
            changes["optim"] = self.optim.model_copy(update=default)
        return self.model_copy(update=changes)


SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in Recipe.model_fields.items()
    if isinstance(field.annotation, type)
}


def _said(stage: Stage, keys: Collection[str]) -> dict[str, object]:
    return stage.model_dump(include={*keys}, exclude_none=True)


def columns_in(template: str) -> tuple[str, ...]:
    """The columns that a template names, each once, in order.

    Raises:
        ValueError: for a brace that opens or closes nothing, or what is not just a name.
    """
    names: dict[str, None] = {}
    for _, name, form, conversion in string.Formatter().parse(template):
        if form or conversion or name == "":
            raise ValueError("only names stand in braces; a brace itself is written twice")
        if name is not None:
            names[name] = None
    return tuple(names)


def for_multi_label(recipe: Recipe) -> Recipe:
    """The recipe with the metrics that suit rows of several labels, where it names none."""
    given = recipe.score.model_fields_set
    changes: dict[str, object] = {}
    if "metrics" not in given:
        changes["metrics"] = SEVERAL_METRICS
    if given.isdisjoint({"metrics", "monitor"}):
        changes["monitor"] = "f1_macro"
    return recipe.model_copy(update={"score": recipe.score.model_copy(update=changes)})


def conflict(key: str, expected: str) -> PydanticCustomError:
    """A value that is right alone but not with the section's other values."""
    return PydanticCustomError("conflict", "{expected}", {"key": key, "expected": expected})
