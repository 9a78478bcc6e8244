"""Runs of a tiny recipe: started as a user starts them, stopped, taken up again, and compared."""

import json
import shutil
import subprocess
import sys

import torch
from safetensors.torch import load_file

from finetune import run
from tests.processes import ENVIRONMENT, RUN

# 12 steps an epoch, 36 in all.
RECIPE = """
data: {source: data, max_length: 32}
model: {source: encoder, dropout: 0.1}
train: {epochs: 3, batch_size: 8, log_every: 3, precision: fp32, threads: 1}
optim: {lr: 0.1}
score: {every: 5}
checkpoint: {every: 2, keep: 2}
"""


def command(*words, launcher=(sys.executable,)):
    return [*launcher, RUN, "tiny.yaml", *words]


def start(folder, *words, launcher=(sys.executable,), **more):
    """A run as a process of its own, whose output can be read as it comes."""
    return subprocess.Popen(
        command(*words, launcher=launcher),
        cwd=folder, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more,
    )  # fmt: skip


def wait_for_loss(process):
    """Read a run's output up to its first line of losses."""
    read = []
    for line in process.stdout:
        read.append(line)
        if line.startswith("  ") and "step" in line and "loss" in line:
            return
    raise AssertionError("".join(read))


def finish(folder, *words, launcher=(sys.executable,)):
    done = subprocess.run(
        command(*words, launcher=launcher),
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_here(*words, code=0):
    """A run in this process, which is far quicker to start."""
    assert run.main(["tiny.yaml", *words]) == code


def lines(run_folder, kind=None):
    """The log, or its lines of one kind, but for how long things took."""
    found = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    for line in found:
        line.pop("rows_per_second", None)
        line.pop("tokens_per_second", None)
    return [line for line in found if kind in (None, line["kind"])]


def results(run_folder):
    return json.loads((run_folder / "results.json").read_text())


def checkpoints(run_folder):
    return sorted(path.name for path in (run_folder / "checkpoints").iterdir())


def newest(run_folder):
    return run_folder / "checkpoints" / checkpoints(run_folder)[-1]


def contents(folder):
    """Every file of a folder, to see whether anything in it changed."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


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
    for key in ("hashes", "validation", "test"):
        assert results(one)[key] == results(other)[key]


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
