"""The estimate counts every token that is read, and leaves no trace."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, PretrainedConfig

from finetune.compute.hardware_plan import Hardware
from finetune.compute.time_estimate import PlannedTraining, estimate_training
from finetune.tokenization.token_table import TokenTable
from tests.support.tiny import ARCHITECTURES, tiny_encoder

PLAN = Hardware("cpu", "a CPU", "fp32", "sdpa", 4096, 1, ())


def table():
    lengths = np.array([4, 8, 8, 16, 60])
    starts = np.concatenate([[0], lengths.cumsum()])
    return TokenTable(np.full(96, 7, np.int32), starts, lengths, 0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_document_counts_with_its_usual_length(tmp_path, architecture):
    config = AutoConfig.from_pretrained(tiny_encoder(tmp_path, architecture))
    parts = [PlannedTraining("encoder", 10), PlannedTraining("none", 40), PlannedTraining(1, 5)]
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    found = estimate_training(config, parts, table(), PLAN)
    assert torch.equal(before, torch.random.get_rng_state())
    assert found.tokens == round(10 * 19.2) + round(40 * 19.2) + round(5 * 19.2)
    assert found.timed_tokens == 8 + 16 + 60  # from the median on
    assert found.seconds > found.timed_seconds > 0
    shared = estimate_training(config, parts, table(), PLAN, processes=1000)
    assert shared.seconds < found.seconds / 10


def test_an_encoder_with_own_code_is_not_timed():
    class Own(PretrainedConfig):
        model_type = "own"

    assert estimate_training(Own(), [PlannedTraining("none", 1)], table(), PLAN) is None
