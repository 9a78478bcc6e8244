"""The loop against the textbook: plain padded batches, the mean loss, one optimizer."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from accelerate import Accelerator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.config import schema
from finetune.modeling import build as build_module
from finetune.modeling import pretrained
from finetune.tokenization import encoding
from finetune.training import loop, sampling, schedule
from finetune.training import optimizer as optimizer_module
from finetune.training.row_losses import TrainingRows
from finetune.training.train_log import DivergedError, TrainLog
from tests.support.tiny import tiny_encoder

TEXTS = [
    " ".join(["the good film", "a bad book", "one long story of the small dog"][i % 3].split() * n)
    for i, n in enumerate([1, 3, 2, 5, 1, 1, 4, 2, 1, 6, 2])
]
LABELS = np.array([i % 3 for i in range(len(TEXTS))])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(tiny_encoder(tmp_path_factory.mktemp("tiny")))


def choices(**sections):
    made = {
        "data": schema.Data(source="x"),
        "model": schema.Model(freeze="embeddings"),
        "optim": schema.Optim(**{"lr": 0.1} | sections.get("optim", {})),
        "train": schema.Train(
            **{"epochs": 2, "batch_size": 4, "log_every": 1} | sections.get("train", {})
        ),
    }
    return schema.Recipe(**made)


def build(encoder, of):
    tokenizer = pretrained.load_tokenizer(encoder, of.model)
    table = encoding.encode(TEXTS, tokenizer, 64)
    return build_module.build_classifier(encoder, of.model, ["a", "b", "c"], "sdpa", seed=0), table


def train(encoder, of, micro_batch_tokens, until=None):
    """Run the loop, to the end or a step; return the model, its log, record, evaluations."""
    classifier, table = build(encoder, of)
    accelerator = Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(
        classifier, optimizer_module.build_optimizer(classifier, of.optim)
    )
    log, evaluated = [], []
    record = TrainLog(accelerator, of.optim.max_grad_norm)
    loop.fit(
        prepared,
        optimizer,
        TrainingRows(table, LABELS, micro_batch_tokens),
        schedule.Schedule.of(of, len(table)),
        of,
        accelerator,
        record,
        loop.Callbacks(
            log=lambda step, line: log.append({"step": step} | line),
            validate=evaluated.append,
            after_step=lambda step, scored: step == until,
        ),
    )
    return classifier, log, record, evaluated


def textbook(encoder, of):
    """The same run as a textbook writes it: each batch padded whole, its mean loss."""
    classifier, table = build(encoder, of)
    classifier.train()
    parameters = [p for p in classifier.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    per_epoch = math.ceil(len(TEXTS) / of.train.batch_size)
    losses = []
    for step in range(of.train.epochs * per_epoch):
        order = sampling.epoch_order(len(TEXTS), of.run.seed, step // per_epoch)
        rows = sampling.step_rows(order, of.train.batch_size, step % per_epoch)
        logits = classifier(**table.batch(rows, torch.device("cpu"))).logits
        loss = F.cross_entropy(logits, torch.from_numpy(LABELS[rows]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate(
                step, of.train.epochs * per_epoch, per_epoch, of.optim
            )
        optimizer.step()
        losses.append(loss.item())
    return classifier, losses


def distance(one, other):
    """The largest difference of two models' weights, relative to the largest weight."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-3)) for a, b in pairs)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(micro_batch_tokens=st.integers(1, 400), batch_size=st.integers(1, 12))
def test_micro_batches_change_nothing(encoder, micro_batch_tokens, batch_size):
    """Whatever the micro-batches and a short last step: the textbook's weights and losses."""
    of = choices(train={"batch_size": batch_size, "epochs": 1})
    ours, log, _, _ = train(encoder, of, micro_batch_tokens)
    theirs, losses = textbook(encoder, of)
    assert [line["loss"] for line in log] == pytest.approx(losses, rel=1e-5)
    assert distance(ours, theirs) < 1e-5


RECORDED = [1.098612, 1.101497, 1.04906, 0.841685, 0.752798, 1.696005]


def test_recorded_losses(encoder):
    """A change that should not move numbers leaves these as they are."""
    _, log, record, evaluated = train(encoder, choices(), 64)
    assert [line["loss"] for line in log] == pytest.approx(RECORDED, abs=2e-5)
    assert [line["lr"] for line in log] == pytest.approx([0.05, 0.1, 0.08, 0.06, 0.04, 0.02])
    assert evaluated == [3, 6]
    assert (record.steps, record.rows) == (6, 22)
    assert record.tokens == 2 * build(encoder, choices())[1].lengths.sum()


def test_the_same_recipe_twice_gives_the_same_weights(encoder):
    of = choices().model_copy(update={"model": schema.Model(freeze="none", dropout=0.3)})
    models = []
    for _ in range(2):
        torch.manual_seed(7)
        models.append(train(encoder, of, 64)[0])
    assert distance(*models) == 0


def test_rates_by_layer_and_clipping(encoder):
    """One step of plain descent by hand: the whole gradient clipped, each layer at its own rate."""
    scaled = {"head_lr_scale": 5.0, "layer_decay": 0.5, "max_grad_norm": 0.02}
    of = choices(optim={"momentum": 0.0, "warmup": 0.0, **scaled}, train={"max_steps": 1})
    of = of.model_copy(update={"model": schema.Model(freeze="none", head_init="normal")})
    before, table = build(encoder, of)
    before.train()
    rows = sampling.step_rows(sampling.epoch_order(len(TEXTS), 0, 0), 4, 0)
    logits = before(**table.batch(rows, torch.device("cpu"))).logits
    F.cross_entropy(logits, torch.from_numpy(LABELS[rows])).backward()
    trained = {n: p for n, p in before.named_parameters() if p.grad is not None}
    norm = float(torch.stack([p.grad.norm() for p in trained.values()]).norm())
    assert norm > 0.02  # else nothing would be clipped
    model, [line], record, _ = train(encoder, of, 10**6)
    assert line["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert (line["clipped"], record.clipped) == (1.0, 1)
    scales = {"classifier": 5.0, "layer.1": 1.0, "layer.0": 0.5, "embeddings": 0.25}
    seen, after = 0, model.state_dict()
    for block, scale in scales.items():
        part = {n: p for n, p in trained.items() if block in n}
        for name, p in part.items():
            expected = p - 0.1 * scale * p.grad * 0.02 / (norm + 1e-6)
            torch.testing.assert_close(after[name], expected, rtol=1e-5, atol=1e-7)
        seen += len(part)
    assert seen == len(trained)


def test_the_log_counts_what_is_clipped(encoder):
    of = choices(optim={"max_grad_norm": 0.9, "lr": 0.001}, train={"epochs": 4})
    _, log, record, _ = train(encoder, of, 10**6)
    norms = [line["grad_norm"] for line in log]
    assert min(norms) < 0.9 < max(norms)
    assert record.clipped == sum(norm > 0.9 for norm in norms)


def test_evaluations_and_log_lines(encoder):
    of = choices(train={"max_steps": 5, "log_every": 2})
    of = of.model_copy(update={"score": schema.Score(every=2)})
    _, log, record, evaluated = train(encoder, of, 64)
    assert evaluated == [2, 4, 5]
    assert [line["step"] for line in log] == [1, 2, 5]
    assert record.steps == 5


def test_frozen_weights_stay(encoder):
    before, _ = build(encoder, choices())
    after = train(encoder, choices(), 64)[0]
    changed = {
        name
        for name, value in after.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    }
    assert not any("embeddings" in name for name in changed)
    assert any("layer.0" in name for name in changed)
    assert "classifier.weight" in changed


def test_a_gradient_that_is_not_finite_stops_at_its_step(encoder):
    of = choices(optim={"max_grad_norm": None, "momentum": 0.0})
    of = of.model_copy(update={"optim": of.optim.model_copy(update={"lr": 1e30})})
    with pytest.raises(DivergedError) as caught:
        train(encoder, of, 64)
    assert str(caught.value).startswith("step 2: the loss or its gradient's norm is not finite")


def test_label_smoothing_spreads_the_target(encoder):
    """With a head of zeros every class is equally likely, so the smoothed loss is the same."""
    _, log, _, _ = train(encoder, choices(train={"label_smoothing": 0.5}), 64)
    assert log[0]["loss"] == pytest.approx(math.log(3))


class Scaler:
    """An fp16 scaler that is on: a step that overflows is skipped."""

    scale = 65536.0

    def is_enabled(self):
        return True

    def get_scale(self):
        return self.scale


def test_steps_that_fp16_skips_are_counted_and_a_lost_run_stops():
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = Scaler()
    record = TrainLog(accelerator, max_norm=1.0)
    for norm in (math.inf, 2.0, 0.5):
        record.add(torch.tensor([1.0, 2.0]))
        record.end_step(torch.tensor(norm), rows=2, tokens=4)
    line = record.line()
    assert (line["skipped"], line["grad_norm"], line["clipped"]) == (1, 1.25, 0.5)
    record.add(torch.tensor([1.0, 2.0]))
    record.end_step(torch.tensor(math.inf), rows=2, tokens=4)
    line = record.line()  # as at the first step, whose scale is too high as a rule
    assert line["skipped"] == 1
    assert not {"grad_norm", "clipped"} & line.keys()
    record.add(torch.tensor([1.0, 2.0]))
    record.end_step(torch.tensor(math.nan), rows=2, tokens=4)
    accelerator.scaler.scale = 0.5  # lowered until nothing is left to gain
    with pytest.raises(DivergedError):
        record.line()
    accelerator.scaler = None


def test_the_record_says_how_sure_a_mean_loss_is():
    accelerator = Accelerator(cpu=True)
    record = TrainLog(accelerator, max_norm=1.0)
    draws = torch.tensor([0.5, 1.5, 2.0, 0.1])
    record.add(draws[:3])
    record.add(draws[3:])
    record.end_step(torch.tensor(2.0), rows=4, tokens=10)
    line = record.line()
    assert line["loss"] == pytest.approx(draws.mean().item())
    assert line["loss_se"] == pytest.approx(draws.std().item() / 2)
    assert (line["grad_norm"], line["clipped"]) == (2.0, 1.0)
