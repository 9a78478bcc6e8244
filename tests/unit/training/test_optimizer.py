"""Which parameters decay, and how fast the head learns."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from finetune.config.schema import Optim
from finetune.training import optimizer


def test_decay_spares_biases_and_norms():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3), torch.nn.Linear(3, 2))
    model[0].weight.requires_grad_(False)
    groups = optimizer.build_optimizer(model, Optim(lr=0.1, weight_decay=0.01)).param_groups
    assert {group["weight_decay"]: len(group["params"]) for group in groups} == {0.01: 1, 0: 4}


@pytest.mark.parametrize(
    ("labels", "several", "named", "sgd", "adamw"),
    [(2, False, None, 1, 10), (8, False, None, 1, 10), (77, False, None, 77 / 8, 10),
     (77, True, None, 77 / 8, 10), (5, True, None, 1, 10), (77, False, 3, 3, 3)],
)  # fmt: skip
def test_how_fast_the_head_learns(labels, several, named, sgd, adamw):
    kind = "multi_label_classification" if several else "single_label_classification"
    config = BertConfig(
        vocab_size=9, hidden_size=4, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=4, num_labels=labels, problem_type=kind,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    for name, scale in (("sgd", sgd), ("adamw", adamw)):
        groups = optimizer.build_optimizer(
            model, Optim(name=name, lr=0.1, head_lr_scale=named)
        ).param_groups
        scales = {id(p): group["scale"] for group in groups for p in group["params"]}
        assert {scales[id(p)] for p in model.classifier.parameters()} == {scale}
        assert {scales[id(p)] for p in model.bert.encoder.parameters()} == {1}


def test_each_optimizer():
    model = torch.nn.Linear(2, 2)
    sgd = optimizer.build_optimizer(model, Optim(lr=0.1, momentum=0.5, nesterov=True))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.5, True)
    adamw = optimizer.build_optimizer(
        model, Optim(name="adamw", lr=0.1, betas=(0.8, 0.9), eps=1e-6, head_lr_scale=1)
    )
    assert isinstance(adamw, torch.optim.AdamW)
    assert (adamw.defaults["betas"], adamw.defaults["eps"]) == ((0.8, 0.9), 1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("skipped", [0, 1, 2])
def test_fused_momentum_begins_at_zero_where_fp16_skips_the_first_steps(
    monkeypatch, nesterov, skipped
):
    """The steps that count are those of SGD that knows of no scaler."""
    made = torch.empty_like
    monkeypatch.setattr(
        torch, "empty_like", lambda *of, **how: made(*of, **how).fill_(float("nan"))
    )
    weights = {}
    for fused in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        sgd = optimizer.build_optimizer(
            model, Optim(name="sgd", lr=0.1, momentum=0.9, nesterov=nesterov), fused
        )
        for step in range(4):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, step + 0.5)
            if fused:
                sgd.grad_scale, sgd.found_inf = torch.ones(1), torch.tensor([float(step < skipped)])
            if fused or step >= skipped:
                sgd.step()
        weights[fused] = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(weights[True], weights[False])
