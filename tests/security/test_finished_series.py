"""Seeds, folds and sweeps: killed at an output of a later run, all is completed, and no run twice.

Seeds and folds are killed by a real signal in a process of their own, sweeps by an error that
nothing catches.
"""

import json
import shutil
import signal

import pytest

from finetune import pipeline
from finetune.hub import delivery
from finetune.training import folder_mark, run_folder
from finetune.training.train_log import TrainLog
from finetune.tuning import sweep as sweep_module
from finetune.tuning import sweep_report, trial
from tests.end_to_end.test_sweep import DiedError, asked, start, study  # noqa: F401
from tests.security.test_finished import OUTPUTS, TINY, kill, no_step
from tests.support.runs import checkpoints, results, run_here

SEEDS = *TINY, "run.seeds=[0, 1]"
FOLDS = *TINY, "run.folds=2", "data.source=data/train.jsonl", "data.validation=carve"
SERIES = {"seeds": (SEEDS, ("seed-0", "seed-1")), "folds": (FOLDS, ("fold-1", "fold-2", "all"))}


@pytest.fixture(scope="session")
def trained(documents, shared):
    """A series that was killed after the last step of its last run."""

    def make(kind):
        words, runs = SERIES[kind]

        def begin(folder):
            place = f"before calibration:{len(runs)}"
            code, said = kill(folder.parent, place, "SIGKILL", f"run.dir={folder}", *words)
            assert code == -signal.SIGKILL, said

        return shared(f"documents/{kind}", begin)

    return make


def trained_lines(folder, runs):
    return {name: (folder / name / "metrics.jsonl").read_bytes() for name in runs}


PLACES = {
    "seeds": [
        "before results.json",
        "after model/README.md",
        "before the mark",
        "before seeds.json",
        "after seeds.json",
        "after the report of all seeds",
    ],
    "folds": ["before results.json", "after predictions/test.jsonl", "before the mark"],
}


@pytest.mark.parametrize("place", [(kind, one) for kind in PLACES for one in PLACES[kind]], ids=str)
def test_a_kill_in_the_last_run_of_several(here, trained, place):
    kind, where = place
    words, runs = SERIES[kind]
    home = shutil.copytree(trained(kind), here / "run")
    before = trained_lines(home, runs)
    first = folder_mark.read_mark(home / runs[0])
    again = "run.dir=run", "run.resume=auto", *words
    code, said = kill(here, where, "SIGKILL", *again)
    assert code == -signal.SIGKILL, said
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainLog, "end_step", no_step)
        run_here(*again)
    assert trained_lines(home, runs) == before
    assert folder_mark.read_mark(home / runs[0]) == first
    for name in runs:
        assert run_folder.is_complete(home / name)
        assert results(home / name)["failures"] == []
        assert [one for one in OUTPUTS if not (home / name / one).is_file()] == []
        assert checkpoints(home / name) == []
    if kind == "seeds":
        assert json.loads((home / "seeds.json").read_text())["seeds"] == [0, 1]
        assert (home / "report.html").is_file()


def test_a_kill_in_a_fold_before_the_last(here):
    home, runs = here / "run", SERIES["folds"][1]
    words = "run.dir=run", *FOLDS
    code, said = kill(here, "after predictions/test.jsonl:2", "SIGKILL", *words)
    assert code == -signal.SIGKILL, said
    before = trained_lines(home, runs[:2])
    run_here("run.resume=auto", *words)
    assert trained_lines(home, runs[:2]) == before
    assert all(run_folder.is_complete(home / name) for name in runs)


def die_at(patch, place, number, moment):
    """Have the process die before or after a function is called for so many times."""
    module, name = place
    call, made = getattr(module, name), []

    def watched(*given, **named):
        made.append(1)
        if moment == "before" and len(made) == number:
            raise DiedError
        result = call(*given, **named)
        if moment == "after" and len(made) == number:
            raise DiedError
        return result

    patch.setattr(module, name, watched)


IN_A_SWEEP = {
    "the mark of a trial": (pipeline, "mark_finished"),
    "the end of a trial": (trial.TrialRun, "_finish"),
    "what a trial leaves": (trial, "remove_states"),
    "best.yaml": (sweep_module, "write_best"),
    "the report": (sweep_report, "write_sweep_report"),
}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("place", IN_A_SWEEP)
def test_a_kill_in_a_sweep(here, asked, moment, place):  # noqa: F811
    words = [*asked, "--trials", "2", "train.max_steps=3"]
    number = 1 if place in ("best.yaml", "the report") else 2
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, IN_A_SWEEP[place], number, moment)
        with pytest.raises(DiedError):
            start(*words, "--dir", "swept")
    folders = [here / "swept" / "trials" / f"000{number}" for number in (0, 1)]
    before = [(folder / "metrics.jsonl").read_bytes() for folder in folders]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainLog, "end_step", no_step)
        start(*words, "--dir", "swept")
    assert [(folder / "metrics.jsonl").read_bytes() for folder in folders] == before
    found = study(here / "swept")
    assert [one["state"] for one in found["trials"]] == ["complete"] * 2
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {
            "run.json", "recipe.yaml", "metrics.jsonl", "preflight.json",
        }  # fmt: skip
    assert (here / "swept" / "report.html").is_file()
    assert (here / "swept" / "best.yaml").is_file()


def test_a_kill_in_the_winner_of_a_sweep(here, asked):  # noqa: F811
    words = [*asked, "train.max_steps=3", "--trials", "1", "--seeds", "2", "--dir", "swept"]
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, (delivery, "mark_finished"), 2, "before")
        with pytest.raises(DiedError):
            start(*words)
    home = here / "swept" / "winner" / "trial-0000"
    before = trained_lines(home, ("seed-0", "seed-1"))
    start(*words)
    assert trained_lines(home, ("seed-0", "seed-1")) == before
    assert all(run_folder.is_complete(home / name) for name in before)
    assert study(here / "swept")["winner"]["seeds"] == [0, 1]
