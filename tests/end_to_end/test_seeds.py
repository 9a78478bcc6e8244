"""Several seeds in one command: each run is that of its seed alone; mean and spread by hand."""

import json
import os
import signal
import statistics

import pytest

from finetune.config import loader
from finetune.runtime.errors import InputError
from finetune.tuning import seeds
from tests.support.runs import finish, in_step, results, run_here


def test_each_run_is_that_of_its_seed_alone(here, capsys):
    run_here("run.dir=many", "run.seeds=[3, 4]", "train.epochs=1")
    said = capsys.readouterr().out
    assert {path.name for path in (here / "many").iterdir()} == {
        "seed-3", "seed-4", "seeds.json", "report.html",
    }  # fmt: skip
    run_here("run.dir=alone", "run.seed=4", "train.epochs=1")
    assert results(here / "alone")["hashes"] == results(here / "many/seed-4")["hashes"]
    assert results(here / "many/seed-3")["seed"] == 3
    found = json.loads((here / "many/seeds.json").read_text())
    both = [results(here / "many" / f"seed-{seed}")["test"]["accuracy"] for seed in (3, 4)]
    assert found["test"]["accuracy"] == {
        "values": both, "mean": statistics.fmean(both), "sd": statistics.stdev(both),
        "low": min(both), "high": max(both),
    }  # fmt: skip
    assert f"Test accuracy {statistics.fmean(both):.4f} ± {statistics.stdev(both):.4f}" in said
    assert said.endswith("Report: many/report.html\n")
    page = (here / "many/report.html").read_text()
    assert 'href="seed-3/report.html"' in page
    # Taken up again, finished seeds are left as they are, and a missing one is run.
    (here / "many/seed-3/results.json").rename(here / "kept.json")
    run_here("run.dir=many", "run.seeds=[3, 4, 5]", "train.epochs=1", "run.resume=auto")
    assert (
        results(here / "many/seed-3")["hashes"]
        == json.loads((here / "kept.json").read_text())["hashes"]
    )
    assert len(json.loads((here / "many/seeds.json").read_text())["test"]["loss"]["values"]) == 3


def test_a_stop_says_how_all_of_them_go_on(here, capsys):
    with pytest.MonkeyPatch.context() as patch:
        in_step(patch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
        run_here("run.dir=many", "run.seeds=[3, 4]", code=75)
    said = capsys.readouterr()
    assert (said.out + said.err).endswith(
        "stopped by SIGTERM after step 4, with a checkpoint; to go on, run the same with "
        "run.dir=many run.resume=auto\n"
    )


def test_by_two_processes(here):
    output = finish(here, "run.dir=two", "run.seeds=[0, 1]", "train.max_steps=2", processes=2)
    assert output.count("Report: ") == 3
    assert results(here / "two/seed-1")["num_processes"] == 2


def test_what_cannot_be(here):
    base = loader.load("tiny.yaml", ["run.seeds=[0, 1]"])
    assert [one.run.seed for one in seeds.seed_recipes(base)] == [0, 1]
    with pytest.raises(InputError) as caught:
        loader.load("tiny.yaml", ["run.seeds=[0, 0]"])
    assert str(caught.value).endswith("run.seeds: expected each once, got [0, 0]")
    for words, message in (
        (["publish.repo_id=a/b"], "publish.repo_id: run.seeds trains 2 models, and only one"),
        (["run.resume=auto"], "run.resume: expected auto with run.seeds, and run.dir"),
    ):
        with pytest.raises(InputError) as caught:
            seeds.seed_recipes(loader.load("tiny.yaml", ["run.seeds=[0, 1]", *words]))
        assert str(caught.value).startswith(message)


def test_a_dry_run_shows_one_of_them(here, capsys):
    from finetune import run

    assert run.main(["tiny.yaml", "run.seeds=[0, 1]", "run.dir=dry", "--dry-run"]) == 0
    assert capsys.readouterr().out.count("A dry run") == 1
    assert not (here / "dry").exists()
