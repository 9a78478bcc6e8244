"""What frozen layers make of the rows is computed once, and nothing else changes."""

import os
import shutil

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from transformers import AutoTokenizer

from finetune.compute import frozen_cache, frozen_prefix, hardware_plan
from finetune.config import schema
from finetune.modeling import build, freezing
from finetune.tokenization import encoding
from tests.support.runs import assert_same, finish, lines, results, run_here, stopped_at
from tests.support.tiny import ARCHITECTURES, WORDS, tiny_encoder

TEXTS = [" ".join(WORDS[i : i + 1 + 3 * i]) for i in range(9)]


@pytest.mark.parametrize("freeze", [1, "encoder"])
@pytest.mark.parametrize("head", ["linear", "native"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_same_logits_and_gradients(tmp_path, architecture, head, freeze):
    source = str(tiny_encoder(tmp_path / "encoder", architecture))
    choices = schema.Recipe(
        data=schema.Data(source="unused"),
        model=schema.Model(
            source=source, head=head, freeze=freeze, dropout=0.0, head_init="normal"
        ),
        train=schema.Train(precision="fp32", micro_batch_tokens=64),
        cache=schema.Cache(dir=str(tmp_path / "cache")),
    )
    plan = hardware_plan.plan_hardware(choices.model, choices.train)
    net = build.build_classifier(source, choices.model, ["a", "b", "c"], "eager", seed=0)
    table = encoding.encode(TEXTS, AutoTokenizer.from_pretrained(source), 32)
    rows = np.array([7, 0, 3, 8])
    cpu = torch.device("cpu")
    plain = gradients(net, table.batch(rows, cpu))
    skipping = frozen_prefix.attach_frozen_prefix(net, choices, epochs=2)
    if architecture == "deberta-v2" and freeze == 1:
        assert skipping is None  # its layers share a table that goes on being trained
        return
    assert skipping is not None
    accelerator = Accelerator(cpu=True)
    filled = frozen_cache.fill_cache(skipping, net, {"train": table}, choices, plan, accelerator)[
        "train"
    ]
    for block in freezing.encoder_layers(net.base_model)[: skipping.boundary]:
        block.register_forward_pre_hook(ran)
    skipped = gradients(net, filled.batch(rows, cpu))
    assert plain.keys() == skipped.keys()
    for name, value in plain.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(skipped[name], value, rtol=0, atol=1e-5 * max(scale, 0.1))
    kept = sum(file.stat().st_size for file in (tmp_path / "cache").iterdir())
    pooled = freeze == "encoder" and head == "linear"
    assert kept == 4 * 32 * (len(TEXTS) if pooled else len(table.ids))


def ran(module, given):
    """A frozen layer is called, but its weights are left alone: it has none to multiply with."""
    for parameter in module.parameters():
        parameter.data = torch.full_like(parameter.data, torch.nan)


def gradients(net, inputs):
    """The logits, and the gradient of each trained weight, for a loss of all of them."""
    net.zero_grad()
    logits = net(**inputs).logits
    logits.square().sum().backward()
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    return found | {"logits": logits.detach()}


@pytest.mark.parametrize("why", ["dropout", "nothing frozen", "one epoch", "off"])
def test_where_there_is_nothing_to_keep(tmp_path, why):
    source = str(tiny_encoder(tmp_path / "encoder"))
    choices = schema.Recipe(
        data=schema.Data(source="unused"),
        model=schema.Model(
            source=source,
            freeze="embeddings" if why == "nothing frozen" else 1,
            dropout=0.1 if why == "dropout" else 0.0,
        ),
        cache=schema.Cache(frozen_states="off" if why == "off" else "auto"),
    )
    net = build.build_classifier(source, choices.model, ["a", "b"], "eager", seed=0)
    assert (
        frozen_prefix.attach_frozen_prefix(net, choices, epochs=1 if why == "one epoch" else 3)
        is None
    )


@pytest.fixture(scope="session")
def plain(documents, shared):
    """The run without kept states."""
    words = "run.dir=plain", "model.dropout=0", "model.freeze=1", "cache.frozen_states=off"
    return shared("documents/plain", lambda folder: finish(folder.parent, *words))


def words(folder="cache"):
    return ["model.dropout=0", "model.freeze=1", f"cache.dir={folder}"]


def kept(here, folder="cache"):
    return sorted(file.name for file in (here / folder).iterdir())


def assert_close(one, other):
    ones, others = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    assert ones.keys() == others.keys()
    for name, value in ones.items():
        scale = value.abs().max().clamp(min=1e-3)
        assert (others[name] - value).abs().max() <= 1e-5 * scale, name


def test_a_run_with_kept_states(here, plain, capsys):
    run_here(*words(), "run.dir=first")
    assert "frozen states of train: computing" in capsys.readouterr().out
    assert_close(plain, here / "first")
    files = kept(here)
    assert len(files) == 2  # train and validation
    run_here(*words(), "run.dir=second")
    assert "frozen states of train: found" in capsys.readouterr().out
    assert (
        results(here / "first")["hashes"]["weights"]
        == (results(here / "second")["hashes"]["weights"])
    )
    assert kept(here) == files
    # A changed text, or a shorter limit, finds nothing of it.
    shutil.copytree(here / "data", here / "other")
    file = here / "other" / "train.jsonl"
    file.write_text(file.read_text().replace("train 3 ", "train three ", 1))
    run_here(*words(), "run.dir=third", "data.source=other")
    assert len(kept(here)) == 3
    run_here(*words(), "run.dir=fourth", "data.max_length=16")
    assert len(kept(here)) == 5


def test_states_that_are_not_to_be_kept(here, plain):
    run_here(*words("gone"), "run.dir=run", "cache.keep=false")
    assert kept(here, "gone") == []
    assert_close(plain, here / "run")


def test_two_processes(here, plain):
    finish(here, *words("by-two"), "run.dir=run", processes=2)
    assert len(kept(here, "by-two")) == 2
    assert_close(plain, here / "run")
    finish(here, *words("encoder"), "run.dir=head", "model.freeze=encoder", processes=2)
    run_here("run.dir=one", "model.dropout=0", "model.freeze=encoder", "cache.frozen_states=off")
    assert_close(here / "one", here / "head")


def test_another_run_at_the_same_states(here, plain, monkeypatch):
    """Two trials, each in a process of its own: neither writes into what the other writes."""
    states, others = frozen_prefix.FrozenPrefix.states, []

    def while_another_runs(self, *given):
        if not others:
            others.append(1)
            finish(here, *words(), "run.dir=other")
        return states(self, *given)

    (here / "cache").mkdir()
    old, young = (here / f"cache/.prefix-{name}.new" for name in ("old", "young"))
    old.write_bytes(b"of a run that was killed")
    os.utime(old, (0, 0))
    young.write_bytes(b"of a run that goes on")
    monkeypatch.setattr(frozen_prefix.FrozenPrefix, "states", while_another_runs)
    run_here(*words(), "run.dir=one")
    assert_close(plain, here / "one")
    assert_close(plain, here / "other")
    assert len(kept(here)) == 3
    assert not old.exists()
    assert young.exists()


def test_resuming_without_the_kept_states(here):
    """They are computed anew, to the same bits."""
    run_here(*words(), "run.dir=whole", "checkpoint.keep=99")
    folder = stopped_at(here / "whole", here / "run", 8)
    shutil.rmtree(here / "cache")
    run_here(*words(), "run.resume=run", "checkpoint.keep=99")
    assert_same(here / "whole", folder)


def test_a_kept_file_that_is_cut_short_is_made_anew(here, plain):
    run_here(*words(), "run.dir=first")
    for name in kept(here):
        file = here / "cache" / name
        file.write_bytes(file.read_bytes()[:-8])
    run_here(*words(), "run.dir=second")
    assert lines(here / "first") == lines(here / "second")
