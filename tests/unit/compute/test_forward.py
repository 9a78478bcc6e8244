"""Rows → logits, from token ids and from cached states."""

import dataclasses

import numpy as np
import torch

from finetune.compute import forward
from finetune.compute.cached_table import STATES, CachedTable
from finetune.compute.frozen_prefix import attach_frozen_prefix
from finetune.config import schema
from finetune.modeling import build, pretrained
from finetune.tokenization import encoding
from tests.support.tiny import tiny_encoder

CPU = torch.device("cpu")
TEXTS = ["one two three " * n for n in (1, 5, 2)]


def built(folder, **model):
    source = str(tiny_encoder(folder))
    choices = schema.Model(source=source, head_init="normal", **model)
    classifier = build.build_classifier(source, choices, ["a", "b"], "eager", seed=0)
    return classifier, pretrained.load_tokenizer(source, choices), choices


@torch.no_grad()
def test_windows_are_pooled_to_one_row_each(tmp_path):
    model, tokenizer, _ = built(tmp_path, freeze="none")
    windows = encoding.TruncationOptions("windows", stride=1)
    table = encoding.encode(TEXTS, tokenizer, 8, windows)
    together = forward.forward_rows(model, table, np.arange(3), CPU)
    assert together.shape == (3, 2)
    for row in range(3):
        alone = forward.forward_rows(model, table, np.array([row]), CPU)
        torch.testing.assert_close(together[row], alone[0])


@torch.no_grad()
def test_cached_states_give_the_same_logits(tmp_path):
    model, tokenizer, choices = built(tmp_path, freeze=1, dropout=0.0)
    table = encoding.encode(TEXTS, tokenizer, 32)
    rows = np.array([2, 0, 1])
    expected = forward.forward_rows(model, table, rows, CPU)
    recipe = schema.Recipe(data=schema.Data(source="unused"), model=choices)
    prefix = attach_frozen_prefix(model, recipe, epochs=2)
    assert prefix is not None
    states = torch.zeros(len(table.ids), model.config.encoder.hidden_size)
    for row in range(3):
        states[table.span(row)] = prefix.states(model, table.batch(np.array([row]), CPU))[0]
    fields = {field.name: getattr(table, field.name) for field in dataclasses.fields(table)}
    cached = CachedTable(**fields, states=states)
    assert STATES in cached.batch(rows, CPU)
    torch.testing.assert_close(forward.forward_rows(model, cached, rows, CPU), expected)
