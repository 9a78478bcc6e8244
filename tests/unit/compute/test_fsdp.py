"""When weights are sharded, and what is put together at once."""

from types import SimpleNamespace

import pytest
from accelerate import DistributedType
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import AutoModel

from finetune.compute import fsdp
from tests.support.tiny import tiny_encoder


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("1", True), ("false", False)])
def test_the_launcher_s_configuration_asks_for_it(monkeypatch, value, expected):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", value)
    assert fsdp.is_asked_for() is expected


def test_a_run_that_does_not_ask_is_left_alone(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    accelerator = SimpleNamespace(distributed_type=DistributedType.MULTI_CPU)
    fsdp.configure_fsdp(accelerator)  # would set accelerator.state, which is not there


def test_each_layer_is_a_unit_and_weights_stay_fp32(tmp_path):
    plugin = SimpleNamespace(transformer_cls_names_to_wrap=None, mixed_precision_policy=None)
    accelerator = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin))
    encoder = AutoModel.from_pretrained(tiny_encoder(tmp_path))
    fsdp.shard_model(accelerator, encoder)
    assert plugin.transformer_cls_names_to_wrap == ["BertLayer"]
    assert plugin.mixed_precision_policy == MixedPrecisionPolicy()
