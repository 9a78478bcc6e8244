"""The modelling file in the hands of those who train it with transformers' own `Trainer`."""

import pytest
import torch
from transformers import AutoTokenizer, Trainer, TrainerCallback, TrainingArguments

from finetune.config.schema import Model
from finetune.modeling import build
from tests.support.runs import reset_accelerate
from tests.support.tiny import tiny_encoder

LABELS = ("sport", "money", "tech")
TEXTS = (
    "the team won the cup",
    "the bank raised the rate",
    "software for a robot",
    "goal",
    "tax and debt of the firm this year",
    "a phone network",
    "the coach said the player will score",
    "stock price",
)


class Gradients(TrainerCallback):
    """Keeps the gradient of the first update."""

    def __init__(self):
        self.found = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        if not self.found:
            named = model.named_parameters()
            self.found = {n: p.grad.detach().clone() for n, p in named if p.grad is not None}


def gradient(source, folder, batch_size, accumulation, priors=None):
    """That of the first update of `Trainer`, of eight rows however they are dealt."""
    reset_accelerate()
    options = Model(source=str(source), head_init="normal", freeze="none", dropout=0.0)
    model = build.build_classifier(str(source), options, LABELS, "eager", seed=0, priors=priors)
    encoded = AutoTokenizer.from_pretrained(source)(
        list(TEXTS), padding="max_length", max_length=16
    )
    labels = [i % 3 if priors is None else [1.0, i % 2, i % 3 == 0] for i in range(len(TEXTS))]
    rows = [
        {key: torch.tensor(encoded[key][i]) for key in ("input_ids", "attention_mask")}
        | {"labels": torch.tensor(label)}
        for i, label in enumerate(labels)
    ]
    settings = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        max_grad_norm=0.0,
        optim="sgd",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        seed=0,
    )
    gradients = Gradients()
    Trainer(model, settings, train_dataset=rows, callbacks=[gradients]).train()
    reset_accelerate()
    return gradients.found


@pytest.mark.parametrize("priors", [None, [0.5, 0.5, 0.3]], ids=["one label", "several labels"])
@pytest.mark.parametrize(("batch_size", "accumulation"), [(2, 4), (4, 2), (1, 8)])
def test_accumulated_batches_give_the_gradient_of_one(tmp_path, priors, batch_size, accumulation):
    source = tiny_encoder(tmp_path / "encoder")
    whole = gradient(source, tmp_path / "out", 8, 1, priors)
    parts = gradient(source, tmp_path / "out", batch_size, accumulation, priors)
    assert len(whole) == len(parts) > 10
    for name, expected in whole.items():
        torch.testing.assert_close(parts[name], expected, rtol=1e-4, atol=1e-6)
