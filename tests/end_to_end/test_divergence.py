"""A run that is lost says so, or goes back to where it was well."""

import itertools
import shutil

from finetune.training import divergence
from finetune.training.train_log import DivergedError
from tests.support.runs import (
    assert_same,
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
    assert "no model was saved before that" in error
    assert not (here / "run" / "results.json").exists()


def test_backing_off_comes_to_an_end(here, capsys):
    """Five halvings of what is far too high are still too high."""
    run_here("run.dir=run", *FAR_TOO_HIGH, "train.on_divergence=back_off", code=2)
    [error] = capsys.readouterr().err.splitlines()
    assert "the learning rate was already halved 5 times; lower optim.lr" in error
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
    code, said = end(here, *words, processes=2, act=(9, "all", once))
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
