"""A classifier's folder: rewritten, hashed, copied without weights."""

import os

import pytest
import torch
from safetensors.torch import load_file

from finetune.config import schema
from finetune.modeling import build, pretrained, saved_model
from tests.support.tiny import tiny_encoder


@pytest.fixture
def saved(tmp_path):
    source = str(tiny_encoder(tmp_path / "encoder"))
    choices = schema.Model(source=source, freeze="none")
    model = build.build_classifier(source, choices, ["a", "b"], "sdpa", seed=0)
    tokenizer = pretrained.load_tokenizer(source, choices)
    saved_model.save_classifier(model, tokenizer, tmp_path / "model")
    return model, tmp_path / "model"


def test_rewritten_weights_leave_a_linked_copy_as_it_was(saved, tmp_path):
    model, folder = saved
    file = "model.safetensors"
    os.link(folder / file, tmp_path / file)
    bias = torch.tensor([3.0, 4.0])
    assert saved_model.rewrite_weights(folder, {"classifier.bias": bias})
    now, before = load_file(folder / file), load_file(tmp_path / file)
    assert torch.equal(now.pop("classifier.bias"), bias)
    assert torch.equal(before.pop("classifier.bias"), model.classifier.bias)
    assert saved_model.weights_hash(now) == saved_model.weights_hash(before)


def test_weights_that_are_not_there_are_not_written(saved):
    _, folder = saved
    before = (folder / "model.safetensors").read_bytes()
    assert not saved_model.rewrite_weights(folder, {"no.such.weight": torch.zeros(1)})
    assert (folder / "model.safetensors").read_bytes() == before


def test_the_hash_is_of_names_types_shapes_and_numbers():
    weights = {"b": torch.arange(4.0), "a": torch.ones(2)}
    original = saved_model.weights_hash(weights)
    assert saved_model.weights_hash(dict(reversed(weights.items()))) == original
    for other in (torch.arange(4.0).view(2, 2), torch.arange(4), -torch.arange(4.0)):
        assert saved_model.weights_hash(weights | {"b": other}) != original


def test_a_copy_without_weights_leaves_the_model_alone(saved):
    model, _ = saved
    bare = saved_model.weightless_copy(model)
    assert {p.device.type for p in bare.parameters()} == {"meta"}
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert bare.config.to_dict() == model.config.to_dict()
