"""A run that was stopped and taken up again equals one that never stopped."""

import random
import shutil
import signal
import time

import pytest
from safetensors.torch import load_file, save_file

from tests.processes import launch
from tests.runs import (
    assert_same,
    checkpoints,
    contents,
    finish,
    newest,
    results,
    run_here,
    start,
    stopped_at,
    wait_for_loss,
)


def test_killed_at_random_moments(documents):
    """SIGKILL at 20 moments of one run: while it starts, steps, scores and writes."""
    draw = random.Random(0)
    longer = "train.epochs=12", "checkpoint.every=1", "checkpoint.keep=2"
    finish(documents, "run.dir=not-killed", *longer)
    folder = documents / "killed"
    words = "run.dir=killed", "run.resume=auto", *longer
    killed, moments = 0, set()
    for _ in range(20):
        process = start(documents, *words)
        for line in process.stdout:
            if line.startswith("Training"):
                break
        # Steps are counted, not seconds, so that on no machine the run is over too soon.
        wanted = newest_step(folder) + draw.randrange(4)
        while newest_step(folder) < wanted and process.poll() is None:
            time.sleep(0.0002)
        time.sleep(draw.random() * 0.006)
        killed += process.poll() is None
        process.kill()
        rest = process.stdout.read()
        assert process.wait() in (0, -signal.SIGKILL), rest
        moments.add(newest_step(folder))
    assert killed >= 15
    assert len(moments) >= 5
    finish(documents, *words)
    assert_same(documents / "not-killed", folder)


def test_a_checkpoint_between_log_lines_of_an_epoch(here, whole):
    """Step 8 of 12 in the first epoch, 3 rows' losses into the window of the next line."""
    folder = stopped_at(whole, here / "run", 8)
    run_here("run.resume=run", "checkpoint.keep=99")
    assert_same(whole, folder)
    assert checkpoints(folder) == checkpoints(whole)


def test_two_processes_that_were_stopped(here, whole_by_two):
    """SIGTERM to the launcher, as a cluster sends it, at whatever step it comes to."""
    process = start(here, "run.dir=run", launcher=launch(2))
    wait_for_loss(process)
    process.terminate()
    rest = process.stdout.read()
    assert process.wait() != 0, rest
    assert not (here / "run" / "results.json").exists()
    assert checkpoints(here / "run"), rest
    finish(here, "run.resume=run", launcher=launch(2))
    assert results(here / "run")["num_processes"] == 2
    assert_same(whole_by_two, here / "run")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_ends_the_run_with_a_checkpoint(here, whole, name):
    process = start(here, "run.dir=run")
    wait_for_loss(process)
    process.send_signal(getattr(signal, name))
    rest = process.stdout.read()
    assert process.wait() == 75, rest
    assert f"stopped by {name} after step" in rest
    assert "run.resume=run" in rest
    run_here("run.resume=run")
    assert_same(whole, here / "run")


def test_a_second_signal_ends_the_process_at_once(here, whole):
    """It does not wait for the step to be done; the last checkpoint serves."""
    process = start(here, "run.dir=run", "checkpoint.keep=99")
    wait_for_loss(process)
    while not newest_step(here / "run") >= 4:  # there is something to go on from
        time.sleep(0.001)
    # Stopped, it gets both signals before its next step.
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    rest = process.stdout.read()
    assert process.wait() in (128 + signal.SIGTERM, 128 + signal.SIGINT), rest
    assert "stopped by" not in rest
    run_here("run.resume=run", "checkpoint.keep=99")
    assert_same(whole, here / "run")


def newest_step(folder):
    try:
        names = checkpoints(folder)
    except FileNotFoundError:
        return -1
    return max((int(name[5:]) for name in names if name.startswith("step-")), default=-1)


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(here, whole, capsys):
    folder = stopped_at(whole, here / "run", 8)
    file = newest(folder) / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    run_here("run.resume=run", "checkpoint.keep=99")
    said = " ".join(capsys.readouterr().out.split())
    assert "step-00000008 is damaged: state.safetensors is not as it was written" in said
    assert "the one before is used" in said
    assert_same(whole, folder)


def test_another_recipe_is_refused_with_all_that_differs(here, whole, capsys):
    stopped_at(whole, here / "run", 8)
    run_here("run.resume=run", "optim.lr=0.2", "run.seed=1", code=2)
    said = capsys.readouterr().err
    assert "optim.lr is 0.2, and was 0.1" in said
    assert "run.seed is 1, and was 0" in said
    assert len(checkpoints(here / "run")) == 4


def test_other_documents_are_refused(here, whole, capsys):
    """One word of one text."""
    before = contents(stopped_at(whole, here / "run", 8))
    shutil.copytree(here / "data", here / "other")
    file = here / "other" / "validation.jsonl"
    file.write_text(file.read_text().replace("validation 3 ", "validation three ", 1))
    run_here("run.resume=run", "data.source=other", code=2)
    [error] = capsys.readouterr().err.splitlines()
    assert "the validation documents are not the same (13 rows, and were 13; " in error
    assert contents(here / "run") == before


def test_another_encoder_is_refused(here, whole, capsys):
    """One weight of it."""
    before = contents(stopped_at(whole, here / "run", 8))
    shutil.copytree(here / "encoder", here / "other")
    weights = load_file(here / "encoder" / "model.safetensors")
    weights["encoder.layer.0.output.dense.weight"][0, 0] += 1
    save_file(weights, here / "other" / "model.safetensors", metadata={"format": "pt"})
    run_here("run.resume=run", "model.source=other", code=2)
    [error] = capsys.readouterr().err.splitlines()
    assert f"the weights it began with are not those of {here / 'other'}" in error
    assert contents(here / "run") == before


def test_moved_documents_and_encoder_are_the_same(here, whole):
    folder = stopped_at(whole, here / "run", 30)
    for name in ("data", "encoder"):
        shutil.copytree(here / name, here / "elsewhere" / name)
    words = "data.source=elsewhere/data", "model.source=elsewhere/encoder"
    run_here("run.resume=run", "checkpoint.keep=99", *words)
    assert_same(whole, folder)


def test_the_length_may_change_with_a_note(here, whole, capsys):
    folder = stopped_at(whole, here / "run", 8)
    run_here("run.resume=run", "train.epochs=2")
    said = " ".join(capsys.readouterr().out.split())
    assert "! train.epochs was 3 until here, and is 2 from here on; the learning rate" in said
    assert results(folder)["train"]["steps"] == 24


def test_what_decides_no_number_may_change_without_a_note(here, whole, capsys):
    folder = stopped_at(whole, here / "run", 30)
    words = "train.log_every=2", "checkpoint.every=3", "checkpoint.keep=1", "checkpoint.minutes=1"
    run_here("run.resume=run", *words)
    said = capsys.readouterr().out
    assert "Going on from" in said
    assert "  ! " not in said.partition("Going on from")[2].partition("Training")[0]
    assert checkpoints(folder) == ["step-00000036"]
    assert results(folder)["hashes"] == results(whole)["hashes"]


def test_a_finished_run_says_so_and_stays_as_it_is(here, whole, capsys):
    shutil.copytree(whole, here / "run")
    before = contents(here / "run")
    run_here("run.resume=run")
    said = " ".join(capsys.readouterr().out.split())
    assert "The run in run is finished, its results.json stands" in said
    now = contents(here / "run")
    assert sorted(map(str, now)) == sorted(map(str, before))
    assert [str(file) for file in now if now[file] != before[file]] == []


@pytest.mark.parametrize("words", [["run.resume=run"], ["run.resume=auto", "run.dir=run"]])
def test_a_folder_of_a_living_process_is_refused(here, whole, capsys, words):
    """It is asked at its first line of losses, and goes on undisturbed."""
    process = start(here, "run.dir=run", "checkpoint.keep=99")
    wait_for_loss(process)
    process.send_signal(signal.SIGSTOP)
    try:
        before = contents(here / "run")
        run_here(*words, code=2)
        assert capsys.readouterr().err == (
            "error: run.dir: another process is at work in run; wait for it, or choose another\n"
        )
        assert contents(here / "run") == before
    finally:
        process.send_signal(signal.SIGCONT)
    rest = process.stdout.read()
    assert process.wait() == 0, rest
    assert_same(whole, here / "run")


def test_the_same_recipe_twice_gives_the_same_weights(here, whole):
    run_here("run.dir=again", "checkpoint.keep=99")
    assert_same(whole, here / "again")
    assert set(results(whole)["hashes"]) == {
        "data", "test", "recipe", "first_weights", "weights",
    }  # fmt: skip
    assert len(set(results(whole)["hashes"].values())) == 5
