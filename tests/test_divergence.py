"""A run that is lost says so, or goes back to where it was well."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune import checkpoint, collapse
from tests.runs import checkpoints, lines, results, run_here

# Without clipping, the first step throws the weights to where their products overflow.
FAR_TOO_HIGH = "optim.lr=1e30", "optim.max_grad_norm=null"


def test_a_loss_that_is_not_finite_stops_the_run(here, capsys):
    run_here("run.dir=run", *FAR_TOO_HIGH, code=2)
    [error] = capsys.readouterr().err.splitlines()
    assert error.startswith("error: step 2: the loss or its gradient's norm is not finite (")
    assert "lower optim.lr" in error
    assert "optim.max_grad_norm=1.0" in error
    assert "no model had been saved by then" in error
    assert not (here / "run" / "results.json").exists()


def test_backing_off_comes_to_an_end(here, capsys):
    """Five halvings of what is far too high are still too high."""
    run_here("run.dir=run", *FAR_TOO_HIGH, "train.on_divergence=back_off", code=2)
    [error] = capsys.readouterr().err.splitlines()
    assert "the rate was already halved 5 times; lower optim.lr" in error
    assert [line["rate_scale"] for line in lines(here / "run", "back_off")] == [
        1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32,
    ]  # fmt: skip


def test_backing_off(here, capsys):
    """The rate is halved until the run goes well; stopped after that, it goes on the same."""
    words = "optim.max_grad_norm=null", "optim.lr=0.75", "train.on_divergence=back_off"
    run_here("run.dir=run", *words)
    backs = lines(here / "run", "back_off")
    assert [line["rate_scale"] for line in backs] == [0.5 ** (i + 1) for i in range(len(backs))]
    assert "would not recover" in backs[0]["why"]
    assert "the model has collapsed" in capsys.readouterr().out
    found = results(here / "run")
    assert found["train"]["steps"] == 36
    rates = {line["step"]: line["lr"] for line in lines(here / "run", "train")}
    assert rates[36] < 0.75 * 0.5 ** len(backs)
    # Stopped after it backed off, and taken up again.
    shutil.copytree(here / "run", here / "again")
    (here / "again" / "results.json").unlink()
    shutil.rmtree(here / "again" / "checkpoints" / "step-00000036")
    run_here("run.resume=again", *words)
    assert lines(here / "again") == lines(here / "run")
    assert results(here / "again")["hashes"] == found["hashes"]


def test_backing_off_spares_a_checkpoint_from_when_all_was_well(tmp_path):
    """However few are kept: those after the last good scoring may be of a lost run."""
    for step in (0, 4, 8, 12):
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    checkpoint.drop_old(tmp_path, keep=2, spare=5)
    assert checkpoints(tmp_path) == ["step-00000004", "step-00000008", "step-00000012"]
    checkpoint.drop_old(tmp_path, keep=2, spare=None)
    assert checkpoints(tmp_path) == ["step-00000008", "step-00000012"]


def test_a_collapse_is_told_from_a_slow_start():
    draw = np.random.default_rng(0)
    guess = collapse.guess_loss(draw.integers(0, 3, 60), np.full(3, 1 / 3))
    assert guess == pytest.approx(np.log(3))
    alike = np.tile([4.0, 0.0, -4.0], (60, 1)) + draw.normal(0, 1e-4, (60, 3))
    assert collapse.answers_alike(alike)
    assert collapse.has_collapsed(alike, 3.0, 0.1, guess, None)
    # As good as a guess: a head that has not moved yet.
    assert not collapse.has_collapsed(alike, 1.1, 0.1, guess, None)
    # Confident, wrong and different for each document: bad, but no collapse.
    assert not collapse.has_collapsed(draw.normal(0, 4, (60, 3)), 5.0, 0.1, guess, None)
    # Worse than the run was before.
    assert collapse.has_collapsed(alike, 1.09, 0.01, guess, best_loss=0.5)


@given(
    st.integers(2, 6),
    st.integers(collapse.LEAST_ROWS, 40),
    st.floats(-50, 50),
    st.integers(0, 2**32 - 1),
)
def test_what_softmax_does_not_see_does_not_matter(classes, rows, shift, seed):
    """A number added to all logits of a document changes no probability, and no verdict."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 1, (rows, classes)) * draw.choice([1e-3, 1]) + draw.normal(
        0, 3, classes
    )
    moved = logits + shift * draw.normal(0, 1, (rows, 1))
    ratio = collapse.spread_over_size(logits)
    assert collapse.spread_over_size(moved) == pytest.approx(ratio, rel=1e-6)


@given(st.integers(1, collapse.LEAST_ROWS - 1))
def test_a_few_documents_prove_nothing(rows):
    assert not collapse.answers_alike(np.tile([9.0, 0.0], (rows, 1)))
