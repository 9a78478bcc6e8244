"""`finetune adapt`: the loss falls, a stop changes nothing, and its folder is an encoder."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from finetune.adaptation import outputs, perplexity, pretraining, session
from finetune.cli import adapt, main
from finetune.runtime.errors import StoppedError
from tests.support import forks
from tests.support.runs import in_step, reset_accelerate, run_here

ASKED = ("encoder", "data/train.jsonl", "data/test.jsonl", "--max-length", "16", "--threads", "1",
         "--batch-size", "8", "--precision", "fp32", "--steps", "12", "--lr", "0.003")  # fmt: skip
SAVED = "model.safetensors"


def run(*words, code=0):
    reset_accelerate()
    assert main.main(["adapt", *words]) == code


def scores(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(one["step"], one["loss"]) for one in map(json.loads, lines) if "perplexity" in one]


@pytest.fixture(scope="module")
def whole(documents, shared):
    """An encoder that was adapted without a stop."""

    def make(folder):
        before = Path.cwd()
        os.chdir(documents)
        try:
            run(*ASKED, "--output", str(folder))
        finally:
            os.chdir(before)

    return shared("documents/adapted", make)


def test_perplexity_falls_and_the_folder_is_an_encoder(whole, here, capsys):
    report = json.loads((whole / outputs.REPORT).read_text())
    assert report["perplexity"]["after"] < report["perplexity"]["before"]
    assert [step for step, _ in scores(whole)] == [0, 3, 6, 9, 12]
    assert report["rows"]["documents"] + report["rows"]["held_out_documents"] == 110
    assert report["train"]["steps"] == 12
    assert {file.name for file in whole.iterdir()} == {
        "README.md", "adaptation.json", "config.json", "metrics.jsonl", SAVED,
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    card = (whole / outputs.CARD).read_text()
    assert f"| 12 | {report['perplexity']['after']:,.2f} |" in card
    assert "finetune adapt encoder data/train.jsonl data/test.jsonl --output" in card
    one, other = (
        AutoModel.from_pretrained(place).state_dict() for place in (whole, here / "encoder")
    )
    assert one.keys() == other.keys()
    assert torch.equal(one["pooler.dense.weight"], other["pooler.dense.weight"])
    name = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(one[name], other[name])
    # A recipe names it, and so does another `adapt`, which finds its head.
    run_here(f"model.source={whole}", "run.dir=run", "train.max_steps=2")
    words = [str(whole), *ASKED[1:], "--output", "again"]
    run(*words)
    assert "without a language model's head" not in capsys.readouterr().out
    assert scores(Path("again"))[0][1] == pytest.approx(scores(whole)[-1][1], abs=1e-5)


def test_a_stop_changes_nothing(whole, here, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        in_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run(*ASKED, "--output", "out", code=75)
    assert "to go on, run the same with --resume" in capsys.readouterr().err
    run(*ASKED, "--output", "out", code=2)
    said = capsys.readouterr().err
    assert said == (
        "error: --output: out is not empty; choose another folder, or add --resume to go on with "
        "what was stopped there\n"
    )
    run(*ASKED, "--mask-fraction", "0.3", "--output", "out", "--resume", code=2)
    assert "error: --resume: --mask-fraction is 0.3, and was 0.15" in capsys.readouterr().err
    # Killed without a word, some steps after the newest checkpoint.
    with monkeypatch.context() as patch:
        in_step(patch, 9, lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(*ASKED, "--output", "out", "--resume")
    run(*ASKED, "--output", "out", "--resume")
    ones, others = (load_file(folder / SAVED) for folder in (whole, Path("out")))
    assert ones.keys() == others.keys()
    assert [name for name in ones if not torch.equal(ones[name], others[name])] == []
    assert scores(Path("out")) == scores(whole)
    run(*ASKED, "--output", "out", "--resume")
    assert capsys.readouterr().out.endswith("out is finished already\n")


def test_a_stop_before_the_first_step(here, monkeypatch, capsys):
    def stopped(*_):
        raise StoppedError("stopped by SIGTERM")

    with monkeypatch.context() as patch:
        patch.setattr(session.Session, "start", stopped)
        run(*ASKED, "--output", "early", code=75)
    assert "to go on, run the same with --resume" in capsys.readouterr().err
    run(*ASKED, "--output", "early", code=2)
    assert "or add --resume to go on with what was stopped" in capsys.readouterr().err
    run(*ASKED, "--output", "early", "--resume")
    assert outputs.is_finished(Path("early"))


def test_two_processes_do_the_same(whole, here):
    ranks = forks.start_ranks(2, "finetune.cli.main", "adapt", *ASKED, "--output", "two", cwd=here)
    said = ranks.communicate(timeout=200)[0]
    assert ranks.returncode == 0, said
    report = json.loads((here / "two" / outputs.REPORT).read_text())
    assert report["processes"] == 2
    ones, others = (load_file(folder / SAVED) for folder in (whole, here / "two"))
    for name, value in ones.items():
        if not name.endswith("key.bias"):  # whose gradient is rounding, as softmax ignores it
            assert torch.allclose(value, others[name], atol=1e-3), name
    for one, other in zip(scores(whole), scores(here / "two"), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_minutes_decide_the_steps_once(here, capsys, monkeypatch):
    length = ASKED.index("--steps")
    words = [*ASKED[:length], *ASKED[length + 2 :], "--minutes", "0.2", "--output", "out"]
    monkeypatch.setattr("finetune.training.time_budget.LEAST_SECONDS", 0.1)
    monkeypatch.setattr("finetune.training.time_budget.SHARE", 0.0)
    monkeypatch.setattr("finetune.training.time_budget.MOST_EPOCHS", 1)
    run(*words)
    assert "; more passes over the documents would repeat what has been learnt" in " ".join(
        capsys.readouterr().out.split()
    )
    assert json.loads((here / "out" / outputs.REPORT).read_text())["train"]["steps"] == 45


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["encoder", "none.csv", "--output", "new"], "DOCUMENTS: "),
        (["none", "data/train.jsonl", "--output", "new"], "ENCODER: "),
        (["static:encoder", "data/train.jsonl", "--output", "new"],
         "ENCODER: expected an encoder with layers, got 'static:encoder'"),
        (["encoder", "data/train.jsonl", "--output", "data"], "--output: data is not empty"),
        (["encoder", "data/train.jsonl", "--output", "new", "--resume"], "--resume: new holds"),
        (["encoder", "data/train.jsonl", "--output", "new", "--text", "body"], "body"),
        (["encoder", "data/train.jsonl", "--output", "new", "--seed", "-1"], "--seed: expected"),
        (["encoder", "data/train.jsonl", "--output", "new", "--max-length", "99"],
         "--max-length: the encoder has positions for 64 tokens, got 99"),
    ],
)  # fmt: skip
def test_bad_input(here, capsys, words, said):
    run(*words, code=2)
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err
    assert not Path("new").exists()


def test_a_classifier_is_no_encoder(here, capsys):
    run_here("run.dir=run", "train.max_steps=1")
    run("run", "data/train.jsonl", "--output", "new", code=2)
    assert "ENCODER: expected a pretrained encoder, found the classifier" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--minutes", "0"], ["--mask-fraction", "1"], ["--lr", "x"]])
def test_options_that_are_no_numbers(words, capsys):
    with pytest.raises(SystemExit):
        adapt.build_parser("finetune adapt").parse_args(["e", "d", "--output", "o", *words])
    assert f"argument {words[0]}: expected a number above 0" in capsys.readouterr().err


def test_perplexity_is_of_the_loss():
    assert perplexity.HeldOutScore(3, 0.0).perplexity == 1
    assert perplexity.HeldOutScore(3, 1e6).perplexity > 1e300  # and no error
    assert pretraining.adapt_encoder is not None
    assert session.SCORINGS > 1
