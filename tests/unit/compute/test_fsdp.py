"""When weights are sharded, what is put together at once, and in which precision."""

import os
from types import SimpleNamespace

import pytest
from accelerate import DistributedType
from transformers import AutoModel

from finetune.compute import fsdp
from tests.support.sharded_step import sharded_step
from tests.support.tiny import tiny_encoder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("1", True), ("false", False)])
def test_the_launcher_s_configuration_asks_for_it(monkeypatch, value, expected):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", value)
    assert fsdp.is_asked_for() is expected


def test_a_run_that_does_not_ask_is_left_alone(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    accelerator = SimpleNamespace(distributed_type=DistributedType.MULTI_CPU)
    fsdp.configure_fsdp(accelerator)  # would set accelerator.state, which is not there
    monkeypatch.setenv(fsdp.MAIN_LOADS, "true")
    fsdp.prepare_environment()
    assert os.environ[fsdp.MAIN_LOADS] == "true"


def test_every_process_reads_the_weights(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv(fsdp.MAIN_LOADS, "true")
    fsdp.prepare_environment()
    assert os.environ[fsdp.MAIN_LOADS] == "false"


def test_a_configuration_may_ask_for_checkpointing():
    plugin = SimpleNamespace(activation_checkpointing=True)
    accelerator = SimpleNamespace(is_fsdp2=True, state=SimpleNamespace(fsdp_plugin=plugin))
    assert fsdp.asks_for_checkpointing(accelerator)
    plugin.activation_checkpointing = False
    assert not fsdp.asks_for_checkpointing(accelerator)
    assert not fsdp.asks_for_checkpointing(SimpleNamespace(is_fsdp2=False))


def test_each_layer_is_a_unit(tiny):
    encoder = AutoModel.from_pretrained(tiny)
    kinds = [type(unit).__name__ for unit in fsdp._units(encoder, None)]
    assert kinds == ["BertLayer", "BertLayer", "Embedding"]
    kinds = [type(unit).__name__ for unit in fsdp._units(encoder, ["BertLayer", "BertOutput"])]
    assert kinds == ["BertOutput", "BertLayer", "BertOutput", "BertLayer", "Embedding"]
    # What modules share is put together with what holds them all.
    encoder.other = type(encoder.embeddings.word_embeddings)(2, 2)
    encoder.other.weight = encoder.embeddings.word_embeddings.weight
    kinds = [type(unit).__name__ for unit in fsdp._units(encoder, None)]
    assert kinds == ["BertLayer", "BertLayer"]


def test_in_fp32_the_gradient_is_that_of_one_process(tiny):
    found = sharded_step(tiny, precision="fp32")
    assert {*found["types"].values()} == {"torch.float32"}
    layers = [f"encoder.encoder.layer.{number}" for number in range(2)]
    expected = {"", "encoder.embeddings.word_embeddings", *layers, "classifier"}
    assert {*found["units"]} == expected
    assert max(found["apart"].values()) < 1e-5
    assert found["parts"] > 1


def test_in_bf16_all_but_the_head_is_sent_in_bf16(tiny):
    found = sharded_step(tiny, precision="bf16")
    types = found["types"]
    assert types.pop("classifier") == "torch.float32"
    assert len(types) == 15
    assert {*types.values()} == {"torch.bfloat16"}
    assert max(found["apart"].values()) < 0.1
    assert found["apart"]["classifier.weight"] < 0.01


def test_in_fp16_gradients_are_unscaled_once_where_layers_are_frozen(tiny):
    found = sharded_step(tiny, precision="fp16", freeze=1)
    assert len(found["apart"]) == 18  # of the second layer and the head
    assert max(found["apart"].values()) < 0.05
    assert found["moved"].keys() == found["apart"].keys()
    assert found["moved"]["classifier.weight"] > 0


def test_a_step_that_overflows_on_one_process_is_left_out_on_all(tiny):
    found = sharded_step(tiny, precision="fp16", freeze=1, overflows=1)
    assert {*found["moved"].values()} == {0.0}
