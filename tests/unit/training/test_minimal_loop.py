"""The loop of docs/textbook.md against the real one: the same rows, losses and weights."""

import copy

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from finetune.config import schema
from finetune.modeling import build, pretrained
from finetune.tokenization import encoding
from finetune.training import loop, schedule
from finetune.training import optimizer as optimizer_module
from finetune.training.row_losses import TrainingRows
from finetune.training.train_log import TrainLog
from scripts.studies import minimal_loop, one_step
from tests.support.pages import ROOT
from tests.support.tiny import WORDS, tiny_encoder

TEXTS = [
    " ".join(WORDS[(20 * (i % 3) + i * k) % 60] for k in range(1, 4 + i % 7)) for i in range(11)
]
LABELS = [i % 3 for i in range(len(TEXTS))]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(tiny_encoder(tmp_path_factory.mktemp("tiny")))


def recipe(head):
    return schema.Recipe(
        data=schema.Data(source="x"),
        model=schema.Model(head=head, freeze="none", head_init="normal"),
        train=schema.Train(
            epochs=minimal_loop.EPOCHS, batch_size=minimal_loop.BATCH_SIZE, log_every=1
        ),
        optim=schema.Optim(lr=minimal_loop.PEAK_LR, momentum=minimal_loop.MOMENTUM, warmup=0.0),
    )


def fit(model, tokenizer, of):
    """The package's loop on the same rows; its losses."""
    table = encoding.encode(TEXTS, tokenizer, 64)
    accelerator = Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(
        model, optimizer_module.build_optimizer(model, of.optim)
    )
    losses = []
    loop.fit(
        prepared,
        optimizer,
        TrainingRows(table, np.array(LABELS), micro_batch_tokens=10_000),
        schedule.Schedule.of(of, len(table)),
        of,
        accelerator,
        TrainLog(accelerator, of.optim.max_grad_norm),
        loop.Callbacks(log=lambda step, line: losses.append(line["loss"])),
    )
    return losses


@pytest.mark.parametrize("head", ["linear", "native"])
def test_it_gives_the_weights_of_fit(encoder, head, capsys):
    of = recipe(head)
    tokenizer = pretrained.load_tokenizer(encoder, of.model)
    theirs = build.build_classifier(encoder, of.model, ["a", "b", "c"], "eager", seed=0)
    ours, before = copy.deepcopy(theirs), copy.deepcopy(theirs).state_dict()
    losses = fit(theirs, tokenizer, of)
    capsys.readouterr()
    minimal_loop.train(ours, tokenizer, TEXTS, LABELS)
    printed = [float(line.split()[3]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 9
    assert printed == pytest.approx(losses, abs=1e-4)
    pairs = zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True)
    moved = 0
    for (name, one), other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-6, msg=name)
        moved += not torch.equal(one, before[name])
    assert moved > 20


def test_it_is_short_and_plain():
    lines = (ROOT / "scripts/studies/minimal_loop.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 50
    assert not any("finetune" in line for line in lines if "import" in line)


def test_one_step_changes_a_weight_as_it_says(encoder, monkeypatch, capsys):
    """The same arithmetic with a tiny encoder: the numbers that are printed fit each other."""
    threads = torch.get_num_threads()
    monkeypatch.setattr("sys.argv", ["one_step.py", encoder])
    one_step.main()
    torch.set_num_threads(threads)
    lines = {line[:28].strip(): line[29:] for line in capsys.readouterr().out.splitlines()}
    assert len(lines) == 12
    pairs = [lines[name].split() for name in ("logits", "probabilities (softmax)")]
    logits, probabilities = (np.array([float(word) for word in p[1::2]]) for p in pairs)
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(probabilities, expected, atol=2e-4)
    loss = float(lines["loss: −log p(business)"])
    assert loss == pytest.approx(-np.log(probabilities[0]), abs=5e-4)
    norm, clipped = (float(lines[f"gradient norm{end}"]) for end in ("", ", clipped"))
    assert clipped == pytest.approx(min(norm, one_step.MAX_NORM), abs=2e-4)
    before, gradient = (
        float(lines[name]) for name in ("one weight of the head", "its gradient, clipped")
    )
    after = float(lines["the weight after the step"].split("= ")[1])
    assert after == pytest.approx(before - one_step.RATE * gradient, abs=2e-6)
    assert float(lines["loss of the same text now"]) < loss
