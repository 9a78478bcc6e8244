"""Scores come back in the split's order, whatever the batches."""

import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from finetune.config import schema
from finetune.evaluation import metrics, scoring
from finetune.modeling import build, pretrained
from finetune.tokenization import encoding
from tests.support.tiny import tiny_encoder

TEXTS = [" ".join(["one two three"] * n) for n in (3, 1, 7, 2, 5, 1)]
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def scored(tmp_path):
    """A classifier with a random head, prepared, and its token table."""
    source = str(tiny_encoder(tmp_path))
    choices = schema.Model(freeze="embeddings", head_init="normal")
    table = encoding.encode(TEXTS, pretrained.load_tokenizer(source, choices), 64)
    classifier = build.build_classifier(source, choices, ["a", "b", "c"], "sdpa", seed=0)
    accelerator = Accelerator(cpu=True)
    return accelerator.prepare(classifier), table, accelerator


def test_logits_in_order_for_any_budget(scored):
    classifier, table, accelerator = scored
    alone = torch.cat(
        [
            classifier(**table.batch(np.array([i]), torch.device("cpu"))).logits.detach()
            for i in range(len(table))
        ]
    )
    for budget in (1, 30, 60, 10_000):
        logits = scoring.compute_logits(classifier, table, accelerator, budget)
        assert logits.shape == (6, 3)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, alone.numpy(), atol=1e-6)


def test_loss_is_the_mean_cross_entropy_with_its_error(scored):
    classifier, table, accelerator = scored
    wanted = metrics.load_metrics(["accuracy", "log_loss"], "accuracy", False)
    scores = scoring.score(classifier, table, LABELS, wanted, accelerator, 64)
    losses = torch.nn.functional.cross_entropy(
        torch.from_numpy(scores.logits).double(), torch.from_numpy(LABELS), reduction="none"
    )
    assert scores.values["loss"] == pytest.approx(losses.mean().item())
    assert scores.values["log_loss"] == pytest.approx(losses.mean().item())
    assert scores.values["loss_se"] == pytest.approx(losses.std().item() / math.sqrt(6))
    assert scores.values["accuracy"] == (scores.logits.argmax(axis=1) == LABELS).mean()


def test_scoring_leaves_the_mode_as_it_was(scored):
    classifier, table, accelerator = scored
    for training in (True, False):
        classifier.train(training)
        scoring.compute_logits(classifier, table, accelerator, 64)
        assert classifier.training is training


def test_a_split_without_labels_is_only_predicted(scored):
    classifier, table, accelerator = scored
    scores = scoring.score(classifier, table, None, [], accelerator, 64)
    assert scores.values == {}
    assert scores.logits.shape == (6, 3)
