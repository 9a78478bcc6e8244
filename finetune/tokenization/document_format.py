"""How a document becomes tokens: said by a recipe, kept in the model's config, obeyed everywhere.

    reading = Reading.of_recipe(recipe.data, max_length)
    table = reading.encode(texts, seconds, tokenizer)
    reading.note(model.config)                    # config.json: {"document": {…}}
    reading = Reading.of_model(config, tokenizer, "runs/…/model")

So whoever loads the model reads documents as training did: the same columns, the same cut or
windows, and the same thresholds for an answer.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from finetune.config import schema
from finetune.data.columns import ColumnSpec
from finetune.runtime.errors import InputError
from finetune.tokenization import token_table

KEY = "document"  # in config.json
UNSET = 10**9  # a tokenizer without a limit says a number beyond this


@dataclass(frozen=True)
class DocumentFormat:
    """How a document becomes tokens, and what its answer is held to.

    Attributes:
        text: the columns that make a document.
        template: how they are joined; None: a blank line between them.
        text_pair: the column of the second text of each pair; None: no pairs.
        max_length: tokens of a piece, special ones included.
        truncation: what stays of a longer document (`token_table.encode`).
        stride: tokens that neighbouring windows share.
        max_windows: of a document; None: all.
        window_pooling: how the logits of a document's windows become one row.
        thresholds: where a document may have several labels: the probability from which on each is
            given. (classes,)
        abstain_below: where it has one: the probability below which none is given.
    """

    text: tuple[str, ...] = ("text",)
    template: str | None = None
    text_pair: str | None = None
    max_length: int = 512
    truncation: token_table.Truncation = "head"
    stride: int = 0
    max_windows: int | None = None
    window_pooling: token_table.WindowPooling = "mean"
    thresholds: tuple[float, ...] | None = None
    abstain_below: float | None = None

    @classmethod
    def of_recipe(cls, data: schema.Data, max_length: int) -> Self:
        """What a recipe asks for, with pieces of so many tokens."""
        in_windows = data.truncation == "windows"
        stride = max_length // 4 if data.stride is None else data.stride
        return cls(
            text=data.columns(),
            template=data.template,
            text_pair=data.text_pair,
            max_length=max_length,
            truncation=data.truncation,
            stride=stride if in_windows else 0,
            max_windows=data.max_windows if in_windows else None,
            window_pooling=data.window_pooling,
        )

    @classmethod
    def of_model(
        cls, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, where: str
    ) -> Self:
        """What a saved model says of itself; of one from elsewhere, what its tokenizer does.

        Raises:
            InputError: naming `where`, for a config that is not whole.
        """
        kept = getattr(config, KEY, None)
        if kept is None:
            limit = getattr(config, "max_position_embeddings", None) or UNSET
            longest = min(tokenizer.model_max_length, limit)
            return cls(max_length=longest if longest < UNSET else 512)
        try:
            return TypeAdapter(cls).validate_python(kept)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, (KEY, *first["loc"])))
            raise InputError(
                f"{where}/config.json: {place}: {first['msg'].lower()}, got {first['input']!r}; "
                "copy the model folder anew"
            ) from None

    def note(self, config: PretrainedConfig) -> None:
        """Write it into a model's config, which is saved with the weights."""
        setattr(config, KEY, dataclasses.asdict(self))

    def set_up(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Have the tokenizer, which is saved with the model, truncate on its own as nearly so."""
        tokenizer.model_max_length = self.max_length
        tokenizer.padding_side = "right"
        tokenizer.truncation_side = "left" if self.truncation == "tail" else "right"

    def wanted(self) -> ColumnSpec:
        """The columns to read of documents without labels."""
        return ColumnSpec(self.text, "", False, self.text_pair, self.template)

    def encode(
        self,
        texts: Sequence[str],
        seconds: Sequence[str] | None,
        tokenizer: PreTrainedTokenizerBase,
        keep: Callable[[token_table.Ids], Any] | None = None,
    ) -> token_table.TokenTable:
        """The tokens of documents; of pairs, with the second text of each.

        Args:
            keep: as for `token_table.encode`.
        """
        return token_table.encode(
            texts,
            tokenizer,
            self.max_length,
            seconds=seconds,
            truncation=self.truncation,
            stride=self.stride,
            max_windows=self.max_windows,
            window_pooling=self.window_pooling,
            keep=keep,
        )
