"""The sections `train` and `optim`: the loop, its stages, the optimizer and its schedule."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from finetune.config.section import Count, Section, Weights, conflict

# The peak learning rate of an optimizer where a recipe names none.
DEFAULT_LR = {"sgd": 0.03, "adamw": 2e-4}
# The default number of epochs; and the least number of steps, which few rows reach by more epochs.
EPOCHS = 3
LEAST_STEPS = 45


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
        description=(
            "the peak learning rate (each stage warms up and decays by itself); null: optim.lr; "
            "auto: found by a range test before the stage's first step"
        ),
    )


class Train(Section):
    """The training loop."""

    stages: Annotated[tuple[Stage, ...], Field(strict=False)] = Field(
        (),
        description=(
            "train in several stages, such as [{freeze: encoder, epochs: 10, lr: 0.3}, {}]: first "
            "the head alone, then as the rest of the recipe says. Weights carry over from stage "
            "to stage; the optimizer state does not. Steps are counted through all stages, the "
            "best model of all is kept, and score.patience ends the last stage only"
        ),
    )
    epochs: Count | Literal["auto"] = Field(
        "auto",
        description=(
            f"passes over the training rows; auto: {EPOCHS}, or, where that makes fewer than "
            f"{LEAST_STEPS} steps (or train.min_steps, where that is less), the multiple of "
            f"{EPOCHS} that reaches them (validation is then scored {EPOCHS} times in all, and "
            "sampling is stratified)"
        ),
    )
    max_steps: Count | None = Field(
        None, description="the most optimizer steps; the schedule ends there"
    )
    min_steps: Count | None = Field(
        None,
        description=(
            "the least optimizer steps: with a few dozen rows, epochs are too short a measure"
        ),
    )
    minutes: float | None = Field(
        None,
        gt=0,
        description=(
            "how long the run may take, from its start to its test scores: the first steps are "
            "timed, and train.max_steps, train.min_steps and score.every are set from that, once, "
            "so that the schedule ends in time; a number of train.epochs, and train.max_steps, are "
            "the most that is done. A saved recipe names the steps, and repeats the run"
        ),
    )
    average_last: float | None = Field(
        None,
        gt=0,
        le=1,
        description=(
            "score and save the mean of the weights over this share of the steps, at the end (of "
            "the last stage, where there are several), such as 0.25; null: the weights of a step"
        ),
    )
    batch_size: Count = Field(
        32,
        description=(
            "documents in each optimizer step, over all processes together (the global batch)"
        ),
    )
    micro_batch_tokens: Count | None = Field(
        None,
        description=(
            "tokens that a process sends through the encoder at once: changes memory and speed, "
            "never the result; null: chosen for the hardware"
        ),
    )
    packing: Literal["auto", "off"] = Field(
        "auto",
        description=(
            "auto: pack sequences end to end instead of padding them, where the encoder's class "
            "can be computed so; the results are the same, and training is faster"
        ),
    )
    compile: bool = Field(
        False,
        description=(
            "compile the model with torch.compile, for batches of any size; rows are padded then. "
            "It has not been run on a GPU"
        ),
    )
    checkpointing: Literal["auto", "on", "off"] = Field(
        "auto",
        description=(
            "gradient checkpointing: compute each layer again for its gradient instead of keeping "
            "what it computed, which takes far less memory and one more forward pass; the "
            "results are the same. auto: where a row does not fit otherwise"
        ),
    )
    loss: Literal["cross_entropy", "focal", "generalised_cross_entropy"] = Field(
        "cross_entropy",
        description=(
            "focal weights hard rows more; generalised_cross_entropy is robust to wrong labels. "
            "The loss that is reported of validation and test is always cross-entropy"
        ),
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description=(
            "for cross_entropy: the share of the target that is spread evenly over all labels"
        ),
    )
    focal_gamma: float = Field(
        2.0, ge=0, description="for focal: how much hard rows count more; 0 is cross_entropy"
    )
    gce_q: float = Field(
        0.7,
        gt=0,
        le=1,
        description=(
            "for generalised_cross_entropy: towards 0 it is cross_entropy, 1 is the most robust"
        ),
    )
    class_weights: Literal["balanced"] | Weights | None = Field(
        None,
        description=(
            "by label, what a row's training loss is multiplied by; balanced: n / (labels × n of "
            "the label). The loss of validation and test is unweighted"
        ),
    )
    sampling: Literal["auto", "uniform", "balanced", "stratified"] = Field(
        "auto",
        description=(
            "uniform: an epoch takes each row once, in random order; stratified: so that each "
            "step has each label's share; balanced: all labels equally often, so that rows of "
            "rare labels repeat; auto: stratified where rows are few (see train.epochs), else "
            "uniform"
        ),
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="of matrix products; auto: the fastest on this hardware"
    )
    threads: Count | None = Field(
        None,
        description=(
            "CPU threads of each process; null: the machine's cores, shared by its processes"
        ),
    )
    log_every: Count = Field(10, description="steps between lines of metrics.jsonl")
    on_divergence: Literal["stop", "back_off"] = Field(
        "stop",
        description=(
            "where the loss is not finite, or the model collapses to one label; back_off: return "
            "to an earlier checkpoint and halve the learning rate, at most five times"
        ),
    )

    @property
    def awaits_plan(self) -> bool:
        """Whether `minutes` are still to decide how many steps there are."""
        return self.minutes is not None and self.min_steps is None

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
        if self.minutes is not None and self.stages:
            raise conflict("minutes", f"null with train.stages, got {self.minutes:g}")
        if self.minutes is not None and self.min_steps not in (None, self.max_steps):
            raise conflict(
                "min_steps", f"null with train.minutes, which finds them, got {self.min_steps}"
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
        description=(
            "the peak learning rate; null: 0.03 for sgd, 2e-4 for adamw; auto: found by a range "
            "test on train rows before the first step (and before that of each stage without a "
            "rate)"
        ),
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="for sgd")
    nesterov: bool = Field(False, description="for sgd: Nesterov's momentum")
    weight_decay: float = Field(
        0.0, ge=0, description="applied to weights, not to biases and norms"
    )
    betas: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(strict=False)] = Field(
        (0.9, 0.999), description="for adamw", min_length=2, max_length=2
    )
    eps: float = Field(1e-8, gt=0, description="for adamw")
    max_grad_norm: float | None = Field(
        1.0, gt=0, description="clip the norm of the whole gradient to this; null: no clipping"
    )
    head_lr_scale: float | None = Field(
        None,
        gt=0,
        description=(
            "the head's learning rate is optim.lr times this; null: 10 for adamw; for sgd 1, or "
            "an eighth of the number of labels where there are more than 8"
        ),
    )
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description=(
            "each layer's learning rate is this times that of the layer above it; the embeddings "
            "are below the first"
        ),
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear",
        description="how the learning rate falls after warm-up; linear and cosine end at 0",
    )
    schedule_every: Literal["step", "epoch"] = Field(
        "step", description="whether the learning rate falls after each step or after each epoch"
    )
    warmup: float = Field(
        0.06,
        ge=0,
        lt=1,
        description=(
            "the share of all steps over which the learning rate rises from 0 to its peak"
        ),
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
