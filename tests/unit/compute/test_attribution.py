"""Token scores: they sum to what the text changes, and leave other threads alone."""

import threading

import numpy as np
import pytest
import torch

from finetune.compute import attribution
from finetune.config import schema
from finetune.modeling import build, pretrained
from finetune.tokenization.document_format import DocumentFormat
from tests.support.tiny import tiny_encoder

TEXTS = ["team match win the cup", "bank tax", "chip code and a robot in space"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["bert", "roberta", "modernbert", "deberta-v2"])
def parts(request, tmp_path_factory):
    source = str(tiny_encoder(tmp_path_factory.mktemp(request.param), request.param))
    settings = schema.Model(head="linear", head_init="normal", freeze="none")
    model = build.build_classifier(source, settings, ["a", "b", "c"], "eager", seed=0).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(20)
    return model, pretrained.load_tokenizer(source, settings)


def logits_of(model, table):
    with torch.no_grad():
        return model(**table.batch(np.arange(len(table)), CPU)).logits.double().numpy()


def test_scores_sum_to_the_difference_from_the_empty_text(parts, monkeypatch):
    model, tokenizer = parts
    monkeypatch.setattr(attribution, "TOKENS", 20)  # several batches
    table = DocumentFormat(max_length=32).encode(TEXTS, None, tokenizer)
    is_text = ~np.isin(table.ids, tokenizer.all_special_ids)
    weights = np.array([[1, -0.5, -0.5], [0, 0, 0], [0, 1, 0.0]])
    blank = attribution.baseline_token(tokenizer)
    assert blank == tokenizer.mask_token_id
    found = attribution.attribute_tokens(model, table, is_text, weights, blank, CPU, points=32)
    assert not found[~is_text].any()
    empty = type(table)(
        np.where(is_text, blank, table.ids).astype(np.int32), table.starts, table.full, table.pad_id
    )
    rows = np.repeat(np.arange(3), table.lengths)
    sums = np.bincount(rows, found)
    expected = ((logits_of(model, table) - logits_of(model, empty)) * weights).sum(axis=1)
    np.testing.assert_allclose(sums, expected, rtol=0.02, atol=1e-3)
    assert sums[1] == 0
    assert np.abs(sums[[0, 2]]).min() > 1e-2
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.get_input_embeddings()._forward_hooks


def test_another_thread_computes_as_before(parts):
    model, _ = parts
    layer = model.get_input_embeddings()
    ids = torch.tensor([[5, 6]])
    expected = layer(ids)
    line = attribution._Line(torch.ones(1, 2, dtype=bool), torch.ones(1), torch.zeros(1, 32))
    hook = layer.register_forward_hook(line)
    try:
        found = []
        other = threading.Thread(target=lambda: found.append(layer(ids)))
        other.start()
        other.join()
        here = layer(ids)
    finally:
        hook.remove()
    assert torch.equal(found[0], expected)
    assert not here.any()  # at the beginning of the line
