"""Where tokens come from, however the document was cut."""

import numpy as np
import pytest

from finetune.runtime.errors import InputError
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.token_origins import locate_tokens, require_offsets
from tests.support.tiny import WORDS, tiny_tokenizer

TEXT = "The unfair  team WON, again, " + " ".join(WORDS[:40])


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"truncation": "head"},
        {"truncation": "tail"},
        {"truncation": "head_tail"},
        {"truncation": "windows", "stride": 5},
        {"truncation": "windows", "stride": 0, "max_windows": 2},
    ],
)
def test_each_token_is_what_stands_there(architecture, choices):
    tokenizer = tiny_tokenizer(architecture)
    reading = DocumentFormat(max_length=16 if choices else 64, **choices)
    table = reading.encode([TEXT], None, tokenizer)
    found = locate_tokens(reading, TEXT, None, tokenizer)
    assert len(found) == len(table.ids)
    special = np.isin(table.ids, tokenizer.all_special_ids)
    assert (found.text[special] == -1).all()
    assert (found.text[~special] == 0).all()
    for token, a, b in zip(
        table.ids[~special], found.begins[~special], found.ends[~special], strict=True
    ):
        assert tokenizer.decode([token]).removeprefix("##") == TEXT[a:b].lower()


@pytest.mark.parametrize("length", [12, 60])
def test_of_a_pair(length):
    tokenizer = tiny_tokenizer()
    reading = DocumentFormat(max_length=length, text_pair="other")
    one, two = "the team won a very good match and the cup", "a bank rate"
    table = reading.encode([one], [two], tokenizer)
    found = locate_tokens(reading, one, two, tokenizer)
    assert len(found) == len(table.ids)
    own = found.text >= 0
    for token, of, a, b in zip(
        table.ids[own], found.text[own], found.begins[own], found.ends[own], strict=True
    ):
        assert tokenizer.decode([token]).removeprefix("##") == (one, two)[of][a:b]
    assert set(found.text.tolist()) == {-1, 0, 1}


def test_a_tokenizer_without_places():
    class Slow:
        is_fast = False

    with pytest.raises(InputError) as caught:
        require_offsets(Slow())
    assert str(caught.value) == (
        "the tokenizer (Slow) does not tell where in a text its tokens are, without which no word "
        "can be named; explanations need a fast tokenizer (tokenizer.json in the model folder)"
    )
