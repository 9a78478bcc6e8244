"""The range test: what it suggests, that it leaves no trace, and that a run remembers its rate."""

import json
import math
import re

import numpy as np
import pytest
from accelerate.state import AcceleratorState, GradientState

from finetune.cli import find_lr
from finetune.config import loader, schema
from finetune.tokenization import encoding
from finetune.training import lr_finder, sampling
from tests.support.runs import assert_same, finish, in_step, results, run_here, stopped_at

AUTO = "optim.lr=auto", "optim.warmup=0"


def curve(lowest, floor=0.2, steps=lr_finder.STEPS):
    """Rates and losses that fall to `floor` at the rate `lowest`, and then explode."""
    rates = [1e-3 * 3000 ** (i / (steps - 1)) for i in range(steps)]
    draw = np.random.default_rng(0)
    losses = []
    for rate in rates:
        loss = 1.4 - (1.4 - floor) * min(1, max(0, math.log(rate / 1e-3) / math.log(lowest / 1e-3)))
        losses.append(loss + 3 * max(0, math.log(rate / lowest)) + 0.03 * draw.normal())
        if len(losses) > 5 and lr_finder._is_lost(lr_finder.smooth(losses)):
            break
    return rates[: len(losses)], losses


@pytest.mark.parametrize(
    ("lowest", "rate", "why"),
    [
        (0.05, 0.02, "this is 3 times below the lowest point, rounded, as the default, 0.03, is "
         "too high for it"),
        (0.2, 0.03, "the default is 6.9 times below the lowest point, and stays"),
        (1.0, 0.07, "this is 12 times below the lowest point, rounded, as the default, 0.03, is "
         "too low for it"),
    ],
)  # fmt: skip
def test_it_stays_below_where_the_loss_turns(lowest, rate, why):
    found = lr_finder.suggest_rate(*curve(lowest), "sgd")
    assert found.rate == rate
    assert found.diverged is not None
    assert found.diverged > found.lowest
    assert re.search(rf"diverged at [\d.]+; {why}$", found.why)


def test_where_nothing_is_learnt_the_default_stays():
    rates, _ = curve(1.0)
    found = lr_finder.suggest_rate(rates, [0.69] * len(rates), "sgd")
    assert found.rate == schema.DEFAULT_LR["sgd"]
    assert found.why.startswith("the default, as no rate from 0.001 to ")
    # Memorized: it can but rise, after a little luck.
    memorized = [0.024 - 2e-4 * min(i, 15) + 0.01 * max(0, i - 15) for i in range(30)]
    found = lr_finder.suggest_rate(rates[:30], memorized, "sgd")
    assert found.rate == schema.DEFAULT_LR["sgd"]
    assert found.lowest < lr_finder.HARDLY * rates[0]
    assert "was lowest at 0.00" in found.why
    # Still falling where the test ends; memorized, by its passes.
    falling = [2 - 0.01 * i for i in range(lr_finder.STEPS)]
    rates = [1e-3 * 3000 ** (i / (lr_finder.STEPS - 1)) for i in range(lr_finder.STEPS)]
    found = lr_finder.suggest_rate(rates, falling, "sgd")
    assert found.rate == schema.DEFAULT_LR["sgd"]
    assert found.why.endswith("still fell at the highest rate tried, 3")
    found = lr_finder.suggest_rate(rates[:20], falling[:20], "sgd", memorized=True)
    assert found.why.startswith("the default, as train has too few rows to try rates on")
    found = lr_finder.suggest_rate(rates[:4], [0.7, 0.69, 0.7, math.nan], "adamw")
    assert (found.rate, found.diverged) == (schema.DEFAULT_LR["adamw"], rates[2])
    assert len(found.rates) == len(found.losses) == 3


def test_a_run_begins_as_if_nothing_had_been_tried(here):
    """Dropout, momentum and all: bit by bit the run that was told the rate."""
    run_here("run.dir=auto", *AUTO)
    found = results(here / "auto")
    [test] = found["train"]["lr_ranges"]
    rate = test["rate"]
    assert [test] == json.loads((here / "auto/lr_range.json").read_text())
    assert loader.load(here / "auto/recipe.yaml").optim.lr == rate
    assert "Learning rate range test" in (here / "auto/report.html").read_text()
    run_here("run.dir=told", f"optim.lr={rate}", "optim.warmup=0")
    assert results(here / "told")["train"]["lr_ranges"] == []
    assert_same(here / "told", here / "auto")


def test_it_draws_rows_as_the_run_will(here, monkeypatch, capsys):
    """Few rows, of which a run's steps have their share of each label."""
    drawn, deal = set(), sampling.epoch_steps
    monkeypatch.setattr(sampling, "epoch_steps", lambda *given: drawn.add(given[1]) or deal(*given))
    few = "data.rows_per_class=4", "train.epochs=auto", "train.max_steps=1"
    run_here("run.dir=run", *AUTO, *few)
    assert drawn == {"stratified"}
    # So few that they would be memorized.
    [test] = results(here / "run")["train"]["lr_ranges"]
    assert len(test["losses"]) == 10 * 2
    assert "too few rows" in test["why"]
    said = capsys.readouterr().out
    assert "100 %  step 20  loss" in said
    assert "up to 20 of them, which are then undone; after these 10 passes" in (
        " ".join(said.split())
    )


def test_taken_up_again_it_keeps_the_rate_that_it_found(here):
    run_here("run.dir=whole", *AUTO, "checkpoint.keep=99")
    stopped = stopped_at(here / "whole", here / "run", 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lr_finder, "run_range_test", None)  # it is not made again
        run_here("run.resume=run", *AUTO, "checkpoint.keep=99")
    assert_same(here / "whole", stopped)
    # Also where it was stopped before its first checkpoint.
    with pytest.MonkeyPatch.context() as patch:
        in_step(patch, 2, died_the_second_time())
        with pytest.raises(DiedError):
            run_here("run.dir=early", *AUTO, "checkpoint.keep=99")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lr_finder, "run_range_test", None)
        run_here("run.dir=early", "run.resume=auto", *AUTO, "checkpoint.keep=99")
    assert_same(here / "whole", here / "early")


class DiedError(BaseException):
    pass


def died_the_second_time():
    """Not in the range test's own step, but in the run's."""
    steps = []

    def act():
        steps.append(2)
        if len(steps) == 2:
            raise DiedError

    return act


def test_two_processes_find_the_same(here):
    finish(here, "run.dir=two", *AUTO, "model.dropout=0", processes=2)
    run_here("run.dir=one", *AUTO, "model.dropout=0")
    two, one = (results(here / name)["train"]["lr_ranges"][0] for name in ("two", "one"))
    assert two["rate"] == one["rate"]
    assert np.allclose(two["losses"][:30], one["losses"][:30], rtol=1e-4)


def test_the_script_looks_at_train_only(here, capsys, monkeypatch):
    seen, encode = [], encoding.encode
    monkeypatch.setattr(
        encoding, "encode", lambda texts, *a, **k: seen.append(texts) or encode(texts, *a, **k)
    )
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    assert find_lr.main(["tiny.yaml", "model.dropout=0"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("  range test of the learning rate, from 0.001 to 3 in 100 steps: up to")
    assert re.search(r"optim\.lr: [\d.]+\n  as the rate grew|optim\.lr: 0\.03\n  the default", said)
    page = (here / "lr_range.html").read_text()
    assert "This is the default, as" in page or "As the rate grew" in page
    assert not any(text.startswith("test ") for texts in seen for text in texts)
    assert '<svg class="chart"' in (here / "lr_range.html").read_text()
    assert not (here / "runs").exists()
    assert find_lr.main(["tiny.yaml", "--page", "nowhere/lr.html"]) == 2
    assert capsys.readouterr().err == (
        "error: --page: expected a file in a folder that exists, got nowhere/lr.html\n"
    )
    assert find_lr.main(["tiny.yaml", "optim.momentum=2"]) == 2
    assert capsys.readouterr().err.startswith("error: command line: optim.momentum: expected")
