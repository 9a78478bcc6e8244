"""How a document becomes tokens: chosen by a recipe, kept in the model's config, used everywhere.

    document_format = DocumentFormat.of_recipe(recipe.data, max_length)
    table = document_format.encode(texts, seconds, tokenizer)
    document_format.note(model.config)            # config.json: {"document": {…}}
    document_format = DocumentFormat.of_model(config, tokenizer, "runs/…/model")

So whoever loads the model reads documents as training did: the same columns, the same truncation
or windows, and the same thresholds of a prediction.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from finetune.config import schema
from finetune.config.data_section import columns_in
from finetune.data.columns import ColumnSpec
from finetune.runtime.errors import InputError
from finetune.tokenization import encoding, token_table

KEY = "document"  # in config.json
UNSET = 10**9  # a tokenizer without a limit has a `model_max_length` beyond this


@dataclass(frozen=True)
class DocumentFormat:
    """How a document becomes tokens, and the thresholds of its prediction.

    Attributes:
        text: the columns of a document.
        template: how they are joined; None: a blank line between them.
        text_pair: the column of the second text of each pair; None: no pairs.
        max_length: tokens of a piece, special ones included.
        truncation: what is kept of a longer document (`encoding.TruncationOptions`).
        stride: tokens that neighbouring windows share.
        max_windows: of a document; None: all.
        window_pooling: how the logits of a document's windows become one row.
        thresholds: of a multi-label model: the probability from which on each label is predicted.
            (classes,)
        abstain_below: of a single-label model: the probability below which no label is predicted.
        id: the column that identifies documents; None: none.
        interval: of a model of numbers: the share of documents that its prediction intervals should
            hold, and half their width; None: it gives none.
        out_of_scope: whether a detector beside the weights tells documents that no label fits.
    """

    text: tuple[str, ...] = ("text",)
    template: str | None = None
    text_pair: str | None = None
    max_length: int = 512
    truncation: encoding.Truncation = "head"
    stride: int = 0
    max_windows: int | None = None
    window_pooling: token_table.WindowPooling = "mean"
    thresholds: tuple[float, ...] | None = None
    abstain_below: float | None = None
    id: str | None = None
    interval: tuple[float, float] | None = None
    out_of_scope: bool = False

    @classmethod
    def of_recipe(cls, data: schema.Data, max_length: int) -> Self:
        """The recipe's choices, with pieces of `max_length` tokens."""
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
            id=data.id,
        )

    @classmethod
    def of_model(
        cls, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, where: str
    ) -> Self:
        """A saved model's own format; for one from elsewhere, what its tokenizer does.

        Raises:
            InputError: naming `where`, for a config with an invalid `document`.
        """
        kept = getattr(config, KEY, None)
        if kept is None:
            limit = getattr(config, "max_position_embeddings", None) or UNSET
            longest = min(tokenizer.model_max_length, limit)
            return cls(max_length=longest if longest < UNSET else 512)
        try:
            found = TypeAdapter(cls).validate_python(kept)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, (KEY, *first["loc"])))
            raise InputError(
                f"{where}/config.json: {place}: {first['msg'].lower()}, got {first['input']!r}; "
                "copy the model folder again"
            ) from None
        problems = [*found._find_problems()]
        if problems:
            raise InputError(
                f"{where}/config.json: {KEY}.{problem}; copy the model folder again"
                for problem in problems
            )
        return found

    def _find_problems(self) -> Iterator[str]:
        """What no recipe writes, each as `key: expected …, found …`."""
        names = self.text if self.text_pair is None else (*self.text, self.text_pair)
        if not self.text or not all(names) or len(set(names)) < len(names):
            yield f"text: expected one column or more, each once, found {list(names)}"
        if self.template is not None:
            try:
                columns = columns_in(self.template)
            except ValueError as error:
                yield f"template: expected columns as {{title}}, found {self.template!r} ({error})"
            else:
                if set(columns) != set(self.text):
                    yield (
                        f"template: expected just the columns {list(self.text)}, found "
                        f"{list(columns)}"
                    )
        if not 1 <= self.max_length < UNSET:
            yield f"max_length: expected a number of tokens, found {self.max_length:,}"
        elif not 0 <= self.stride < self.max_length:
            yield (
                f"stride: expected 0 or more, and less than max_length, {self.max_length:,}, found "
                f"{self.stride:,}"
            )
        if self.max_windows is not None and not 1 <= self.max_windows < UNSET:
            yield f"max_windows: expected null, or 1 or more, found {self.max_windows:,}"
        for key, values in (
            ("thresholds", self.thresholds or ()),
            ("abstain_below", () if self.abstain_below is None else (self.abstain_below,)),
        ):
            wrong = [value for value in values if not 0 <= value <= 1]  # NaN is neither
            if wrong:
                yield f"{key}: expected probabilities from 0 to 1, found {wrong[0]}"
        if self.interval is not None:
            coverage, half_width = self.interval
            if not (0 < coverage < 1 and 0 <= half_width < math.inf):
                yield (
                    "interval: expected a share between 0 and 1 and a half width of 0 or more, "
                    f"found {list(self.interval)}"
                )

    def note(self, config: PretrainedConfig) -> None:
        """Write it into a model's config, which is saved with the weights."""
        setattr(config, KEY, dataclasses.asdict(self))

    def set_up(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Have the tokenizer saved with the model truncate in the same way, where it can."""
        tokenizer.model_max_length = self.max_length
        tokenizer.padding_side = "right"
        tokenizer.truncation_side = "left" if self.truncation == "tail" else "right"

    def column_spec(self) -> ColumnSpec:
        """The columns to read of documents without labels."""
        return ColumnSpec(self.text, "", False, self.text_pair, self.template)

    def encode(
        self,
        texts: Sequence[str],
        seconds: Sequence[str] | None,
        tokenizer: PreTrainedTokenizerBase,
        on_chunk: Callable[[token_table.Ids], Any] | None = None,
    ) -> token_table.TokenTable:
        """The tokens of documents; of pairs, with the second text of each.

        Args:
            on_chunk: as for `encoding.encode`.
        """
        options = self.truncation_options()
        return encoding.encode(
            texts, tokenizer, self.max_length, options, seconds=seconds, on_chunk=on_chunk
        )

    def truncation_options(self) -> encoding.TruncationOptions:
        """What is kept of a longer document."""
        return encoding.TruncationOptions(
            self.truncation, self.stride, self.max_windows, self.window_pooling
        )


NO_DETECTOR = (
    "the export does not carry the detector of documents out of scope (score.out_of_scope): with "
    "it, each document gets a label; the run's own folder tells those that no label fits"
)


def drop_detector(config: PretrainedConfig) -> None:
    """Have a model's config, which goes where its detector does not, say that there is none."""
    kept = getattr(config, KEY, None)
    if kept and kept.get("out_of_scope"):
        setattr(config, KEY, {**kept, "out_of_scope": False})
