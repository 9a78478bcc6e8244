"""Where the head is, what it reads and what it starts with."""

import pytest
import torch
from torch import nn

from finetune.config import schema
from finetune.modeling import build, head
from tests.support.tiny import HIDDEN, tiny_encoder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return str(tiny_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture
def model(source):
    choices = schema.Model(source=source, freeze="none")
    return build.build_classifier(source, choices, ["a", "b", "c"], "eager", seed=0)


def test_it_is_the_last_linear_layer_with_a_logit_for_each_label(model):
    assert head.head_name(model) == "classifier"
    assert head.find_head(model) is model.classifier


def test_what_it_reads_is_recorded_as_long_as_asked(model):
    ids = torch.ones(2, 4, dtype=torch.long)
    with head.record_inputs(model.classifier) as inputs:
        model(input_ids=ids)
    model(input_ids=ids)
    assert [tuple(given.shape) for given in inputs] == [(2, HIDDEN)]


def test_zeros_or_weights_by_a_seed():
    layer, other = nn.Linear(200, 3), nn.Linear(200, 3)
    head.initialize_head(layer, "normal", seed=1)
    head.initialize_head(other, "normal", seed=1)
    assert torch.equal(layer.weight, other.weight)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not layer.bias.any()
    head.initialize_head(layer, "zeros", seed=1)
    assert not layer.weight.any()


def test_priors_are_what_the_bias_alone_predicts():
    layer = nn.Linear(4, 2)
    head.initialize_at_priors(layer, [0.25, 0.5])
    torch.testing.assert_close(layer.bias.sigmoid().detach(), torch.tensor([0.25, 0.5]))
