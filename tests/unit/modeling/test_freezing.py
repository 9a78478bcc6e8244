"""Which weights a choice freezes, and how deep each one is."""

import pytest
from transformers import BertConfig

from finetune.config import schema
from finetune.modeling import build, freezing
from finetune.runtime.errors import InputError
from tests.support.tiny import LAYERS, tiny_encoder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return str(tiny_encoder(tmp_path_factory.mktemp("encoder")))


def built(source, freeze="none"):
    choices = schema.Model(source=source, freeze=freeze)
    return build.build_classifier(source, choices, ["a", "b"], "eager", seed=0)


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [
        ("none", {"embeddings", "0", "1", "classifier"}),
        ("embeddings", {"0", "1", "classifier"}),
        (1, {"1", "classifier"}),
        ("encoder", {"classifier"}),
    ],
)
def test_what_is_frozen(source, freeze, trained):
    parts = set()
    for name, parameter in built(source, freeze).named_parameters():
        if parameter.requires_grad:
            _, _, layer = name.partition("layer.")
            is_embedding = ".embeddings." in name
            parts.add("embeddings" if is_embedding else layer.split(".")[0] or "classifier")
    assert parts == trained


def test_depths_grow_from_the_head_to_the_embeddings(source):
    model = built(source)
    depths = freezing.parameter_depths(model)
    assert depths[model.classifier.weight] == 0
    layers = freezing.encoder_layers(model.encoder)
    assert [{depths[p] for p in layer.parameters()} for layer in layers] == [{2}, {1}]
    assert depths[model.get_input_embeddings().weight] == LAYERS + 1


def test_more_layers_than_the_encoder_has_are_refused_before_training():
    config = BertConfig(num_hidden_layers=2)
    recipe = schema.Recipe(data=schema.Data(source="x"), model=schema.Model(freeze=3))
    with pytest.raises(InputError, match=r"model.freeze: expected at most 2, .* got 3"):
        freezing.validate_freezing(recipe, config)
