"""Killed at any output after the last step, a run is completed by `run.resume`, without training.

Each test sends a real signal to a real process at the boundary of two outputs.
"""

import os
import shutil
import signal

import pytest

from finetune.training import folder_mark, run_folder
from finetune.training.train_log import TrainLog
from tests.end_to_end.test_push import hub  # noqa: F401
from tests.support import forks
from tests.support.runs import checkpoints, in_step, results, run_here

AT_OUTPUT = "tests.support.at_output"
TINY = (
    "train.max_steps=6", "checkpoint.every=never", "checkpoint.minutes=null", "score.every=3",
)  # fmt: skip
PUSHED = *TINY, "publish.repo_id=ann/tiny"
PLACES = [
    "before calibration",
    "before analysis",
    "before results.json",
    "after results.json",
    "after predictions/test.jsonl",
    "after model/README.md",
    "after report.html",
    "after results.json:2",
    "after the summary",
    "after logging to the trackers",
    "after closing the trackers",
    "before the push",
    "after the push",
    "before the mark",
    "after the mark",
]
OUTPUTS = ("results.json", "predictions/test.jsonl", "model/README.md", "report.html")


def kill(folder, place, name, *words, hub=None):  # noqa: F811
    """A run that gets a signal at a boundary; its exit code and output."""
    environment = {} if hub is None else {"AT_OUTPUT_HUB": hub.url}
    process = forks.start(
        AT_OUTPUT, place, name, "tiny.yaml", *words, cwd=folder, environment=environment
    )
    said = process.communicate(timeout=300)[0]
    return process.returncode, said


@pytest.fixture(scope="session")
def trained(documents, shared):
    """The folder of a run that was killed after its last step, which keeps no checkpoint."""

    def make(folder):
        where = f"run.dir={folder}"
        code, said = kill(folder.parent, "before calibration", "SIGKILL", where, *TINY)
        assert code == -signal.SIGKILL, said
        assert checkpoints(folder) == ["step-00000006"]

    return shared("documents/trained", make)


@pytest.fixture
def resumed(here, trained, monkeypatch):
    """Completes the run in `run/`; a step of training fails."""
    shutil.copytree(trained, here / "run")

    def complete(*words):
        with monkeypatch.context() as patch:
            patch.setattr(TrainLog, "end_step", no_step)
            run_here("run.resume=auto", "run.dir=run", *words)

    return complete


def no_step(*_, **__):
    raise AssertionError("a step of training")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("place", PLACES)
def test_a_kill_at_each_output(here, resumed, hub, place, name):  # noqa: F811
    folder = here / "run"
    trained_lines = (folder / "metrics.jsonl").read_bytes()
    code, said = kill(here, place, name, "run.resume=run", *PUSHED, hub=hub)
    assert code == (75 if name == "SIGTERM" else -signal.SIGKILL), said
    assert run_folder.is_complete(folder) is (place == "after the mark")
    resumed(*PUSHED)
    assert run_folder.is_complete(folder)
    assert all((folder / one).is_file() for one in OUTPUTS)
    assert results(folder)["failures"] == []
    assert (folder / "metrics.jsonl").read_bytes() == trained_lines
    repository = hub.repos["ann/tiny"]
    assert len(repository.commits) == 2, repository.messages  # of its creation, and of the model
    sent = {file.name: file.read_bytes() for file in (folder / "model").iterdir()}
    assert {name: hub.files("ann/tiny")[name] for name in sent} == sent
    # The checkpoint of the last step, which `never` does not keep, has served its purpose.
    assert checkpoints(folder) == []


def test_the_numbers_are_those_of_a_run_that_was_not_killed(here, resumed):
    run_here("run.dir=whole", *TINY)
    resumed(*TINY)
    for key in ("hashes", "validation", "test"):
        assert results(here / "run")[key] == results(here / "whole")[key]
    predictions = [here / name / "predictions/test.jsonl" for name in ("run", "whole")]
    assert predictions[0].read_text() == predictions[1].read_text()
    before = folder_mark.read_mark(here / "run")
    assert before.texts.keys() >= {"model/README.md"}
    resumed(*TINY)  # it is finished: nothing is done anew
    assert folder_mark.read_mark(here / "run") == before


def test_the_newest_unfinished_run_is_found_by_what_is_left_to_do(here, resumed, hub):  # noqa: F811
    home = here / "runs" / "tiny"
    home.mkdir(parents=True)
    (here / "run").rename(home / "monday")
    words = "run.resume=auto", *PUSHED
    code, said = kill(here, "before the push", "SIGKILL", *words, hub=hub)
    assert code == -signal.SIGKILL, said
    run_here(*words)
    assert run_folder.is_complete(home / "monday")
    assert [path.name for path in home.iterdir()] == ["monday"]


def test_a_complete_run_asks_the_hub_nothing(here, resumed, hub):  # noqa: F811
    """A repository that was deleted since is not made again; one that more steps need is asked."""
    resumed(*PUSHED)
    hub.repos.clear()
    asked = len(hub.requests)
    resumed(*PUSHED)
    assert len(hub.requests) == asked
    assert hub.repos == {}


def test_a_damaged_mark_is_no_end(here, resumed, capsys):
    resumed(*TINY)
    (here / "run" / "run.json").write_text("{")
    capsys.readouterr()
    run_here("run.resume=auto", "run.dir=run", *TINY, code=2)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: run/run.json is damaged: expected format 1 with kind, id and")


def test_no_checkpoint_of_an_earlier_signal_is_left(here):
    words = "run.dir=run", *TINY
    with pytest.MonkeyPatch.context() as patch:
        in_step(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run_here(*words, code=75)
    assert checkpoints(here / "run") == ["step-00000002"]
    run_here(*words, "run.resume=auto")
    assert run_folder.is_complete(here / "run")
    assert checkpoints(here / "run") == []
