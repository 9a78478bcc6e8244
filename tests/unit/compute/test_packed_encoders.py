"""Which encoders' layers are computed by hand, and what of their classes that takes."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from finetune.compute import packed_encoders

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("kind", "settings", "why_not"),
    [
        ("bert", {}, None),
        ("distilbert", {}, None),
        ("mpnet", {}, None),
        ("bert", {"hidden_act": "relu"}, "the encoder's activation is relu"),
        ("distilbert", {"activation": "relu"}, "the encoder's activation is relu"),
        ("bert", {"is_decoder": True}, "the layers of bert are not BERT's"),
        ("albert", {}, "the layers of albert are not BERT's"),
        ("bert", {"max_position_embeddings": 500}, "its 500 positions are no multiple of 32"),
        ("mpnet", {"max_position_embeddings": 514}, None),
    ],
)
def test_who_has_packed_layers(kind, settings, why_not):
    config = AutoConfig.for_model(kind, **settings)
    assert packed_encoders.why_no_packed_layers(config) == why_not


def test_a_shorter_row_s_bias_is_the_start_of_a_longer_one_s():
    """So one bias, of the longest row, serves all groups."""
    encoder = AutoModel.from_config(AutoConfig.for_model("mpnet", **SIZES, vocab_size=50))
    long, short = (packed_encoders.position_bias(encoder, n) for n in (300, 40))
    assert long.shape == (2, 300, 300)
    assert torch.equal(long[:, :40, :40], short)
    bert = AutoModel.from_config(AutoConfig.for_model("bert", **SIZES, vocab_size=50))
    assert packed_encoders.position_bias(bert, 40) is None
