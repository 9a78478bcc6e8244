"""A run that is lost says so, or goes back to where it was well."""

import itertools
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.training import checkpoint, divergence
from finetune.training.train_log import DivergedError
from tests.support.processes import launch
from tests.support.runs import (
    assert_same,
    checkpoints,
    end,
    in_step,
    lines,
    results,
    run_here,
    stopped_at,
)

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


def test_backing_off(here, capsys, monkeypatch):
    """The rate is halved until the run goes well; stopped after that, it goes on the same."""
    words = "train.on_divergence=back_off", "checkpoint.keep=99"
    # Of the scorings at steps 5, 10, 15; 15, 20; 15 and so on.
    verdicts = itertools.chain([False, False, True, False, True], itertools.repeat(False))
    with monkeypatch.context() as patch:
        patch.setattr(divergence, "has_collapsed", lambda *given: next(verdicts))
        run_here("run.dir=run", *words)
    backs = lines(here / "run", "back_off")
    assert [(back["step"], back["diverged_at"], back["rate_scale"]) for back in backs] == [
        (10, 15, 0.5), (14, 20, 0.25),
    ]  # fmt: skip
    assert "would not recover" in backs[0]["why"]
    assert "the model has collapsed" in capsys.readouterr().out
    assert results(here / "run")["train"]["steps"] == 36
    # Stopped after it backed off, and taken up again.
    stopped_at(here / "run", here / "again", 30)
    run_here("run.resume=again", *words)
    assert_same(here / "run", here / "again")


def test_backing_off_by_two_processes(here):
    """Both return to the same checkpoint, with the same rate."""
    words = "run.dir=run", "train.on_divergence=back_off", "train.epochs=1"
    once = "if not os.environ.get('LOST'): os.environ['LOST'] = 'yes'; lose()"
    code, said = end(here, *words, launcher=launch(2), act=(9, "all", once))
    assert code == 0, said
    [back] = lines(here / "run", "back_off")
    assert (back["diverged_at"], back["rate_scale"]) == (9, 0.5)
    assert back["step"] == 4
    assert results(here / "run")["train"]["steps"] == 12
    assert results(here / "run")["num_processes"] == 2


def test_backing_off_is_switched_on_for_a_run_that_was_to_stop(here, whole, capsys, monkeypatch):
    """None of its checkpoints is from before the last good scoring: the newest must do."""
    folder = stopped_at(whole, here / "run", 8)
    for step in (2, 4):
        shutil.rmtree(folder / "checkpoints" / f"step-{step:08d}")
    lost = []

    def lose():
        if not lost:
            lost.append(1)
            raise DivergedError.at(9, "mean loss", float("nan"))

    with monkeypatch.context() as patch:
        in_step(patch, 9, lose)
        run_here("run.resume=run", "train.on_divergence=back_off")
    [back] = lines(folder, "back_off")
    assert (back["step"], back["rate_scale"]) == (8, 0.5)
    assert results(folder)["train"]["steps"] == 36


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
    guess = divergence.constant_guess_loss(draw.integers(0, 3, 60), np.full(3, 1 / 3))
    assert guess == pytest.approx(np.log(3))
    alike = np.tile([4.0, 0.0, -4.0], (60, 1)) + draw.normal(0, 1e-4, (60, 3))
    assert divergence.answers_alike(alike)
    assert divergence.has_collapsed(alike, 3.0, 0.1, guess, None)
    # As good as a guess: a head that has not moved yet.
    assert not divergence.has_collapsed(alike, 1.1, 0.1, guess, None)
    # Confident, wrong and different for each document: bad, but no collapse.
    assert not divergence.has_collapsed(draw.normal(0, 4, (60, 3)), 5.0, 0.1, guess, None)
    # Worse than the run was before.
    assert divergence.has_collapsed(alike, 1.09, 0.01, guess, best_loss=0.5)


@given(
    st.integers(2, 6),
    st.integers(divergence.LEAST_ROWS, 40),
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
    ratio = divergence.spread_over_size(logits)
    assert divergence.spread_over_size(moved) == pytest.approx(ratio, rel=1e-6)


@given(st.integers(1, divergence.LEAST_ROWS - 1))
def test_a_few_documents_prove_nothing(rows):
    assert not divergence.answers_alike(np.tile([9.0, 0.0], (rows, 1)))
