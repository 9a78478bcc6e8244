"""The engine of torch: a saved model's logits, packed or padded, and what it says of itself."""

import numpy as np
import pytest
import torch

from finetune.config import schema
from finetune.inference import torch_engine
from finetune.inference.engines import EngineOptions, ModelSource
from finetune.modeling import build, pretrained, saved_model
from finetune.runtime.errors import InputError
from finetune.tokenization.token_table import TokenTable
from tests.support.tiny import tiny_encoder

TEXTS = ["team match", "bank tax market share price", "chip"]
OPTIONS = EngineOptions(precision="fp32", threads=1)


@pytest.fixture(scope="module", params=["linear", "native"])
def folder(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    source = str(tiny_encoder(root / "encoder"))
    settings = schema.Model(head=request.param, head_init="normal", freeze="none")
    made = build.build_classifier(source, settings, ["a", "b", "c"], "eager", seed=0)
    saved_model.save_classifier(made, pretrained.load_tokenizer(source, settings), root / "model")
    return root / "model"


def tokens_of(tokenizer):
    ids = tokenizer(TEXTS)["input_ids"]
    lengths = np.array([len(row) for row in ids])
    starts = np.concatenate([[0], lengths.cumsum()])
    return TokenTable(np.concatenate(ids).astype(np.int32), starts, lengths, tokenizer.pad_token_id)


def test_logits_are_those_of_each_text_alone(folder):
    loaded = torch_engine.load(ModelSource(str(folder)), OPTIONS)
    made, tokenizer = saved_model.load_classifier(str(folder))
    engine = loaded.build()
    found = engine.logits(tokens_of(loaded.tokenizer))
    assert (engine.classes, found.shape, found.dtype) == (3, (3, 3), np.float32)
    for row, text in zip(found, TEXTS, strict=True):
        with torch.no_grad():
            expected = made(**tokenizer(text, return_tensors="pt")).logits[0]
        np.testing.assert_allclose(row, expected.numpy(), atol=1e-5)


def test_the_identity_is_of_weights_and_precision(folder):
    model, _ = saved_model.load_classifier(str(folder))
    weights = saved_model.weights_hash(model.state_dict())
    engine = torch_engine.torch_engine(model, OPTIONS)
    assert engine.identity == f"{weights} fp32"
    assert engine.reasons[0] == "fp32: as requested"


def test_the_number_of_tokens_is_the_caller_s(folder):
    model, _ = saved_model.load_classifier(str(folder))
    options = EngineOptions(precision="fp32", threads=1, tokens=7)
    engine = torch_engine.torch_engine(model, options)
    assert engine.budget == 7
    assert engine.reasons[-1] == "7 tokens at once, 1 thread in each process"


def test_what_the_user_set_for_onednn_stays(monkeypatch):
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "3")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    torch_engine._limit_primitive_cache()
    assert torch_engine.os.environ["LRU_CACHE_CAPACITY"] == "3"
    assert torch_engine.os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "128"


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError):
        torch_engine.load(ModelSource(str(tmp_path)), OPTIONS)
