"""A document → where in its texts each token of its table comes from.

origins = locate_tokens(reading, text, None, tokenizer)
text[origins.begins[5] : origins.ends[5]]        # what `table.ids[5]` stands for
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from finetune.runtime.errors import InputError
from finetune.tokenization import encoding
from finetune.tokenization.document_format import DocumentFormat

SPECIAL = -1
Places = NDArray[np.int64]


@dataclass(frozen=True)
class TokenOrigins:
    """Where the tokens of a document's pieces come from, in the order of a table's `ids`.

    Attributes:
        text: 0: the document's text, 1: the second of a pair, -1: a special token. (tokens,)
        begins, ends: the token's characters in that text. (tokens,)
    """

    text: Places
    begins: Places
    ends: Places

    def __len__(self) -> int:
        return len(self.text)


def require_offsets(tokenizer: PreTrainedTokenizerBase) -> None:
    """
    Raises:
        InputError: for a tokenizer that does not tell where its tokens are.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"the tokenizer ({type(tokenizer).__name__}) does not tell where in a text its tokens "
            "are, without which no word can be named; explanations need a fast tokenizer "
            "(tokenizer.json in the model folder)"
        )


def locate_tokens(
    reading: DocumentFormat, text: str, second: str | None, tokenizer: PreTrainedTokenizerBase
) -> TokenOrigins:
    """Of one document.

    Args:
        second: of a pair.

    Raises:
        InputError: as `require_offsets` does.
    """
    require_offsets(tokenizer)
    named: Any = {
        "return_offsets_mapping": True,
        "return_attention_mask": False,
        "return_token_type_ids": False,
        "verbose": False,
    }
    if second is not None:
        found: Any = tokenizer(
            text, second, truncation="longest_first", max_length=reading.max_length, **named
        )
        places = np.array(found["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        of = [SPECIAL if one is None else one for one in found.sequence_ids(0)]
        return TokenOrigins(np.array(of, dtype=np.int64), places[:, 0], places[:, 1])
    found = tokenizer(text, add_special_tokens=False, truncation=False, **named)
    places = np.array(found["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    cutter = encoding.PieceCutter(tokenizer, reading.max_length, reading.truncation_options())
    # The numbers of the text's tokens are cut as their ids are: negative, as no special token is.
    numbers = np.arange(-len(places), 0, dtype=np.int32)
    cut = cutter(numbers, np.array([len(places)], dtype=np.int64)).ids
    own = cut < 0
    begins, ends = np.zeros(len(cut), dtype=np.int64), np.zeros(len(cut), dtype=np.int64)
    at = cut[own].astype(np.int64) + len(places)
    begins[own], ends[own] = places[at, 0], places[at, 1]
    return TokenOrigins(np.where(own, 0, SPECIAL), begins, ends)
