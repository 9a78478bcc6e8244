"""Token tables hold what the tokenizer itself would give, cut where it would cut."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.runtime.errors import InputError
from finetune.tokenization import encoding
from tests.support.tiny import ARCHITECTURES, tiny_tokenizer

TOKENIZERS = {name: tiny_tokenizer(name) for name in ARCHITECTURES}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=8), room=st.integers(4, 40))
def test_ids_are_the_tokenizer_s_own(architecture, texts, room):
    tokenizer = TOKENIZERS[architecture]
    table = encoding.encode(texts, tokenizer, room, chunk_size=3)
    expected = tokenizer(texts, truncation=True, max_length=room)["input_ids"]
    whole = tokenizer(texts)["input_ids"]
    found = [table.ids[a:b].tolist() for a, b in zip(table.starts, table.starts[1:], strict=False)]
    assert found == expected
    assert table.full.tolist() == [len(ids) for ids in whole]
    assert table.truncated == sum(len(ids) > room for ids in whole)
    assert table.total_lost_tokens == sum(max(0, len(ids) - room) for ids in whole)


def test_a_batch_is_padded_to_its_own_longest_row():
    tokenizer = TOKENIZERS["roberta"]
    table = encoding.encode(["one", "one two three four", "one two"], tokenizer, 64)
    batch = table.batch(np.array([2, 0]), torch.device("cpu"))
    assert batch["input_ids"].shape == (2, table.lengths[2])
    assert batch["attention_mask"].sum(dim=1).tolist() == table.lengths[[2, 0]].tolist()
    assert batch["input_ids"][1, -1] == tokenizer.pad_token_id == table.pad_id
    assert batch["input_ids"].dtype == torch.int64


def test_max_length():
    assert encoding.resolve_max_length(None, 64) == 64
    assert encoding.resolve_max_length(None, 8192) == 512
    assert encoding.resolve_max_length(None, None) == 512
    assert encoding.resolve_max_length(1000, None) == 1000
    with pytest.raises(InputError) as caught:
        encoding.resolve_max_length(513, 512)
    assert str(caught.value) == (
        "data.max_length: the encoder has positions for 512 tokens, got 513; set "
        "data.max_length=512 or less, or choose an encoder for longer texts"
    )


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=8), data=st.data())
def test_rows_between_two_are_those_that_take_gives(texts, data):
    tokenizer = TOKENIZERS["bert"]
    begin = data.draw(st.integers(0, len(texts)))
    end = data.draw(st.integers(begin, len(texts)))
    windows = encoding.TruncationOptions("windows", stride=2)
    plain = encoding.encode(texts, tokenizer, 12)
    for table in (
        plain,
        dataclasses.replace(plain, asked=plain.ids % 2 == 0),
        encoding.encode(texts, tokenizer, 12, windows),
        encoding.encode(texts, tokenizer, 12, seconds=texts[::-1]),
    ):
        found, expected = table.between(begin, end), table.take(np.arange(begin, end))
        for field in dataclasses.fields(table):
            np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name))
