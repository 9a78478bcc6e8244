"""A run that was stopped and taken up again equals one that never stopped."""

import json
import os
import random
import shutil
import signal
import time

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from finetune.runtime import folder_lock
from finetune.training import checkpoint, run_folder, train_state
from tests.support.runs import (
    assert_same,
    checkpoints,
    contents,
    finish,
    in_step,
    lines,
    newest,
    results,
    run_here,
    start,
    stopped_at,
)


def test_killed_at_random_moments(documents):
    """SIGKILL at 20 moments of one run: while it loads, goes back, steps, scores and writes."""
    draw = random.Random(0)
    longer = "train.epochs=12", "checkpoint.every=1", "checkpoint.keep=2"
    finish(documents, "run.dir=not-killed", *longer)
    folder = documents / "killed"
    words = "run.dir=killed", "run.resume=auto", *longer
    killed, moments = 0, set()
    for i in range(20):
        process = start(documents, *words)
        early = i % 4 == 3  # while the model is built, and the folder put back
        for line in process.stdout:
            if line.startswith("On" if early else "Training"):
                break
        # Steps are counted, not seconds, so that on no machine the run is over too soon.
        wanted = newest_step(folder) + (0 if early else draw.randrange(4))
        while newest_step(folder) < wanted and process.poll() is None:
            time.sleep(0.0002)
        time.sleep(draw.random() * (0.3 if early else 0.006))
        process.kill()
        rest = process.stdout.read()
        ended = process.wait()
        assert ended in (0, -signal.SIGKILL), rest
        killed += ended != 0
        moments.add(newest_step(folder))
    assert killed >= 15
    assert len(moments) >= 5
    finish(documents, *words)
    assert_same(documents / "not-killed", folder)
    assert list((folder / "checkpoints").glob(".*")) == []


def test_a_head_of_names_goes_on_with_other_threads_and_kernels(here, tmp_path):
    run_here("run.dir=whole", "model.head_init=label_names", "checkpoint.keep=99")
    stopped = stopped_at(here / "whole", here / "run", 8)
    more = "model.attention=eager", "train.threads=2", "checkpoint.keep=99"
    run_here("run.resume=run", "model.head_init=label_names", *more)
    ended, wanted = (results(one) for one in (stopped, here / "whole"))
    assert ended["train"]["steps"] == wanted["train"]["steps"]
    assert ended["test"]["loss"] == pytest.approx(wanted["test"]["loss"], rel=1e-4)


def test_a_checkpoint_between_log_lines_of_an_epoch(here, whole):
    """Step 8 of 12 in the first epoch, 3 rows' losses into the window of the next line."""
    folder = stopped_at(whole, here / "run", 8)
    run_here("run.resume=run", "checkpoint.keep=99")
    assert_same(whole, folder)
    assert checkpoints(folder) == checkpoints(whole)


@pytest.mark.parametrize(
    "words",
    [
        ["optim.name=adamw", "optim.lr=1e-3"],
        ["train.precision=bf16", "train.threads=2"],
        ["train.sampling=balanced", "train.loss=focal", "train.average_last=0.6"],
    ],
    ids=["adamw", "bf16 by two threads", "balanced, focal, averaged"],
)
def test_other_optimizers_and_precisions(here, words):
    words = *words, "train.epochs=1", "checkpoint.keep=99"
    run_here("run.dir=whole", *words)
    stopped_at(here / "whole", here / "run", 8)
    run_here("run.resume=run", *words)
    assert_same(here / "whole", here / "run")


def test_a_mean_of_weights_is_what_is_saved(here, capsys):
    words = "data.validation=none", "train.epochs=1", "train.average_last=0.5"
    run_here("run.dir=run", *words)
    assert "averages the weights after the last 6 of 12 steps" in capsys.readouterr().out
    state = load_file(newest(here / "run") / "state.safetensors")
    saved = load_file(here / "run/model/model.safetensors")
    averaged = {name for name in saved if f"optimizer/{name}/average" in state}
    assert "classifier.weight" in averaged
    for name in averaged:
        assert torch.equal(saved[name], state[f"optimizer/{name}/average"])
    assert not torch.equal(saved["classifier.weight"], state["model/classifier.weight"])


def test_three_processes(here):
    """Where three floats are added, their order counts: the first step must add as the others."""
    words = "train.epochs=1", "checkpoint.keep=99"
    finish(here, "run.dir=whole", *words, processes=3)
    stopped_at(here / "whole", here / "run", 4)
    finish(here, "run.resume=run", *words, processes=3)
    assert results(here / "run")["num_processes"] == 3
    assert_same(here / "whole", here / "run")


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


def test_no_good_checkpoint_is_no_reason_to_start_anew(here, whole, capsys):
    """The one file that spoils all of them may come back; hours of work stand beside."""
    folder = stopped_at(whole, here / "run", 4)
    for point in (folder / "checkpoints").iterdir():
        (point / "state.json").write_text("{}")
    before = contents(folder)
    run_here("run.resume=auto", "run.dir=run", code=2)
    errors = capsys.readouterr().err.splitlines()
    assert errors == [
        f"error: checkpoint run/checkpoints/step-0000000{step} is damaged: state.json is not as it "
        "was written"
        for step in (4, 2)
    ]
    assert contents(folder) == before


def test_an_edited_model_spoils_no_checkpoint(here, whole, capsys):
    """Its small files are copies. And what a desktop leaves in a folder is not the run's."""
    folder = stopped_at(whole, here / "run", 8)
    shutil.rmtree(folder / "model")
    shutil.copytree(newest(folder) / "best", folder / "model")
    (folder / "results.json").unlink(missing_ok=True)
    run_here("run.resume=run", "train.max_steps=10", "checkpoint.keep=99")
    (folder / "results.json").unlink()
    with (folder / "model" / "config.json").open("a") as file:  # in place
        file.write(" ")
    for place in (newest(folder), newest(folder) / "best"):
        (place / ".DS_Store").write_text("")
    linked = newest(folder) / "best" / "model.safetensors"
    assert linked.stat().st_nlink > 1
    capsys.readouterr()
    run_here("run.resume=auto", "run.dir=run", "train.max_steps=12", "score.monitor=loss", code=2)
    assert "damaged" not in capsys.readouterr().err  # but another score.monitor
    run_here("run.resume=auto", "run.dir=run", "train.max_steps=12", "checkpoint.keep=99")
    assert "damaged" not in capsys.readouterr().out
    assert not (folder / "model" / ".DS_Store").exists()
    assert results(folder)["train"]["steps"] == 12


def test_a_run_without_a_checkpoint_starts_anew_where_it_is_the_same(here, capsys):
    with pytest.MonkeyPatch.context() as patch:
        in_step(patch, 4, lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_here("run.dir=run", "checkpoint.every=never")
    before = contents(here / "run")
    run_here("run.resume=auto", "run.dir=run", "optim.lr=0.2", "run.seed=1", code=2)
    assert capsys.readouterr().err == (
        "error: run.resume: run holds a run of another recipe (optim.lr is 0.2, and was 0.1, "
        "run.seed is 1, and was 0); choose another run.dir, or leave run.resume out and set "
        "run.overwrite=true to replace it\n"
    )
    assert contents(here / "run") == before
    run_here("run.resume=auto", "run.dir=run", "train.max_steps=4")
    assert "  ! run starts from the beginning\n" in capsys.readouterr().out
    assert results(here / "run")["train"]["steps"] == 4


def test_what_a_kill_left_half_written_goes(here, whole):
    folder = stopped_at(whole, here / "run", 30)
    for name in (".step-00000010.new", ".step-00000012.old"):
        shutil.copytree(newest(folder), folder / "checkpoints" / name)
    run_here("run.resume=run", "checkpoint.keep=99")
    assert list((folder / "checkpoints").glob(".*")) == []
    assert_same(whole, folder)


def test_an_older_checkpoint_by_its_path(here, whole):
    """The later ones go, and their lines of the log: they belong to steps that are run again."""
    shutil.copytree(whole, here / "run")
    run_here("run.resume=run/checkpoints/step-00000030", "train.max_steps=31")
    assert checkpoints(here / "run")[-1] == "step-00000031"
    assert max(line["step"] for line in lines(here / "run")) == 31


def test_checkpoints_by_minutes(here):
    """All are due at once where a minute is shorter than a step."""
    words = "checkpoint.every=never", "checkpoint.minutes=1e-9", "checkpoint.keep=99"
    run_here("run.dir=run", "train.max_steps=3", *words)
    assert checkpoints(here / "run") == [f"step-0000000{step}" for step in (1, 2, 3)]


def test_trackers_go_on_where_the_log_does(here, whole, monkeypatch):
    """What tensorboard holds of steps after the checkpoint is void, and written again."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    words = "run.trackers=[tensorboard]", "checkpoint.keep=99", "train.epochs=1"
    run_here("run.dir=whole", *words)
    stopped_at(here / "whole", here / "run", 8)
    run_here("run.resume=run", *words)
    seen = []
    for name in ("whole", "run"):
        events = accumulator.EventAccumulator(str(here / name / "trackers" / "tiny")).Reload()
        seen.append(
            {
                tag: [(event.step, event.value) for event in events.Scalars(tag)]
                for tag in events.Tags()["scalars"]
                if "per_second" not in tag
            }
        )
    assert len(seen[0]) > 8
    assert seen[0] == seen[1]


def test_a_changed_tokenizer_is_refused(here, whole, capsys):
    """Two words that have changed places: the same documents, other tokens."""
    before = contents(stopped_at(whole, here / "run", 8))
    shutil.copytree(here / "encoder", here / "other")
    file = here / "other" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["match"], vocabulary["bank"] = vocabulary["bank"], vocabulary["match"]
    file.write_text(json.dumps(tokenizer))
    run_here("run.resume=run", "model.source=other", code=2)
    [error] = capsys.readouterr().err.splitlines()
    assert f"the tokenizer of {here / 'other'} makes other tokens of the same documents" in error
    assert contents(here / "run") == before


def test_a_changed_encoder_config_is_refused(here, whole, capsys):
    """The same weights, which compute something else."""
    before = contents(stopped_at(whole, here / "run", 8))
    shutil.copytree(here / "encoder", here / "other")
    file = here / "other" / "config.json"
    config = json.loads(file.read_text()) | {"hidden_act": "relu", "num_attention_heads": 4}
    file.write_text(json.dumps(config))
    run_here("run.resume=run", "model.source=other", code=2)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "hidden_act in the encoder's config.json is relu, and was gelu, when" in errors[0]
    assert "num_attention_heads in the encoder's config.json is 4, and was 2, when" in errors[1]
    assert contents(here / "run") == before


def test_frozen_layers_may_train_longer(here, capsys):
    """One epoch keeps no states, as each row comes once; two do. Nobody asked for either."""
    words = "model.freeze=encoder", "model.dropout=0", "cache.dir=cache"
    run_here("run.dir=run", "train.epochs=1", *words)
    assert not (here / "cache").exists()
    run_here("run.resume=run", "train.epochs=2", *words)
    assert list((here / "cache").iterdir())
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "cache.frozen_states was off until here, and is fp32 from here on: the same but for" in said
    )
    assert results(here / "run")["train"]["steps"] == 24
    run_here("run.resume=run", "train.epochs=3", *words, "cache.frozen_states=off", code=2)
    assert "cache.frozen_states is off, and was fp32" in capsys.readouterr().err


def test_a_log_that_was_removed_is_missed(here, whole, capsys):
    folder = stopped_at(whole, here / "run", 8)
    (folder / "metrics.jsonl").unlink()
    run_here("run.resume=run", "checkpoint.keep=99")
    said = " ".join(capsys.readouterr().out.split())
    assert "! metrics.jsonl lacks lines from before: it was changed or removed" in said


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


def test_how_rows_are_drawn_is_compared_by_what_it_comes_to(here, whole, capsys):
    """Of few rows, `auto` says one thing for epochs: auto and another for a number of them."""
    folder = stopped_at(whole, here / "run", 30)
    run_here("run.resume=run", "train.sampling=uniform", "checkpoint.keep=99")
    assert results(folder)["hashes"]["weights"] == results(whole)["hashes"]["weights"]
    few = "data.rows_per_class=4", "train.max_steps=4"
    run_here("run.dir=few", "train.epochs=auto", *few)
    capsys.readouterr()
    run_here("run.resume=few", "train.epochs=9", few[0], "train.max_steps=6", code=2)
    [error] = capsys.readouterr().err.splitlines()
    assert "train.sampling is uniform, and was stratified when" in error
    longer = "train.epochs=9", "train.sampling=stratified", "train.max_steps=6"
    run_here("run.resume=few", few[0], *longer)
    assert results(here / "few")["train"]["steps"] == 6


def test_missing_weights_are_noticed(here, whole, monkeypatch, capsys):
    stopped_at(whole, here / "run", 8)
    read = checkpoint.CheckpointReader.read_tensors

    def without_one(self, point):
        tensors = read(self, point)
        del tensors["model/classifier.bias"]
        return tensors

    monkeypatch.setattr(checkpoint.CheckpointReader, "read_tensors", without_one)
    run_here("run.resume=run", "checkpoint.keep=99", code=2)
    assert "model/classifier.bias" in capsys.readouterr().err
    linear, accelerator = torch.nn.Linear(2, 1), Accelerator(cpu=True)
    one = {"weight": torch.ones(1, 2)}
    with pytest.raises(KeyError, match="bias"):
        train_state.load_weights(linear, one, accelerator)
    with pytest.raises(KeyError, match="other"):
        train_state.load_weights(linear, {"other": torch.ones(1)}, accelerator, partly=True)
    train_state.load_weights(linear, one, accelerator, partly=True)
    assert torch.equal(linear.weight, one["weight"])


def test_what_decides_no_number_may_change_without_a_note(here, whole, capsys):
    folder = stopped_at(whole, here / "run", 30)
    words = "train.log_every=2", "checkpoint.every=3", "checkpoint.keep=1", "checkpoint.minutes=1"
    run_here("run.resume=run", *words)
    said = capsys.readouterr().out
    assert "Resuming from" in said
    assert "  ! " not in said.partition("Resuming from")[2].partition("Training")[0]
    assert checkpoints(folder) == ["step-00000036"]
    assert results(folder)["hashes"] == results(whole)["hashes"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["checkpoint.every=7"],
        ["checkpoint.every=7", "score.patience=1"],
        ["checkpoint.every=never", "checkpoint.minutes=null"],
    ],
    ids=lambda words: " ".join(words) or "as it is",
)
@pytest.mark.parametrize("resume", [["run.resume=run"], ["run.resume=auto", "run.dir=run"]])
def test_a_finished_run_says_so_and_stays_as_it_is(here, whole, capsys, words, resume):
    if words:
        run_here("run.dir=run", *words)
    else:
        shutil.copytree(whole, here / "run")
    before = contents(here / "run")
    capsys.readouterr()
    run_here(*resume, *words)
    said = " ".join(capsys.readouterr().out.split())
    assert "The run in run is finished, and its results.json is written" in said
    assert "Training" not in said
    now = contents(here / "run")
    assert sorted(map(str, now)) == sorted(map(str, before))
    assert [str(file) for file in now if now[file] != before[file]] == []


def test_a_finished_run_without_checkpoints_is_no_other_recipe_s(here, capsys):
    never = "run.dir=run", "checkpoint.every=never", "checkpoint.minutes=null"
    run_here(*never)
    run_here(*never, "run.resume=auto", "train.batch_size=5", code=2)
    said = capsys.readouterr().err
    assert "run holds a run of another recipe (train.batch_size is 5, and was 8)" in said


def test_a_finished_run_without_checkpoints_cannot_be_longer_and_says_so(here, capsys):
    never = "run.dir=run", "checkpoint.every=never", "checkpoint.minutes=null"
    run_here(*never, "train.epochs=1")
    run_here(*never, "run.resume=auto", "train.epochs=2", code=2)
    said = capsys.readouterr().err
    assert "run is finished after 12 steps, this recipe asks for 24, and there is no check" in said
    # What decides nothing of its numbers may change, and its documents may have moved.
    shutil.copytree(here / "data", here / "moved")
    capsys.readouterr()
    more = "score.target_accuracy=0.9", "data.source=moved"
    run_here(*never, "run.resume=auto", "train.epochs=1", *more)
    assert "The run in run is finished" in capsys.readouterr().out


def test_a_dry_run_says_where_it_would_go_on(here, whole, capsys):
    stopped_at(whole, here / "run", 8)
    before = contents(here / "run")
    run_here("run.resume=run", "--dry-run")
    assert "It would resume from run/checkpoints/step-00000008" in capsys.readouterr().out
    assert contents(here / "run") == before
    shutil.copytree(whole, here / "done")
    run_here("run.resume=auto", "run.dir=done", "--dry-run")
    assert (
        "The run in done is finished: to train longer, raise train.epochs."
        in capsys.readouterr().out
    )


def test_a_run_that_ended_after_its_last_checkpoint_is_finished_too(here, capsys):
    """Stopped, then finished, with no checkpoint left: its results say how far it came."""
    never = "checkpoint.every=never", "checkpoint.minutes=null"
    with pytest.MonkeyPatch.context() as patch:
        in_step(patch, 8, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run_here("run.dir=run", *never, code=75)
    run_here("run.resume=run", *never)
    assert checkpoints(here / "run") == []
    before = contents(here / "run")
    run_here("run.resume=run", *never)
    assert "is finished" in capsys.readouterr().out
    assert contents(here / "run") == before


@pytest.mark.parametrize("words", [["run.resume=run"], ["run.resume=auto", "run.dir=run"]])
def test_a_folder_that_another_process_holds_is_refused(here, whole, capsys, words):
    stopped_at(whole, here / "run", 8)
    hold = folder_lock.FolderLock()
    hold.take(here / "run")
    before = contents(here / "run")
    run_here(*words, code=2)
    assert capsys.readouterr().err == (
        "error: run.dir: another process is at work in run; wait for it, or choose another\n"
    )
    assert contents(here / "run") == before
    hold.release()
    run_here("run.resume=run", "checkpoint.keep=99")
    assert_same(whole, here / "run")


@pytest.mark.parametrize("words", [["run.dir=run"], ["run.resume=run"]])
def test_a_run_holds_its_folder(here, whole, monkeypatch, words):
    """While it steps, and not after; whatever it writes there."""
    if "run.resume=run" in words:
        stopped_at(whole, here / "run", 8)
    seen = []
    in_step(monkeypatch, 10, lambda: seen.append(folder_lock.is_unlocked(here / "run")))
    run_here(*words)
    assert seen == [False]
    assert folder_lock.is_unlocked(here / "run")


def test_of_two_who_claim_a_folder_the_later_removes_nothing(here):
    """Both saw it free."""
    (here / "run").mkdir()
    (here / "run" / "metrics.jsonl").write_text("{}")
    first = folder_lock.FolderLock()
    first.take(here / "run")
    began = run_folder.Start(here / "run", replaces=True)
    with pytest.raises(run_folder.InputError, match="another process is at work"):
        run_folder.claim_folder(began, None, None, folder_lock.FolderLock())
    assert [path.name for path in (here / "run").iterdir()] == ["metrics.jsonl"]


def test_the_same_recipe_twice_gives_the_same_weights(here, whole):
    run_here("run.dir=again", "checkpoint.keep=99")
    assert_same(whole, here / "again")
    assert set(results(whole)["hashes"]) == {
        "data", "validation", "test", "tokens", "recipe", "first_weights", "weights",
    }  # fmt: skip
    assert len(set(results(whole)["hashes"].values())) == 7
