"""model.keep_layers: which layers stay, and that what is left is a whole model of its class."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AlbertConfig,
    AutoConfig,
    AutoModel,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    FunnelConfig,
    LongformerConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
)

from finetune.config.schema import Model
from finetune.modeling import layer_selection
from finetune.modeling.freezing import encoder_layers
from finetune.runtime.errors import InputError

SMALL = {"vocab_size": 60, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
LAYERS = {"num_hidden_layers": 6}
CLASSES = {
    "bert": lambda: BertConfig(**SMALL, **LAYERS),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=60, dim=16, n_heads=2, hidden_dim=24, n_layers=6
    ),
    "roberta": lambda: RobertaConfig(**SMALL, **LAYERS),
    "mpnet": lambda: MPNetConfig(**SMALL, **LAYERS),
    "deberta-v2": lambda: DebertaV2Config(
        **SMALL, **LAYERS, relative_attention=True, pos_att_type=["p2c", "c2p"]
    ),
    "modernbert": lambda: ModernBertConfig(**SMALL, **LAYERS, pad_token_id=0),
    "longformer": lambda: LongformerConfig(**SMALL, **LAYERS, attention_window=[4, 8, 4, 8, 6, 4]),
}


def encoder(config):
    torch.manual_seed(0)
    return AutoModel.from_config(config).eval()


@given(count=st.integers(1, 48), kept=st.integers(1, 48))
def test_a_number_of_layers_is_spread_from_the_first_to_the_last(count, kept):
    config = BertConfig(num_hidden_layers=count)
    if kept > count:
        with pytest.raises(InputError, match=f"at most {count}, .* got {kept}"):
            layer_selection.resolve_layers(kept, config)
        return
    layers = layer_selection.resolve_layers(kept, config)
    assert len(layers) == kept
    assert layers[0] == 0
    assert kept == 1 or layers[-1] == count - 1
    assert layers == sorted(set(layers))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("choice", [3, (0, 1, 3)])
def test_what_is_left_is_as_it_is_saved_and_loaded(tmp_path, name, choice):
    model = encoder(CLASSES[name]())
    before = [*encoder_layers(model)]
    keep = layer_selection.resolve_layers(choice, model.config)
    if name == "modernbert" and keep == [0, 2, 5]:  # every third layer looks at all tokens
        if hasattr(model.config, "layer_types"):
            layer_selection.cut_layers(model, keep)
        else:
            with pytest.raises(InputError, match="their kind follows from their place"):
                layer_selection.cut_layers(model, keep)
            return
    else:
        layer_selection.cut_layers(model, keep)
    assert [*encoder_layers(model)] == [before[layer] for layer in keep]
    assert model.config.num_hidden_layers == len(keep)
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    ids = torch.arange(200)[None] % 60
    with torch.no_grad():
        states, others = model(ids)[0], again(ids)[0]
    torch.testing.assert_close(states, others, atol=1e-5, rtol=0)


def test_shared_layers_and_layers_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="layers of albert share their weights"):
        layer_selection.resolve_layers(1, AlbertConfig())
    blocks = FunnelConfig(block_sizes=[2, 2, 2])
    with pytest.raises(InputError, match=r"funnel .* its config takes no other number of them"):
        layer_selection.resolve_layers(3, blocks)
    assert blocks.block_sizes == [2, 2, 2]
    with pytest.raises(InputError, match="expected layers 0 to 5 of bert, got 6, 9"):
        layer_selection.resolve_layers((0, 6, 9), CLASSES["bert"]())


@pytest.mark.parametrize("named", [[2, 0], [1, 1], [], [-1], 0])
def test_layers_are_named_once_and_in_order(named):
    with pytest.raises(ValueError, match="keep_layers"):
        Model(keep_layers=named)


def test_the_config_alone_is_cut_alike():
    """What plans a run before its weights are read sees the encoder that it will have."""
    config = AutoConfig.for_model("bert", num_hidden_layers=6)
    layer_selection.cut_config(config, [0, 3])
    assert config.num_hidden_layers == 2


def test_a_list_with_an_entry_for_each_layer_is_cut_with_them():
    config = CLASSES["longformer"]()
    config.layer_norms = [1, 2]
    layer_selection.cut_config(config, [0, 3, 4])
    assert (config.attention_window, config.layer_norms) == ([4, 8, 6], [1, 2])


def test_a_class_that_takes_no_such_config_is_refused(monkeypatch):
    model = encoder(CLASSES["longformer"]())
    monkeypatch.setattr(layer_selection, "PER_LAYER", ())
    with pytest.raises(InputError, match="or nothing, as where their kind follows"):
        layer_selection.cut_layers(model, [0, 3])
