"""`finetune` as a user types it, far from any checkout: it trains, predicts and reports."""

import json
import subprocess
import sys

import pytest

from tests.support.processes import ENVIRONMENT, ROOT, launch
from tests.support.tiny import WORDS, tiny_encoder

RECIPE = """
data: {source: documents.csv, max_length: 32}
model: {source: encoder}
train: {epochs: 1, batch_size: 8, precision: fp32, threads: 1}
optim: {lr: 0.3}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Documents, an encoder and a recipe, and nothing of the checkout."""
    here = tmp_path_factory.mktemp("far")
    tiny_encoder(here / "encoder")
    rows = [f"{WORDS[i % 60]} {WORDS[7 * i % 60]},{'ab'[i % 2]}" for i in range(120)]
    (here / "documents.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (here / "mine.yaml").write_text(RECIPE)
    return here


def call(folder, *words, start=(sys.executable,)):
    return subprocess.run(
        [*start, "-m", "finetune", *words],
        cwd=folder, env=ENVIRONMENT | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_train_predict_and_report(folder):
    done = call(folder, "train", "mine.yaml", "run.dir=run", "--quiet")
    assert done.returncode == 0, done.stderr
    score, report = done.stdout.splitlines()
    assert score.startswith("Test accuracy ")
    assert report == "Report: run/report.html"
    done = call(folder, "predict", "run", "documents.csv", "--output", "out.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 120
    assert len((folder / "out.jsonl").read_text().splitlines()) == 120
    before = (folder / "run/report.html").read_bytes()
    (folder / "run/report.html").unlink()
    done = call(folder, "report", "run")
    assert (done.returncode, done.stdout) == (0, "run/report.html\n"), done.stderr
    assert (folder / "run/report.html").read_bytes() == before


def test_a_shipped_recipe_runs_dry_by_its_name(folder):
    words = ("data.source=documents.csv", "model.source=encoder", "data.max_length=32")
    done = call(folder, "train", "--recipe", "bbc_news", *words, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "\n  name: bbc_news\n" in done.stdout


@pytest.mark.slow
def test_several_processes_by_the_module(folder):
    done = call(folder, "train", "mine.yaml", "run.dir=two", "--quiet", start=launch(2))
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "two/results.json").read_text())["num_processes"] == 2


def test_problems_and_mistyped_commands(folder):
    done = call(folder, "train", "mine.yaml", "optim.lrr=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: command line: optim.lrr: no such key; did you mean optim.lr?\n"
    done = call(folder, "tran")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: tran: no such command; did you mean 'train'?\n"
