"""Training in stages: each trains what it says; stopping, sharing and skipping change nothing."""

import gc
import itertools
import json
import os
import shutil
import signal

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file

from finetune.cli import find_lr
from finetune.config import loader
from finetune.evaluation import metrics
from finetune.runtime.errors import InputError
from finetune.training import lr_finder, sampling, stages
from finetune.training.train_log import DivergedError
from tests.distributed.test_fsdp import OPTIONS
from tests.support.runs import (
    ONCE_WRITTEN,
    assert_same,
    checkpoints,
    contents,
    end,
    finish,
    in_step,
    lines,
    results,
    run_here,
    stopped_at,
)

# 12 steps an epoch.
PROBE = "train.stages=[{freeze: encoder, epochs: 1, lr: 0.3}, {epochs: 2}]"
# The last stage freezes what others have trained.
FOUR = (
    "train.stages=[{freeze: encoder, epochs: 2, lr: 0.3}, {freeze: 1, epochs: 2}, "
    "{max_steps: 7}, {freeze: encoder, min_steps: 26, epochs: 1}]",
    "train.epochs=3",
)
KEPT = "model.dropout=0", "cache.dir=cache"


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


def assert_close(one, other):
    ones, others = weights(one), weights(other)
    assert ones.keys() == others.keys()
    for name, value in ones.items():
        # To where a softmax gives no gradient (keys' biases), sums of its errors go.
        scale = value.abs().max().clamp(min=1e-2)
        assert (others[name] - value).abs().max() <= 1e-5 * scale, name


@pytest.fixture(scope="session")
def probed(documents, shared):
    words = "run.dir=probed", PROBE, "checkpoint.keep=99"
    return shared("documents/probed", lambda folder: finish(folder.parent, *words))


def test_each_stage_trains_what_it_says(probed):
    tensors = {
        step: load_file(probed / "checkpoints" / f"step-{step:08d}" / "state.safetensors")
        for step in (2, 12, 14)
    }
    head = {"classifier.weight", "classifier.bias"}
    for step in (2, 12):
        assert {n.removeprefix("model/") for n in tensors[step] if n.startswith("model/")} == head
    trained = {n.removeprefix("model/") for n in tensors[14] if n.startswith("model/")}
    assert head < trained
    assert any("layer.0" in name for name in trained)
    assert not any("embeddings" in name for name in trained)
    # The optimizer starts anew.
    momentum = "optimizer/classifier.weight/momentum_buffer"
    assert not torch.equal(tensors[12][momentum], tensors[14][momentum])


def test_rates_steps_and_what_is_said_of_them(probed):
    log = lines(probed, "train")
    assert [line["step"] for line in log] == [1, 3, 6, 9, 12, 13, *range(15, 37, 3)]
    assert [line["stage"] for line in log] == [1] * 5 + [2] * 9
    assert max(line["lr"] for line in log[:5]) == pytest.approx(0.3, rel=0.2)
    assert max(line["lr"] for line in log[5:]) == pytest.approx(0.1, rel=0.1)
    assert log[4]["lr"] < 0.05
    assert log[-1]["lr"] < 0.01
    assert {line["stage"] for line in lines(probed, "validation")} == {1, 2}
    assert [line["step"] for line in lines(probed, "validation")][:4] == [5, 10, 12, 17]
    assert results(probed)["train"]["stages"] == [
        {"freeze": "encoder", "lr": 0.3, "steps": 12, "first_step": 1, "epochs": 1},
        {"freeze": "embeddings", "lr": 0.1, "steps": 24, "first_step": 13, "epochs": 2},
    ]
    card = (probed / "model" / "README.md").read_text()
    assert (
        "\n1. 12 steps at a learning rate of at most 0.3, frozen: encoder\n2. 24 steps at" in card
    )
    page = (probed / "report.html").read_text()
    assert '<th scope="row">2</th><td>embeddings</td><td>0.1</td><td>13</td><td>24</td>' in page


def test_a_dry_run_lists_them(here, capsys):
    run_here(PROBE, "--dry-run")
    said = capsys.readouterr().out
    assert "Train  stage 1: 12 steps of 8 documents, 1 epoch; sgd, lr 0.3, linear, encoder" in said
    assert "       stage 2: 24 steps of 8 documents, 2 epochs; sgd, lr 0.1" in said
    rates = [line.split() for line in said.partition("Learning rate")[2].splitlines()]
    assert ["1", "12", "1.00", "2.727e-02"] in rates
    assert ["2", "13", "1.08", "3.333e-02"] in rates


@pytest.mark.parametrize("words", [(), (*KEPT, "model.freeze=1")], ids=["dropout", "kept states"])
def test_two_stages_alike_are_one(here, words):
    """Where nothing depends on the schedule or on earlier gradients: the same run, bit by bit."""
    plain = *words, "optim.schedule=constant", "optim.warmup=0", "optim.momentum=0", "score.every=6"
    run_here("run.dir=one", "train.epochs=4", *plain)
    run_here("run.dir=two", "train.epochs=2", "train.stages=[{}, {}]", *plain)
    one, two = here / "one", here / "two"
    assert results(one)["hashes"]["weights"] == results(two)["hashes"]["weights"]
    for key in ("validation", "test"):
        assert results(one)[key] == results(two)[key]
    assert lines(one, "validation") == [
        {key: value for key, value in line.items() if key != "stage"}
        for line in lines(two, "validation")
    ]


@pytest.mark.parametrize("step", [8, 12, 14, 30])
def test_stopped_in_any_stage_and_taken_up(here, probed, step):
    """In the first, where it ends, and in the second: to the last bit, with dropout."""
    folder = stopped_at(probed, here / "run", step)
    run_here("run.resume=run", PROBE, "checkpoint.keep=99")
    assert_same(probed, folder)
    assert checkpoints(folder) == checkpoints(probed)


def test_frozen_layers_are_skipped_where_they_are_frozen(here, capsys):
    """And those that a stage trains are not; also where it is taken up without the states."""
    run_here("run.dir=plain", *FOUR, *KEPT, "cache.frozen_states=off")
    assert "frozen states" not in capsys.readouterr().out
    run_here("run.dir=kept", *FOUR, *KEPT, "checkpoint.keep=99")
    said = capsys.readouterr().out
    assert said.count("frozen states of train: computing") == 3  # not of the 7 steps
    assert_close(here / "plain", here / "kept")
    assert results(here / "kept")["train"]["steps"] == 24 + 24 + 7 + 26
    assert results(here / "kept")["train"]["min_steps"] == 26
    for step in (36, 54, 56, 70):
        shutil.rmtree(here / "cache")
        folder = stopped_at(here / "kept", here / f"run{step}", step)
        run_here(f"run.resume=run{step}", *FOUR, *KEPT, "checkpoint.keep=99")
        assert_same(here / "kept", folder)


def test_a_best_model_of_an_earlier_stage(here, monkeypatch):
    """It is scored with its own layers, not with the states that later ones gave."""
    monkeypatch.setattr(metrics, "is_better", lambda name, values, best, **more: not best)
    words = "train.stages=[{epochs: 1}, {freeze: encoder, epochs: 2}]", *KEPT
    run_here("run.dir=run", "optim.lr=0.3", *words)
    found, [first, *_] = results(here / "run"), lines(here / "run", "validation")
    assert found["train"]["best_step"] == first["step"] == 5
    assert found["validation"]["accuracy"] == first["accuracy"]
    temperature = found["calibration"]["temperature"]
    assert temperature == 1
    assert found["validation"]["loss"] == pytest.approx(first["loss"], rel=1e-5)


def test_each_stage_has_whole_epochs(here, monkeypatch):
    """Whatever step it begins at: each row once, validation after each, in an order of its own."""
    drawn, deal = [], sampling.epoch_steps
    monkeypatch.setattr(
        sampling, "epoch_steps", lambda *given: drawn.append(given[-1]) or deal(*given)
    )
    words = "train.stages=[{max_steps: 7}, {epochs: 2}, {epochs: 1}]", "score.every=epoch"
    words = *words, "checkpoint.keep=99"
    run_here("run.dir=run", *words)
    assert [line["step"] for line in lines(here / "run", "validation")] == [7, 19, 31, 43]
    assert drawn == [0, 1, 2, 3]
    assert results(here / "run")["train"]["rows"] == 7 * 8 + 3 * 93
    for step in (19, 31):
        stopped_at(here / "run", here / f"again{step}", step)
        run_here(f"run.resume=again{step}", *words)
        assert_same(here / "run", here / f"again{step}")


def test_patience_ends_the_last_stage_only(here, monkeypatch, capsys):
    monkeypatch.setattr(metrics, "is_better", lambda name, values, best, **more: not best)
    run_here("run.dir=run", PROBE, "score.patience=1")
    assert [line["step"] for line in lines(here / "run", "validation")] == [5, 10, 12, 17]
    assert "stopped early" in capsys.readouterr().out
    found = results(here / "run")["train"]
    assert (found["steps"], found["planned_steps"]) == (17, 36)


def test_backing_off_to_an_earlier_stage(here, capsys):
    """Its last checkpoint from when all was well is of the stage before."""
    words = PROBE, "train.on_divergence=back_off", "checkpoint.keep=99"
    verdicts = itertools.chain([True], itertools.repeat(False))

    def lose():
        if next(verdicts):
            raise DivergedError.at(14, "mean loss", float("nan"))

    with pytest.MonkeyPatch.context() as patch:
        in_step(patch, 14, lose)
        run_here("run.dir=run", *words)
    [back] = lines(here / "run", "back_off")
    assert (back["step"], back["diverged_at"], back["rate_scale"]) == (12, 14, 0.5)
    said = capsys.readouterr().out
    assert [line.split()[1] for line in said.splitlines() if line.startswith("  stage ")] == [
        "1", "2", "2",
    ]  # fmt: skip
    [line] = [line for line in lines(here / "run", "train") if line["step"] == 13]
    assert line["lr"] == pytest.approx(0.05 / 3)
    assert results(here / "run")["train"]["steps"] == 36
    for step in (14, 30):
        stopped_at(here / "run", here / f"again{step}", step)
        run_here(f"run.resume=again{step}", *words)
        assert_same(here / "run", here / f"again{step}")


AUTO = "optim.lr=auto", "train.stages=[{freeze: encoder, epochs: 1}, {epochs: 2}]"


def test_each_stage_finds_its_rate(here, capsys):
    """Before its own first step; taken up again at any step, the run is the same."""
    run_here("run.dir=whole", *AUTO, "checkpoint.keep=99")
    said = capsys.readouterr().out
    one, two = results(here / "whole")["train"]["lr_ranges"]
    assert (one["stage"], two["stage"]) == (1, 2)
    assert one["losses"] != two["losses"]
    assert f"Rate   {one['rate']:g}: " in said
    assert f"  rate of stage 2: {two['rate']:g}: " in said
    assert json.loads((here / "whole/lr_range.json").read_text()) == [one, two]
    saved = loader.load(here / "whole/recipe.yaml")
    assert [stage.lr for stage in saved.train.stages] == [one["rate"], two["rate"]]
    told = [stage["lr"] for stage in results(here / "whole")["train"]["stages"]]
    assert told == [one["rate"], two["rate"]]
    page = (here / "whole/report.html").read_text()
    assert page.count("Learning rate range test") == 2
    assert f"A learning rate of {two['rate']:g} was chosen before stage 2." in page
    for step in (8, 12, 14, 30):
        folder = stopped_at(here / "whole", here / f"run{step}", step)
        with pytest.MonkeyPatch.context() as patch:
            if step > 12:  # both are known
                patch.setattr(lr_finder, "run_range_test", None)
            run_here(f"run.resume=run{step}", *AUTO, "checkpoint.keep=99")
        assert_same(here / "whole", folder)
        assert results(folder)["train"]["lr_ranges"] == [one, two]
    # A rate that is named in the place of one to be found is another run's.
    stopped_at(here / "whole", here / "other", 8)
    other = AUTO[0], AUTO[1].replace("{epochs: 2}", "{epochs: 2, lr: 0.0001}")
    run_here("run.resume=other", *other, code=2)
    assert "lr: 0.0001}], and was [" in capsys.readouterr().err
    # The same rates, named.
    stages = f"train.stages=[{{freeze: encoder, epochs: 1, lr: {one['rate']}}}, {{epochs: 2, lr: "
    named = "optim.lr=null", f"{stages}{two['rate']}}}]"
    run_here("run.dir=named", *named, "checkpoint.keep=99")
    assert_same(here / "whole", here / "named")
    folder = stopped_at(here / "whole", here / "named30", 30)
    run_here("run.resume=named30", *named, "checkpoint.keep=99")
    assert_same(here / "whole", folder)


class DiedError(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def test_range_tests_outlive_a_kill_without_checkpoints(here):
    never = *AUTO, "checkpoint.every=never", "checkpoint.minutes=null"
    run_here("run.dir=whole", *never)
    for step, tests_before in ((5, 1), (14, 2)):
        verdicts = itertools.chain([False] * tests_before, [True])  # their own steps are no matter

        def die(verdicts=verdicts):
            if next(verdicts):
                raise DiedError

        with pytest.MonkeyPatch.context() as patch:
            in_step(patch, step, die)
            with pytest.raises(DiedError):
                run_here(f"run.dir=run{step}", *never)
        gc.collect()  # the dead process's locks go with it
        run_here(f"run.dir=run{step}", "run.resume=auto", *never)
        one, other = results(here / "whole"), results(here / f"run{step}")
        assert one["hashes"] == other["hashes"]
        assert one["train"]["lr_ranges"] == other["train"]["lr_ranges"]


def test_finished_by_patience_it_stays_finished(here, capsys):
    """Its newest checkpoint is of the first stage, which knows no rate of the second."""
    words = *AUTO, "checkpoint.every=never", "checkpoint.minutes=null", "score.patience=1"
    stop = itertools.chain([False, True], itertools.repeat(False))
    with pytest.MonkeyPatch.context() as patch:
        in_step(patch, 5, lambda: next(stop) and os.kill(os.getpid(), signal.SIGTERM))
        run_here("run.dir=run", *words, code=75)
    run_here("run.resume=run", *words)
    assert results(here / "run")["train"]["steps"] < 36
    before = contents(here / "run")
    capsys.readouterr()
    run_here("run.resume=run", *words)
    assert "The run in run is finished" in capsys.readouterr().out
    assert contents(here / "run") == before


def test_a_rate_that_only_a_later_stage_finds(here):
    """And a run that backs off to the stage before does not look for it again."""
    words = (
        "train.stages=[{freeze: encoder, epochs: 1, lr: 0.3}, {epochs: 2, lr: auto}]",
        *("optim.lr=null", "train.on_divergence=back_off", "checkpoint.keep=99"),
    )
    verdicts = itertools.chain([False, True], itertools.repeat(False))  # not in the test's own

    def lose():
        if next(verdicts):
            raise DivergedError.at(14, "mean loss", float("nan"))

    found, find = [], lr_finder.run_range_test
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            lr_finder, "run_range_test", lambda *given: found.append(find(*given)) or found[-1]
        )
        in_step(patch, 14, lose)
        run_here("run.dir=run", *words)
    assert len(found) == 1
    [test] = results(here / "run")["train"]["lr_ranges"]
    assert (test["stage"], test["rate"]) == (2, found[0].rate)
    [line] = [line for line in lines(here / "run", "train") if line["step"] == 13]
    assert lines(here / "run", "back_off")[0]["step"] == 12
    assert line["lr"] < found[0].rate / 2
    for step in (14, 30):
        stopped_at(here / "run", here / f"again{step}", step)
        run_here(f"run.resume=again{step}", *words)
        assert_same(here / "run", here / f"again{step}")


def test_a_range_test_of_stages_is_of_the_first(here, capsys):
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    assert find_lr.main(["tiny.yaml", PROBE]) == 0
    said = capsys.readouterr().out
    assert said.startswith("  range test of the learning rate, from 0.001 to 3 in 100 steps: up to")
    assert "\nlr of the first of train.stages: " in said


def test_a_dry_run_does_not_know_rates_that_are_found(here, capsys):
    run_here("train.stages=[{freeze: encoder, epochs: 1}, {epochs: 2, lr: auto}]", "--dry-run")
    said = capsys.readouterr().out
    assert "sgd, lr auto, linear" in said
    assert "a range test on train rows finds it before the first step of stage 2" in said
    assert ["1", "12", "1.00"] in [line.split()[:3] for line in said.splitlines()]


def test_two_processes(here):
    """The same as one; and killed in a stage's first step and taken up, the same to the bit."""
    words = *FOUR, *KEPT, "checkpoint.keep=99", "train.average_last=0.5"
    finish(here, "run.dir=two", *words, processes=2)
    run_here("run.dir=one", *words)
    assert results(here / "two")["num_processes"] == 2
    assert_close(here / "one", here / "two")
    kill = ONCE_WRITTEN.format(24) + "os.kill(os.getpid(), signal.SIGKILL)"
    code, said = end(here, "run.dir=run", *words, processes=2, act=(25, "all", kill))
    assert code != 0, said
    assert checkpoints(here / "run")[-1] == "step-00000024"
    finish(here, "run.resume=run", *words, processes=2)
    assert_same(here / "two", here / "run")


def test_weights_spread_over_two_processes(here):
    words = *FOUR, *KEPT, "cache.frozen_states=off"
    run_here("run.dir=one", *words)
    finish(here, "run.dir=two", *words, processes=2, options=OPTIONS)
    assert results(here / "two")["sharded"]
    assert_close(here / "one", here / "two")


def test_what_would_move_a_stage_is_refused(here, probed, capsys):
    stopped_at(probed, here / "run", 14)
    other = PROBE.replace("epochs: 1", "epochs: 2")
    run_here("run.resume=run", other, code=2)
    [error] = capsys.readouterr().err.splitlines()
    assert error.startswith("error: run.resume: train.stages is [{freeze: encoder, epochs: 2,")
    words = "train.stages=[{freeze: encoder, lr: 0.3}, {epochs: 1}]", "train.epochs=1"
    run_here("run.dir=other", *words)
    run_here("run.resume=other", words[0], "train.epochs=2", code=2)
    [error] = capsys.readouterr().err.splitlines()
    assert "the stages before the last end at steps [24], and ended at [12] when" in error


def test_longer_than_before(here, probed, capsys):
    """Only the last stage's length may change, where train.epochs says it."""
    words = "train.stages=[{freeze: encoder, epochs: 1, lr: 0.3}, {}]", "checkpoint.keep=99"
    run_here("run.dir=run", *words, "train.epochs=1")
    run_here("run.resume=run", *words, "train.epochs=2")
    assert "train.epochs was 1 until here, and is 2 from here on" in " ".join(
        capsys.readouterr().out.split()
    )
    assert results(here / "run")["train"]["steps"] == 36


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["train.stages=[{}, {epochs: 0}]"],
            "train.stages: stage 2: epochs: expected a whole number of at least 1, got 0",
        ),
        (
            ["train.stages=[{freez: encoder}]"],
            "train.stages: stage 1: freez: no such key; the keys of a stage are: freeze, epochs, "
            "max_steps, min_steps, lr",
        ),
        (
            ["train.stages=[encoder]"],
            "train.stages: expected a list, each a mapping with any of freeze, epochs, max_steps, "
            "min_steps, lr, got 'encoder' at position 1",
        ),
        (
            ["train.stages=[{max_steps: 3}, {}]", "train.min_steps=4"],
            "train.stages: expected stage 1 with min_steps of at most max_steps (3), got 4",
        ),
        (
            ["train.stages=[{lr: 0.2}, {lr: 0.1}]", "optim.lr=auto"],
            "optim.lr: expected null, its default, as each of train.stages has its own, got auto",
        ),
        (
            ["train.stages=[{freeze: encoder}]", "optim.layer_decay=0.5"],
            "optim.layer_decay: expected 1.0 with model.freeze 'encoder', got 0.5",
        ),
        (
            ["train.stages=[{lr: 0.2}, {lr: 0.1}]", "optim.lr=0.3"],
            "optim.lr: expected null, its default, as each of train.stages has its own, got 0.3",
        ),
        (
            ["train.stages=[{epochs: 2}]", "train.epochs=4"],
            "train.epochs: expected auto, its default, as each of train.stages has its own, got 4",
        ),
        (
            ["train.stages=[{freeze: 1}]", "model.freeze=encoder"],
            "model.freeze: expected auto, its default, as each of train.stages has its own, got "
            "encoder",
        ),
    ],
)
def test_a_recipe_that_is_not_right(tmp_path, words, problem):
    file = tmp_path / "r.yaml"
    file.write_text("data: {source: x}")
    with pytest.raises(InputError) as caught:
        loader.load(file, words)
    assert caught.value.problems == (f"command line: {problem}",)


def test_a_key_that_is_set_twice_in_a_stage(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("data: {source: x}\ntrain:\n  stages:\n  - {lr: 1,\n     lr: 2}\n")
    with pytest.raises(InputError, match=r"train\.stages\.1\.lr: set twice, on lines 4 and 5"):
        loader.load(file)


def test_steps_are_counted_through_all(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("data: {source: x}")
    recipe = loader.load(file, [FOUR[0], "train.batch_size=8"])
    again = tmp_path / "again.yaml"
    again.write_text(loader.to_yaml(recipe))
    assert loader.load(again).train == recipe.train
    found = stages.plan_stages(recipe, rows=93)
    assert [(stage.begin, stage.end) for stage in found] == [(0, 24), (24, 48), (48, 55), (55, 81)]
    assert [stage.is_last for stage in found] == [False, False, False, True]
    assert [stages.stage_at(found, done).number for done in (0, 1, 24, 25, 48, 55, 81, 99)] == [
        1, 1, 1, 2, 2, 3, 4, 4,
    ]  # fmt: skip
    assert [(one.recipe.model.freeze, one.recipe.optim.lr) for one in found] == [
        ("encoder", 0.3), (1, 0.03), ("embeddings", 0.03), ("encoder", 0.03),
    ]  # fmt: skip
    [only] = stages.plan_stages(loader.load(file, ["train.epochs=3"]), rows=93)
    assert (only.begin, only.end, only.number, only.count) == (0, 9, 1, 1)
