"""A run that was stopped and taken up again equals one that never stopped."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from finetune import run
from tests.processes import ENVIRONMENT, RUN
from tests.tiny import WORDS, tiny_encoder

RECIPE = """
data: {source: data, max_length: 32}
model: {source: encoder, dropout: 0.1}
train: {epochs: 3, batch_size: 8, log_every: 3, precision: fp32, threads: 1}
optim: {lr: 0.1}
score: {every: 5}
checkpoint: {every: 2, keep: 2}
"""


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """A folder with documents of three labels, a tiny encoder and a recipe of 36 steps."""
    folder = tmp_path_factory.mktemp("documents")
    tiny_encoder(folder / "encoder")
    (folder / "data").mkdir()
    for split, rows in {"train": 93, "validation": 13, "test": 17}.items():
        with (folder / "data" / f"{split}.jsonl").open("w") as out:
            for i in range(rows):
                words = [WORDS[(20 * (i % 3) + i * k) % 60] for k in range(1, 3 + i % 9)]
                line = {"text": " ".join([split, str(i), *words]), "label": "abc"[i % 3]}
                out.write(json.dumps(line) + "\n")
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def here(documents, tmp_path, monkeypatch):
    """A working folder of the test's own, with the documents linked in."""
    for name in ("encoder", "data", "tiny.yaml"):
        (tmp_path / name).symlink_to(documents / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(documents):
    """The run that was never stopped, every checkpoint of it kept."""
    finish(documents, "run.dir=whole", "checkpoint.keep=99")
    return documents / "whole"


def command(*words):
    return [sys.executable, RUN, "tiny.yaml", *words]


def finish(folder, *words, of=None):
    done = subprocess.run(
        of or command(*words),
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lines(run_folder):
    """The log, but for how long things took."""
    found = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    for line in found:
        line.pop("rows_per_second", None)
        line.pop("tokens_per_second", None)
    return found


def newest(run_folder):
    return max((run_folder / "checkpoints").iterdir(), key=lambda path: path.name)


def assert_same(one, other):
    """Bit by bit: weights, the optimizer's memory, random states, log, scores, predictions."""
    for file in ("model/model.safetensors", f"checkpoints/{newest(one).name}/state.safetensors"):
        ones, others = load_file(one / file), load_file(other / file)
        assert ones.keys() == others.keys()
        assert [name for name in ones if not torch.equal(ones[name], others[name])] == []
    assert lines(one) == lines(other)
    assert (one / "predictions/test.jsonl").read_text() == (
        other / "predictions/test.jsonl"
    ).read_text()
    ones, others = (json.loads((run / "results.json").read_text()) for run in (one, other))
    for key in ("hashes", "validation", "test"):
        assert ones[key] == others[key]


def stopped_at(whole, folder, step):
    """The run as it stood when it was killed just after a checkpoint, later lines half written."""
    shutil.copytree(whole, folder)
    for point in (folder / "checkpoints").iterdir():
        if point.name > f"step-{step:08d}":
            shutil.rmtree(point)
    (folder / "results.json").unlink()
    shutil.rmtree(folder / "predictions")
    kept = [line for line in lines(folder) if line["step"] <= step + 1]
    text = "".join(json.dumps(line) + "\n" for line in kept)
    whole_text = (folder / "metrics.jsonl").read_text()
    own = json.loads((newest(folder) / "state.json").read_text())["metrics_bytes"]
    (folder / "metrics.jsonl").write_text(whole_text[:own] + text[-20:])
    return folder


def test_killed_at_random_moments(documents, whole):
    """SIGKILL at 20 moments of one run, start-up and writing included."""
    draw = random.Random(0)
    folder = documents / "killed"
    words = "run.dir=killed", "run.resume=auto", "checkpoint.every=1", "checkpoint.keep=2"
    killed, moments = 0, set()
    for _ in range(20):
        process = subprocess.Popen(
            command(*words),
            cwd=documents, env=ENVIRONMENT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        for line in process.stdout:
            if line.startswith("Training"):
                break
        time.sleep(draw.random() * 0.15)
        killed += process.poll() is None
        process.kill()
        rest = process.stdout.read()
        assert process.wait() in (0, -signal.SIGKILL), rest
        if (folder / "checkpoints").is_dir():
            names = sorted(path.name for path in (folder / "checkpoints").iterdir())
            moments.add(names[-1] if names else None)
    assert killed >= 15
    assert len(moments) >= 5
    finish(documents, *words)
    assert_same(whole, folder)


def test_a_checkpoint_between_log_lines_of_an_epoch(here, whole):
    """Step 8 of 12 in the first epoch, 3 rows' losses into the window of the next line."""
    folder = stopped_at(whole, here / "run", 8)
    run_here("run.resume=run", "checkpoint.keep=99")
    assert_same(whole, folder)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        path.name for path in (whole / "checkpoints").iterdir()
    }


def run_here(*words):
    assert run.main(["tiny.yaml", *words]) == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_ends_the_run_with_a_checkpoint(here, whole, name):
    process = subprocess.Popen(
        command("run.dir=run"),
        cwd=here, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith("  ") and "step" in line and "loss" in line:
            break
    process.send_signal(getattr(signal, name))
    rest = process.stdout.read()
    assert process.wait() == 75, rest
    assert f"stopped by {name} after step" in rest
    assert "run.resume=run" in rest
    run_here("run.resume=run")
    assert_same(whole, here / "run")


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
    assert run.main(["tiny.yaml", "run.resume=run", "optim.lr=0.2", "run.seed=1"]) == 2
    said = capsys.readouterr().err
    assert "optim.lr is 0.2, and was 0.1" in said
    assert "run.seed is 1, and was 0" in said
    assert len(list((here / "run" / "checkpoints").iterdir())) == 4
