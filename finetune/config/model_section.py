"""The section `model`: the pretrained encoder, its head, and what is frozen."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from finetune.config.section import Section, conflict
from finetune.runtime.wording import count_of

# How many layers of an encoder stay, or which, counted from 0.
LayerChoice = (
    Annotated[int, Field(ge=1)]
    | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
)

STATIC = "static:"  # begins a `model.source` of which only a table of embeddings is made


class Model(Section):
    """The pretrained encoder and the linear logits head on it."""

    source: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        description=(
            "the pretrained encoder: Hub id, folder, or package:NAME/path; static: before any of "
            "these, such as static:runs/teacher/model, distils it to a table with one vector for "
            "each token, whose mean the head reads: some 40 times as fast as 6 layers"
        ),
    )
    revision: str | None = Field(
        None, description="the branch, tag or commit of a model on the Hub"
    )
    trust_remote_code: bool = Field(
        False,
        description=(
            "run Python code that comes with the model; in a recipe file it needs --trust on the "
            "command line as well, as a file cannot decide it by itself"
        ),
    )
    head: Literal["linear", "native"] = Field(
        "linear",
        description=(
            "linear: pooling, dropout and one linear layer; native: the architecture's own "
            "classification class, which loads without custom code"
        ),
    )
    pooling: Literal["mean", "cls"] = Field(
        "mean", description="how token states become one vector; for model.head linear"
    )
    pooled_norm: float | None = Field(
        None,
        gt=0,
        description=(
            "scale each document's vector to this length before the head, so that only its "
            "direction counts: 10 helps with few rows; null: no scaling; for model.head linear"
        ),
    )
    head_init: Literal["zeros", "normal", "label_names", "keep"] = Field(
        "zeros",
        description=(
            "zeros: the first logits do not depend on the text; normal: random weights, std 0.02; "
            "label_names: each label's weights start from the encoder's vector of its name ('_' "
            "read as a space), which helps with few rows if the names say what they mean. In all "
            "three the bias of multi-label documents starts at each label's frequency in train, "
            "and that of single-label ones at zero. keep: model.source is a classifier, such as an "
            "earlier run; labels that it knows keep their weights, by name, whatever other labels "
            "the data have"
        ),
    )
    new_labels: Literal["label_names", "zeros"] = Field(
        "label_names",
        description=(
            "for model.head_init keep: what the weights of labels start with that model.source "
            "does not know: label_names, as above, or zeros: no text speaks for or against them"
        ),
    )
    dropout: float | None = Field(
        0.0,
        ge=0,
        lt=1,
        description=(
            "the probability of every dropout, in the encoder and before the head; null: the "
            "encoder's own"
        ),
    )
    freeze: Literal["auto", "none", "embeddings", "encoder"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description=(
            "which parts keep their pretrained weights; a number: the embeddings and that many of "
            "the first layers; auto: embeddings with sgd, none with adamw"
        ),
    )
    keep_layers: LayerChoice | None = Field(
        None,
        description=(
            "cut the encoder to so many of its layers, spread evenly from the first to the last, "
            "or to those named, counted from 0, such as [0, 2, 5]: a smaller and faster model; "
            "null: all"
        ),
    )
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = Field(
        "auto",
        description="the attention implementation of padded rows (packed rows have one of their "
        "own); auto: the fastest on this hardware",
    )

    @property
    def is_static(self) -> bool:
        """Whether static embeddings are distilled from the encoder, in whose place they learn."""
        return self.source.startswith(STATIC)

    def describe_freezing(self) -> str:
        """Which parts keep their pretrained weights, for messages."""
        if isinstance(self.freeze, int):
            layers = "layer" if self.freeze == 1 else f"{self.freeze} layers"
            return f"embeddings and first {layers} frozen"
        return {"none": "nothing frozen", "auto": "frozen parts chosen by the optimizer"}.get(
            self.freeze, f"{self.freeze} frozen"
        )

    def describe_cut(self) -> str:
        """Which layers stay, behind the name of the encoder; empty where all do."""
        match self.keep_layers:
            case None:
                return ""
            case int(count):
                return f" cut to {count_of(count, 'layer')}"
            case named:
                layers = "layer" if len(named) == 1 else "layers"
                return f" cut to {layers} {', '.join(map(str, named))}"

    @model_validator(mode="after")
    def _new_labels_join_known_ones(self) -> Self:
        default = type(self).model_fields["new_labels"].default
        if self.head_init != "keep" and self.new_labels != default:
            raise conflict(
                "new_labels",
                f"no choice with model.head_init '{self.head_init}', which starts all labels "
                f"alike, got '{self.new_labels}'",
            )
        return self

    @model_validator(mode="after")
    def _layers_are_in_order(self) -> Self:
        named = self.keep_layers
        if isinstance(named, tuple) and list(named) != sorted(set(named)):
            raise conflict("keep_layers", f"each layer once, in ascending order, got {list(named)}")
        return self

    @model_validator(mode="after")
    def _static_embeddings_have_no_layers(self) -> Self:
        if not self.is_static:
            return self
        if self.source == STATIC:
            raise conflict("source", "an encoder after 'static:', got none")
        choices: tuple[tuple[str, object, str], ...] = (
            ("head", "linear", "have no classification class of an architecture"),
            ("pooling", "mean", "know no first token that has read the others"),
            ("keep_layers", None, "have no layers"),
            ("attention", "auto", "have no attention"),
        )
        for key, only, why in choices:
            if (value := getattr(self, key)) != only:
                expected = "null" if only is None else only
                got = list(value) if isinstance(value, tuple) else value
                raise conflict(key, f"{expected} with static embeddings, which {why}, got {got!r}")
        if isinstance(self.freeze, int):
            raise conflict(
                "freeze",
                "auto, none or embeddings with static embeddings, which have no layers, got "
                f"{self.freeze}",
            )
        return self

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
