"""Sweeps: what they try, what they never look at, and what is left after one was killed."""

import gc
import itertools
import json
import os
import re
import signal

import pytest
from accelerate.state import AcceleratorState, GradientState

from finetune.cli import sweep
from finetune.data import prepare as prepare_module
from finetune.runtime.errors import InputError
from finetune.tokenization import encoding, token_cache
from finetune.training.train_log import TrainLog
from finetune.tuning import search_space, sweep_report
from tests.support import forks
from tests.support.browser import Browser, chromium
from tests.support.runs import contents, results, run_here

SPACE = "optim.lr: {log: [0.01, 1]}\ntrain.batch_size: {choice: [8, 16]}\n"
WORDS = "train.epochs=1", "score.every=3", "score.monitor=loss", "model.dropout=0"


class DiedError(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@pytest.fixture
def asked(here):
    (here / "space.yaml").write_text(SPACE)
    return ["tiny.yaml", "--space", "space.yaml", "--seeds", "0", *WORDS]


def start(*words, code=0):
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    assert sweep.main(list(words)) == code


def study(folder):
    """What came out, but for how long it took."""
    found = json.loads((folder / "sweep.json").read_text())
    for one in found["trials"]:
        one.pop("seconds")
    return found


def stop_in(patch, trial_step, act):
    """Do something in a step, counted over all trials; tells which files stood at that time."""
    done, end_step = [], TrainLog.end_step

    def counted(self, *given, **named):
        done.append(1)
        if len(done) == trial_step:
            act()
        end_step(self, *given, **named)

    patch.setattr(TrainLog, "end_step", counted)


def died():
    raise DiedError


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_killed_and_taken_up_again_it_gives_the_same_study(here, asked, pruner, capsys):
    more = [*asked, "--trials", "8", "--pruner", pruner]
    start(*more, "--dir", "whole")
    whole = study(here / "whole")
    states = [one["state"] for one in whole["trials"]]
    assert len(states) == 8
    assert pruner == "median" or "pruned" in states
    assert states.count("complete") > 3
    kept = {path.name for path in (here / "whole/trials/0000").iterdir()}
    assert kept == {"run.json", "recipe.yaml", "metrics.jsonl", "preflight.json"}
    # Killed in the middle of a trial, then stopped in the middle of another, then left alone.
    with pytest.MonkeyPatch.context() as patch:
        stop_in(patch, 40, died)
        try:
            start(*more, "--dir", "parts")
        except DiedError:
            pass
        else:
            pytest.fail("it lived on")
    gc.collect()  # the dead process's locks go with it
    with pytest.MonkeyPatch.context() as patch:
        stop_in(patch, 20, lambda: os.kill(os.getpid(), signal.SIGTERM))
        capsys.readouterr()
        start(*more, "--dir", "parts", code=75)
    gc.collect()
    out, said = capsys.readouterr()
    assert re.search(r"Resuming: \d trials? already finished", out)
    assert "stopped by SIGTERM after step" in said
    assert "the same command goes on with the sweep" in said
    start(*more, "--dir", "parts")
    assert study(here / "parts") == whole
    assert (here / "parts/best.yaml").read_text().split("\n")[4:] == (
        here / "whole/best.yaml"
    ).read_text().split("\n")[4:]


def test_trials_never_see_test_and_the_winner_is_scored_on_it_once(here, asked, monkeypatch):
    seen, encode = [], encoding.encode
    monkeypatch.setattr(
        encoding, "encode", lambda texts, *a, **k: seen.append(texts) or encode(texts, *a, **k)
    )
    start(*asked, "--trials", "3", "--dir", "sw")
    texts = [text for given in seen for text in given]
    assert sum(text.startswith("train ") for text in texts) == 93  # once for all trials
    assert sum(text.startswith("validation ") for text in texts) == 13
    assert not any(text.startswith("test ") for text in texts)
    assert not list((here / "sw").rglob("predictions"))
    assert not list((here / "sw").rglob("model"))
    # More trials go on from these; then the winner, which alone sees test.
    seen.clear()
    start(*asked, "--trials", "4", "--dir", "sw", "--seeds", "2")
    found = json.loads((here / "sw/sweep.json").read_text())
    assert [one["number"] for one in found["trials"]] == [0, 1, 2, 3]
    tests = [texts for texts in seen if texts[0].startswith("test ")]
    assert len(tests) == 1  # for both seeds
    assert found["winner"]["seeds"] == [0, 1]
    home = here / "sw" / found["winner"]["folder"]
    assert results(home / "seed-1")["test"]["labelled"]
    # best.yaml is the winner's recipe, and runs as it stands.
    run_here.__globals__["run"].main(["sw/best.yaml", "run.dir=again"])
    assert results(here / "again")["hashes"] == results(home / "seed-0")["hashes"]
    page = (here / "sw/report.html").read_text()
    assert page.count('<svg class="chart"') == 4
    assert f"{found['winner']['folder']}/seed-0/report.html" in page


def test_documents_are_prepared_once(here, monkeypatch):
    """Texts are read once, and their tokens made once for each length that is tried."""
    calls = {"prepare": 0, "encode": []}
    prepare, encode = prepare_module.prepare_corpus, token_cache.encode

    def counting_prepare(*given, **named):
        calls["prepare"] += 1
        return prepare(*given, **named)

    def counting_encode(reads, *given):
        calls["encode"].append(reads.max_length)
        return encode(reads, *given)

    monkeypatch.setattr(prepare_module, "prepare_corpus", counting_prepare)
    monkeypatch.setattr(token_cache, "encode", counting_encode)
    (here / "space.yaml").write_text(SPACE)
    start("tiny.yaml", "--space", "space.yaml", "--seeds", "0", *WORDS, "--trials", "4")
    assert calls["prepare"] == 1
    assert len(calls["encode"]) == 2  # train, and validation
    # Where it is tried how long a text may be, they are cut anew, and nothing else.
    calls.update(prepare=0, encode=[])
    (here / "space.yaml").write_text("data.max_length: {choice: [8, 16]}\n")
    start(
        "tiny.yaml", "--space", "space.yaml", "--seeds", "0", *WORDS, "--trials", "4", "--dir", "b"
    )
    trials = sorted(study(here / "b")["trials"], key=lambda one: one["number"])
    tried = [int(one["settings"]["data.max_length"]) for one in trials]
    assert calls["prepare"] == 1
    assert calls["encode"][::2] == [length for length, _ in itertools.groupby(tried)]
    assert len({*tried}) == 2


def test_two_processes_on_one_study(here, asked):
    words = *asked, "--trials", "4", "--seeds", "1"
    both = [forks.start("scripts.sweep", *words, cwd=here) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    trials = study(here / "runs/tiny/sweep")["trials"]
    assert [one["number"] for one in trials] == [0, 1, 2, 3]
    assert all(one["state"] in ("complete", "pruned") for one in trials)
    assert sum(len(re.findall(r"^  trial \d ", one, re.M)) for one in said) == 4
    assert (here / "runs/tiny/sweep").joinpath("winner").is_dir()


def test_what_diverges_or_does_not_go_together_is_left_off(here, asked, capsys):
    (here / "space.yaml").write_text(
        "optim.lr: {choice: [0.1, 1e30]}\noptim.name: {choice: [sgd, adamw]}\n"
        "optim.nesterov: {choice: [false, true]}\n"
    )
    start(*asked, "--trials", "8", "--dir", "sw")
    found = study(here / "sw")
    ends = {one["why"].split(":")[0] for one in found["trials"] if one["why"]}
    assert ends == {"diverged", "the sweep"}
    assert "pruned: diverged" in capsys.readouterr().out


def test_problems_are_told_at_once(here, capsys):
    (here / "space.yaml").write_text(
        "lr: {log: [1, 2]}\noptim.lrr: {log: [1, 2]}\noptim.lr: {log: [0, 2]}\n"
        "optim.warmup: {uniform: [0, 1.5]}\ntrain.epochs: {uniform: [1, 4]}\n"
        "train.batch_size: {int: [8, 4]}\nrun.seed: {int: [0, 3]}\n"
        "score.monitor: {choice: [a, b]}\n"
        "optim.schedule: {choice: [linear, step]}\noptim.name: 3\nmodel.pooling: {choice: [cls]}\n"
        "data.source: {choice: [a, b]}\nmodl.source: {choice: [a, b]}\n"
        "optim: {lr: {log: [1, 2]}, warmup: {uniform: [0, 1]}}\n"
    )
    start("tiny.yaml", "--space", "space.yaml", code=2)
    at = "error: space.yaml: "
    forms = search_space.FORMS
    assert capsys.readouterr().err.splitlines() == [
        f"{at}lr: expected a key of the recipe such as optim.lr; did you mean optim.lr?",
        f"{at}optim.lr: expected two numbers above 0 after log, the lower first, got [0, 2]",
        f"{at}train.batch_size: expected two whole numbers after int, the lower first, got [8, 4]",
        f"{at}run.seed: a sweep cannot vary this, as it decides by luck alone, and several seeds "
        "train the winner (--seeds); set it in the recipe",
        f"{at}score.monitor: a sweep cannot vary this, as trials are compared by it; set it in the "
        "recipe",
        f"{at}optim.name: expected {forms}, got 3",
        f"{at}model.pooling: expected two choices or more, each once, got ['cls']",
        f"{at}data.source: a sweep cannot vary this, as it decides which rows trials are compared "
        "on; set it in the recipe",
        f"{at}modl.source: expected a key of the recipe such as optim.lr; did you mean 'model'?",
        f"{at}optim: expected a key of the recipe such as optim.lr; write optim.lr: …, "
        "optim.warmup: …",
        f"{at}optim.lrr: no such key; did you mean optim.lr?",
        f"{at}optim.warmup: expected a number of at least 0 and below 1, got 1.5",
        f"{at}train.epochs: expected a whole number of at least 1 or auto, got 1.0",
        f"{at}optim.schedule: expected linear, cosine or constant, got 'step'",
    ]


def test_another_space_is_not_mixed_in(here, asked, capsys):
    start(*asked, "--trials", "1", "--dir", "sw")
    (here / "space.yaml").write_text("optim.lr: {log: [0.01, 2]}\n")
    start(*asked, "--trials", "2", "--dir", "sw", code=2)
    assert capsys.readouterr().err == (
        "error: sw: the folder holds a sweep of tiny with another space; set it back, or give "
        "another --dir (and with --storage, another run.name)\n"
    )
    start(*asked, "optim.momentum=0.5", "--trials", "2", "--dir", "sw", code=2)
    assert "another recipe (optim.momentum)" in capsys.readouterr().err
    start(*asked, "--storage", "nosuch://x/y", "--dir", "other", code=2)
    assert "error: --storage: nosuch://x/y: no such database: " in capsys.readouterr().err


def test_a_recipe_whose_first_trial_was_refused_may_be_mended(here, asked, capsys):
    start(*asked, "run.folds=3", "--dir", "sw", code=2)
    assert capsys.readouterr().err.startswith("error: run.folds: expected none in a sweep, got 3")
    assert not (here / "sw").exists()
    (here / "few").mkdir()
    for split in ("train", "test"):
        (here / "few" / f"{split}.jsonl").symlink_to(here / "data" / f"{split}.jsonl")
    few = [*asked, "data.source=few", "--dir", "sw"]
    start(*few, "data.validation=none", code=2)
    assert "there is no validation split (none); set" in capsys.readouterr().err
    start(*few, "data.validation=carve", "--trials", "1")
    capsys.readouterr()
    # One that was scored holds on to its recipe, and to its folder.
    before = contents(here / "sw" / "trials")
    start(*few, "data.validation=none", code=2)
    assert "with another recipe (data.validation)" in capsys.readouterr().err
    start(*few, "run.name=other", code=2)
    assert capsys.readouterr().err == (
        "error: sw: the folder holds a sweep of tiny; give another --dir\n"
    )
    assert contents(here / "sw" / "trials") == before


def test_studies_of_one_database_leave_each_other_alone(here, asked):
    shared = "--storage", "sqlite:///shared.db"
    start(*asked, *shared, "--dir", "one", "--trials", "2")
    one = study(here / "one")
    start(*asked, *shared, "--dir", "two", "run.name=two", "data.validation=none", code=2)
    start(*asked, *shared, "--dir", "two", "run.name=two", "--trials", "1")
    assert len(study(here / "two")["trials"]) == 1
    start(*asked, *shared, "--dir", "one", "--trials", "2")
    assert study(here / "one") == one


def test_documents_of_several_labels_want_another_metric(here, asked, capsys):
    lines = (here / "data" / "train.jsonl").read_text().splitlines()
    (here / "few").mkdir()
    with (here / "few" / "train.jsonl").open("w") as out:
        for i, row in enumerate(map(json.loads, lines)):
            out.write(json.dumps(row | {"label": [row["label"], "d"][: 1 + (i % 5 == 0)]}) + "\n")
    few = [word for word in asked if not word.startswith("score.monitor")]
    few += ["data.source=few", "data.validation=carve", "--dir", "sw", "--trials", "1"]
    start(*few, code=2)
    assert capsys.readouterr().err.endswith(
        "are scored by other metrics than accuracy; set score.metrics and score.monitor, of loss, "
        "f1_micro, f1_macro, accuracy\n"
    )
    start(*few, "score.metrics=[f1_micro]", "score.monitor=f1_micro")


def test_a_value_that_needs_another_choice_is_no_problem(here):
    (here / "space.yaml").write_text(
        "train.loss: {choice: [cross_entropy, focal]}\ntrain.focal_gamma: {uniform: [1, 3]}\n"
    )
    found = search_space.load_space(here / "space.yaml", here / "tiny.yaml")
    assert [one.kind for one in found] == ["choice", "uniform"]
    (here / "space.yaml").write_text("train.focal_gamma: {uniform: [1, 3]}\n")
    with pytest.raises(InputError) as caught:
        search_space.load_space(here / "space.yaml", here / "tiny.yaml")
    assert str(caught.value) == (
        "space.yaml: train.focal_gamma: expected 2.0 with train.loss 'cross_entropy' (it is of "
        "focal)"
    ).replace("space.yaml", str(here / "space.yaml"))


@pytest.mark.skipif(chromium() is None, reason="no Chromium is installed here")
def test_the_page_in_a_real_browser(tmp_path):
    trials = [
        {
            "number": n, "state": "pruned" if n % 4 == 3 else "complete",
            "value": None if n % 4 == 3 else 0.8 + 0.01 * (n * 7 % 13), "scorings": [0.7, 0.8],
            "seconds": 3.0 + n, "why": "after 2 scorings" if n % 4 == 3 else None,
            "settings": {"optim.lr": 0.001 * 1.3**n, "optim.schedule": ["linear", "<b>"][n % 2]},
        } for n in range(20)
    ]  # fmt: skip
    found = {
        "recipe": "many", "metric": "accuracy", "direction": "maximize", "seed": 0,
        "pruner": "median", "sampler": "TPE", "trials": trials, "best": 12, "winner": None,
        "space": {"optim.lr": {"log": [0.001, 0.3]},
                  "optim.schedule": {"choice": ["linear", "<b>"]}},
        "importance": {"optim.lr": 0.9, "optim.schedule": 0.1},
    }  # fmt: skip
    sweep_report.write_sweep_report(found, tmp_path)
    assert "<b></td>" not in (tmp_path / "report.html").read_text()
    with Browser() as browser:
        for width, dark in ((1280, False), (360, True)):
            browser.open(tmp_path / "report.html", width, dark)
            assert browser.problems == []
            assert browser.value("document.documentElement.scrollWidth") <= width
        assert {url.split(":")[0] for url in browser.requests} <= {"file", "data"}
