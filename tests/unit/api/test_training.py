"""Training from Python: what is passed, what comes back, and the caller's process after it."""

import json
import os
import random
import signal
import subprocess
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

import finetune
from finetune.api import training
from finetune.runtime import console
from finetune.training.session import Session
from tests.support.processes import ENVIRONMENT, ROOT, launch
from tests.support.runs import in_step
from tests.unit.api.conftest import SHORT


def train(**more):
    return finetune.train(**{"model": "encoder", **SHORT, **more})


def process_of_the_caller():
    """All that a run must leave as it was."""
    import datasets
    import transformers

    return {
        "python": random.getstate(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state()],
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "signals": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)],
        "console": {**vars(console.CONSOLE)},
        "accelerate": (dict(AcceleratorState._shared_state), dict(PartialState._shared_state)),
        "transformers": transformers.logging.get_verbosity(),
        "bars": transformers.logging.is_progress_bar_enabled(),
        "datasets": (datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()),
        "warnings": warnings.filters[:],
        "environment": dict(os.environ),
        "folder": Path.cwd(),
    }


def open_files():
    """Files and folders that this process has open or mapped, below the working folder."""
    here = str(Path.cwd())
    opened = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]  # noqa: PTH115
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return [name for name in [*opened, *mapped] if here in name]


def test_a_file_of_splits_and_a_frame_of_them_make_the_same_weights(here, frames, run):
    by_path = finetune.train(data="data", model="encoder", run={"dir": "of-files"}, **SHORT)
    for name in ("data", "test", "tokens", "first_weights", "weights", "recipe"):
        assert getattr(by_path.results.hashes, name) == getattr(run.results.hashes, name), name
    assert by_path.results.data.splits["train"].origin == "train.jsonl"
    assert run.results.data.splits["train"].origin == "the data frame 'train'"


def test_it_is_silent_and_leaves_the_process_as_it_was(here, frames, capfd):
    torch.manual_seed(5)
    before = process_of_the_caller()
    with torch.no_grad():
        trained = train(data=frames["train"])
    assert process_of_the_caller() == before
    assert open_files() == []
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert trained.folder.parent == Path("runs/frame")
    assert trained.results.train.steps == trained.results.train.planned_steps


def test_again_in_another_precision_beside_an_accelerator_of_the_callers(here, frames, capfd):
    mine = Accelerator()
    words = ["train.max_steps=2"]
    first = finetune.train("tiny.yaml", words, run={"dir": "a"})
    other = finetune.train("tiny.yaml", [*words, "train.precision=bf16"], run={"dir": "b"})
    assert first.results.hardware.precision == "fp32"
    assert other.results.hardware.precision == "bf16"
    assert mine.state.mixed_precision == "no"
    assert mine.is_main_process


def test_a_failure_leaves_the_process_as_it_was_and_nothing_open(here, frames, monkeypatch):
    before = process_of_the_caller()
    with pytest.raises(finetune.InputError) as told:
        train(data=frames["train"], label="lable")
    assert len(told.traceback) <= 5  # of the caller's and train's own frames
    assert str(told.value) == (
        "the data frame: no column 'lable' (data.label); did you mean 'label'? (columns: 'text', "
        "'label')"
    )

    def fail(*_):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(Session, "after_step", fail)
        with pytest.raises(ZeroDivisionError):
            train(data=frames["train"], run={"dir": "failed"})
    assert process_of_the_caller() == before
    assert open_files() == []
    again = train(data=frames["train"], run={"dir": "failed", "resume": "auto"})
    assert again.folder == Path("failed")


def test_an_error_while_the_caller_handles_another_names_both(frames):
    def fail():
        kept = "of the caller"
        raise KeyError(kept)

    try:
        fail()
    except KeyError:
        with pytest.raises(finetune.InputError) as told:
            train(data=frames["train"], label="lable")
    mine = told.value.__context__
    assert isinstance(mine, KeyError)
    assert not told.value.__suppress_context__
    assert mine.__traceback__.tb_next.tb_frame.f_locals == {"kept": "of the caller"}


def test_ctrl_c_ends_it_resumably_and_gives_the_signal_back(here, frames, monkeypatch, run):
    handler = signal.getsignal(signal.SIGINT)
    words = {"data": frames, "run": {"dir": "stopped"}}
    with monkeypatch.context() as patch:
        in_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt, match="after step 5, with a checkpoint") as told:
            train(**words)
    assert isinstance(told.value, finetune.StoppedError)
    assert signal.getsignal(signal.SIGINT) is handler
    assert open_files() == []
    with pytest.raises(finetune.InputError, match="is not finished; to go on"):
        finetune.Run("stopped")
    words["run"]["resume"] = "auto"
    assert train(**words).results.hashes.weights == run.results.hashes.weights


def test_a_second_ctrl_c_raises_at_once(here, frames, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    in_step(monkeypatch, 2, twice)
    with pytest.raises(KeyboardInterrupt) as told:
        train(data=frames["train"])
    assert not isinstance(told.value, finetune.StoppedError)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_in_a_thread_and_not_in_two(here, frames, monkeypatch):
    found = {}

    def second():
        try:
            train(data=frames["train"], run={"dir": "second"})
        except finetune.InputError as error:
            found["second"] = str(error)

    in_step(monkeypatch, 2, second)

    def first():
        found["first"] = train(data=frames["train"], run={"dir": "first"})

    thread = threading.Thread(target=first)
    thread.start()
    thread.join()
    assert found["first"].results.train.steps > 2
    assert found["second"].startswith("finetune.train: another thread of this process trains;")


def test_a_bar_and_lines_where_they_are_asked_for(here, frames, capfd):
    train(data=frames["train"], progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "100 %" in err
    assert "loss" in err
    train(data=frames["train"], verbose=True)
    out, err = capfd.readouterr()
    assert "Test accuracy" in out
    assert "frame:" in out


def test_the_saved_recipe_says_that_its_data_was_a_frame(run, frames):
    text = (run.folder / "recipe.yaml").read_text()
    assert text.startswith("# data.source names a data frame of a Python process: pass it again")
    finetune.Recipe.load(run.folder / "recipe.yaml")  # comments are no keys
    name = run.recipe.data.source
    assert name.startswith("frame:")
    with pytest.raises(finetune.InputError) as told:
        finetune.train(run.recipe)
    assert str(told.value) == (
        f"data.source: {name} was a data frame of the Python process that trained with it; pass "
        "the same frame again, as finetune.train(recipe, data=frame), or write it to a file, such "
        "as frame.to_csv('data.csv'), and set data.source to that"
    )
    again = finetune.train(run.folder / "recipe.yaml", data=frames, run={"dir": "again"})
    assert again.recipe.data.source == name
    assert again.results.hashes == run.results.hashes
    third = finetune.train(again.recipe, {"run.dir": "third"})  # as `again` is there
    assert third.results.hashes.weights == run.results.hashes.weights


def test_seeds_and_folds(here, frames, run):
    of_seeds = train(data=frames, run={"seeds": [0, 1], "dir": "seeds"}, optim={"lr": 0.1})
    assert [one.results.seed for one in of_seeds.seeds] == [0, 1]
    assert of_seeds.folds == ()
    assert of_seeds.seeds[0].results.hashes.weights == run.results.hashes.weights
    mean = sum(one.test.metric("accuracy") for one in of_seeds.seeds) / 2
    assert of_seeds.spread.test["accuracy"].mean == pytest.approx(mean)
    assert of_seeds.report.is_file()
    assert f"{of_seeds.spread.main_spread.mean:.4f}" in repr(of_seeds)
    assert "standard deviation of 2 seeds" in of_seeds._repr_html_()
    for name in ("results", "recipe", "classifier", "test"):
        with pytest.raises(finetune.InputError, match=r"holds the runs of 2 seeds; ask one"):
            getattr(of_seeds, name)

    of_folds = train(data=frames["train"], run={"folds": 2, "dir": "folds"})
    assert of_folds.folder == Path("folds/all")
    assert [one.folder.name for one in of_folds.folds] == ["fold-1", "fold-2"]
    assert of_folds.seeds == ()
    assert of_folds.test.rows == sum(one.test.rows for one in of_folds.folds)
    assert finetune.Run("folds").results == of_folds.results


def test_what_is_passed_wrongly_is_told_as_of_a_file(here, frames):
    def problems(**passed):
        with pytest.raises(finetune.InputError) as told:
            finetune.train(**passed)
        return list(told.value.problems)

    frame = frames["train"]
    assert problems(data=frame, train={"epochz": 3}, optim={"lr": "x"}) == [
        "finetune.train: train.epochz: no such key; did you mean train.epochs?",
        "finetune.train: optim.lr: expected a number above 0 or auto, got 'x'",
    ]
    assert problems(data=frame, epochs=3) == [
        "finetune.train: epochs: no such section; did you mean train={'epochs': …}?"
    ]
    assert problems(data=frame, train=3) == [
        "finetune.train: train: expected a dict of keys, got 3"
    ]
    assert problems(recipe="tiny.yaml", overrides=["learning_rate=1"]) == [
        "learning_rate=1: expected section.key=value; write optim.lr=1"
    ]
    assert problems(recipe="tiny.yaml", overrides=["optim.lr=-1"]) == [
        "finetune.train: overrides: optim.lr: expected a number above 0 or auto, got -1"
    ]
    assert problems(recipe="tiny.yaml", overrides={"optim.lrr": 1}) == [
        "finetune.train: optim.lrr: no such key; did you mean optim.lr?"
    ]
    assert problems(recipe=frame) == [
        "finetune.train: recipe: expected a recipe file or a finetune.Recipe, got DataFrame; data "
        "are passed as data=…"
    ]
    assert problems(data=frame["text"]) == [
        "data: expected a data frame of pandas or polars, an Arrow table, a datasets.Dataset, or "
        "a dict of such, one for each split, got a pandas.Series; pass series.to_frame()"
    ]
    assert problems(data={"train": frame, "test": object()})[0].endswith("got an object for 'test'")
    assert not Path("runs").exists()


def test_problems_of_rows_name_the_frame_and_the_row(here, frames):
    frame = frames["train"].astype(object)
    frame.loc[16, "text"] = 3
    frame.loc[17, "label"] = 1.5
    with pytest.raises(finetune.InputError) as told:
        train(data={"train": frame, "test": frames["test"]})
    assert told.value.problems == (
        "the data frame 'train': 'text' (data.text): expected text, got 3 at row 17",
        "the data frame 'train': 'label' (data.label): expected a label, as text, a whole number "
        "or true or false, or a list of labels, got 1.5 at row 18",
    )


def test_what_data_may_be(here, frames):
    from finetune.config.schema import Data

    frame = frames["train"]
    assert training._data_keys(None) == (None, {})
    assert training._data_keys(Path("a.csv")) == (None, {"source": "a.csv"})
    assert training._data_keys({"max_length": 8}) == (None, {"max_length": 8})
    assert training._data_keys(Data(source="a.csv")) == (None, {"source": "a.csv"})
    held, keys = training._data_keys({"source": frame, "max_length": 8})
    assert keys == {"source": held.name, "max_length": 8}
    held, keys = training._data_keys({"train": frame, "dev": frame})
    assert [*held.splits] == ["train", "dev"]
    assert keys == {"source": held.name}


def test_two_processes_of_a_launcher_train_one_model(here):
    Path("launched.py").write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [*launch(2), "launched.py"],
        cwd=here,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in sorted(done.stdout.splitlines())]
    assert [line["rank"] for line in lines] == [0, 1]
    assert lines[0]["weights"] == lines[1]["weights"]
    assert [line["processes"] for line in lines] == [[2, 2], [2, 2]]
    assert lines[0]["precisions"] == lines[1]["precisions"] == ["fp32", "bf16"]


SCRIPT = """
import json
import os

import pandas as pd

import finetune

frame = pd.read_json("data/train.jsonl", lines=True)
keys = {"data": frame, "model": "encoder", "checkpoint": {"every": "never"}}
runs = [
    finetune.train(**keys, train={"max_steps": 3, "precision": one, "threads": 1})
    for one in ("fp32", "bf16")
]
print(json.dumps({
    "rank": int(os.environ["RANK"]),
    "weights": [run.results.hashes.weights for run in runs],
    "processes": [run.results.num_processes for run in runs],
    "precisions": [run.results.hardware.precision for run in runs],
}))
"""


def test_a_dict_of_columns_is_no_section():
    columns = {"text": ["a text", "another"], "label": ["x", "x"]}
    for given in (columns, {"review": ["a text"], "stars": [3]}):
        with pytest.raises(finetune.InputError) as told:
            train(data=given)
        first, second = given
        assert str(told.value) == (
            "data: expected a data frame of pandas or polars, an Arrow table, a datasets.Dataset, "
            "or a dict of such, one for each split, a path or Hub id, or a dict of keys of the "
            "section data (source, text, label, …), got a dict of lists with "
            f"'{first}', '{second}'; pass a frame of it, such as pandas.DataFrame(data)"
        )
    keys = {"text": ["title", "body"]}
    assert training._data_keys(keys) == (None, keys)  # over those of a recipe
