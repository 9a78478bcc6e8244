"""transformers' question whether a batch has padding is replaced for a while, and only then."""

import pytest
import torch
from transformers import masking_utils

from finetune.compute import padding_masks

pytestmark = pytest.mark.skipif(
    not hasattr(masking_utils, padding_masks.QUESTION),
    reason="these transformers ask each mask otherwise",
)


def asked():
    return getattr(masking_utils, padding_masks.QUESTION)


def test_the_question_is_put_back():
    before = asked()
    with padding_masks.kept_padding_masks("cuda"):
        inside = asked()
        assert not inside(torch.ones(2, 3, dtype=torch.bool))
        with padding_masks.kept_padding_masks("cuda"):  # such as scoring within training
            assert asked() is inside
        assert asked() is inside
    assert asked() is before
    with pytest.raises(ValueError, match="stop"), padding_masks.kept_padding_masks("mps"):
        raise ValueError("stop")
    assert asked() is before
    with padding_masks.kept_padding_masks("cpu"):
        assert asked() is before
