"""Masks: which tokens are asked for, what stands in their place, and what they cost."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.config import schema
from finetune.runtime.errors import InputError
from finetune.tokenization.token_table import TokenTable, range_starts
from finetune.training.masking import MaskedRows, Masking, hold_masks
from tests.support.tiny import tiny_tokenizer

CPU = torch.device("cpu")
TOKENIZER = tiny_tokenizer()
SPECIAL = {*TOKENIZER.all_special_ids}


def table_of(lengths, seed=0):
    """Rows of ordinary tokens between [CLS] and [SEP]."""
    draw = np.random.default_rng(seed)
    rows = [
        [TOKENIZER.cls_token_id, *draw.integers(10, len(TOKENIZER), n), TOKENIZER.sep_token_id]
        for n in lengths
    ]
    sizes = np.array([len(row) for row in rows])
    return TokenTable(np.concatenate(rows).astype(np.int32), range_starts(sizes), sizes, 0)


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    fraction=st.floats(0.01, 0.99),
    replacement=st.sampled_from(["mixed", "mask"]),
    step=st.integers(0, 1000),
)
def test_each_row_is_asked_for_its_share(lengths, fraction, replacement, step):
    masking = Masking.of_tokenizer(TOKENIZER, fraction=fraction, replacement=replacement)
    table = table_of(lengths)
    masked = masking.mask(table, [step])
    counts = masking.count_asked(table)
    assert [*counts] == [max(round(fraction * n), n > 0) for n in lengths]
    asked = np.add.reduceat(masked.asked.astype(int), masked.starts[:-1])
    assert [*asked] == [*counts]
    assert not SPECIAL & {*table.ids[masked.asked].tolist()}
    same = ~masked.asked
    assert np.array_equal(masked.ids[same], table.ids[same])
    assert not (SPECIAL - {TOKENIZER.mask_token_id}) & {*masked.ids[masked.asked].tolist()}
    if replacement == "mask":
        assert (masked.ids[masked.asked] == TOKENIZER.mask_token_id).all()
    again = masking.mask(table, [step])
    assert np.array_equal(again.ids, masked.ids)
    assert np.array_equal(again.asked, masked.asked)


def test_eight_in_ten_are_masked_and_one_is_left():
    masking, table = Masking.of_tokenizer(TOKENIZER, fraction=0.5), table_of([2000] * 10)
    masked = masking.mask(table, [3])
    before, after = table.ids[masked.asked], masked.ids[masked.asked]
    assert np.mean(after == TOKENIZER.mask_token_id) == pytest.approx(0.8, abs=0.02)
    assert np.mean(after == before) == pytest.approx(0.1, abs=0.02)
    other = masking.mask(table, [4])
    assert np.mean(masked.asked == other.asked) == pytest.approx(0.5, abs=0.02)


def test_a_step_is_the_mean_over_all_that_is_asked_for():
    masking, table = Masking.of_tokenizer(TOKENIZER, fraction=0.3), table_of([3, 30, 12, 7])
    rows = MaskedRows(table, 1000, masking)
    task = rows.objective(schema.Train(), CPU).of_step(5, np.array([1, 3, 0]))
    assert [*task.rows] == [0, 1, 2]
    logits = torch.randn(int(task.table.asked.sum()), len(TOKENIZER))
    losses = task.losses_of(logits, task.rows)
    targets = torch.from_numpy(table.take(np.array([1, 3, 0])).ids[task.table.asked]).long()
    mean = torch.nn.functional.cross_entropy(logits, targets)
    assert losses.mean().item() == pytest.approx(mean.item(), rel=1e-6)
    # In parts, each with the logits of its own tokens.
    ends = np.cumsum(np.add.reduceat(task.table.asked.astype(int), task.table.starts[:-1]))
    first = task.losses_of(logits[: ends[0]], np.array([0]))
    others = task.losses_of(logits[ends[0] :], np.array([1, 2]))
    assert torch.allclose(torch.cat([first, others]), losses)
    again = rows.objective(schema.Train(), CPU).of_step(5, np.array([1, 3, 0]))
    assert np.array_equal(again.table.ids, task.table.ids)


def test_held_out_rows_keep_their_masks():
    masking, table = Masking.of_tokenizer(TOKENIZER, seed=7), table_of([9, 30])
    one, other = (hold_masks(table, masking, CPU).table for _ in range(2))
    assert np.array_equal(one.ids, other.ids)
    assert not np.array_equal(one.ids, hold_masks(table, Masking.of_tokenizer(TOKENIZER), CPU))


def test_a_tokenizer_without_a_mask_token_is_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.mask_token = None
    with pytest.raises(InputError) as caught:
        Masking.of_tokenizer(tokenizer)
    assert str(caught.value) == (
        "ENCODER: expected a tokenizer with a mask token, as of BERT or RoBERTa, found none; name "
        "an encoder that was trained with one"
    )
