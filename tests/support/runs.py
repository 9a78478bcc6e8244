"""Runs of a tiny recipe: started as a user starts them, stopped, taken up again, and compared."""

import json
import re
import shutil
import subprocess
import sys

import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file

from finetune import run
from finetune.training.train_log import TrainLog
from tests.support import forks
from tests.support.processes import AT_STEP, ENVIRONMENT, RUN

# 12 steps an epoch, 36 in all.
RECIPE = """
data: {source: data, max_length: 32}
model: {source: encoder, dropout: 0.1}
train: {epochs: 3, batch_size: 8, log_every: 3, precision: fp32, threads: 1}
optim: {lr: 0.1}
score: {every: 5}
checkpoint: {every: 2, keep: 2}
"""


RUN_FOLDER = r"run\.(dir|resume)=(?!auto$)"


# For code of `at_step.py`: the checkpoint of a step is written while the next one is computed.
ONCE_WRITTEN = "while not os.path.isdir('run/checkpoints/step-{:08d}'): time.sleep(0.01)\n"


def command(*words, launcher=(sys.executable,), act=()):
    """A run, or one in which `act`'s rank does something in a step: (step, rank, code)."""
    return [*launcher, *([AT_STEP, *map(str, act)] if act else [RUN]), "tiny.yaml", *words]


def start(
    folder, *words, launcher=None, processes=1, options=(), act=(), stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT, new_session=False,
):  # fmt: skip
    """A run as a process of its own, or as several, whose output can be read as it comes.

    Args:
        launcher: what starts it as a user does, a real process; None: it is forked.
        options: of `accelerate launch`, for forked processes.
        act: as of `command`.
    """
    if launcher is not None:
        return subprocess.Popen(
            command(*words, launcher=launcher, act=act),
            cwd=folder, env=ENVIRONMENT, text=True, stdout=stdout, stderr=stderr,
            start_new_session=new_session,
        )  # fmt: skip
    module, given = (forks.AT_STEP, act) if act else (forks.TRAIN, ())
    given = [*given, "tiny.yaml", *words]
    streams = {"stdout": stdout, "stderr": stderr}
    if processes > 1:
        return forks.start_ranks(processes, module, *given, cwd=folder, options=options, **streams)
    return forks.start(module, *given, cwd=folder, new_session=new_session, **streams)


def end(folder, *words, **more):
    """A run as `start` begins it, awaited: its exit code and its output."""
    process = start(folder, *words, **more)
    said = process.communicate(timeout=300)[0]
    return process.returncode, said


def in_step(patch, step, act):
    """Have the runs of this process do something in the middle of a step."""
    end_step = TrainLog.end_step

    def with_act(self, *given, **named):
        if self.steps + 1 == step:
            act()
        end_step(self, *given, **named)

    patch.setattr(TrainLog, "end_step", with_act)


def finish(folder, *words, processes=1, **more):
    """A run as `start` begins it, awaited: it must go well, by so many processes."""
    process = start(folder, *words, processes=processes, stderr=subprocess.PIPE, **more)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    [run_folder] = [word.partition("=")[2] for word in words if re.match(RUN_FOLDER, word)]
    written = [*(folder / run_folder).rglob("results.json")]
    assert {json.loads(file.read_text())["num_processes"] for file in written} == {processes}
    return out


def reset_accelerate():
    """Forget what the last run of this process had: else its precision stays."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def run_here(*words, code=0):
    """A run in this process, which is far quicker to start."""
    reset_accelerate()
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
    assert plain(newest(one)) == plain(newest(other))
    assert lines(one) == lines(other)
    assert (one / "predictions/test.jsonl").read_text() == (
        other / "predictions/test.jsonl"
    ).read_text()
    for key in ("hashes", "validation", "test"):
        assert results(one)[key] == results(other)[key]


def plain(point):
    """A checkpoint's plain values, but for what no two runs share."""
    values = json.loads((point / "state.json").read_text())
    values["state"].pop("run_id")
    values["log"] = {k: v for k, v in values["log"].items() if "seconds" not in k}
    values.pop("metrics_bytes")  # speeds are in the log
    values["identity"].pop("recipe")  # as are folders in it; results.json has a hash of the rest
    return values


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


def assert_exact(folder, *words):
    """A run taken up at a checkpoint is the same to the bit; split otherwise, but for rounding."""
    words = (*words, "train.max_steps=6", "model.dropout=0.0", "checkpoint.keep=99")
    run_here(*words, "run.dir=whole")
    run_here(*words, "run.dir=cut")
    point = next((folder / "cut/checkpoints").glob("step-*2"))
    for name in ("results.json", "report.html"):
        (folder / "cut" / name).unlink()
    run_here(*words, f"run.resume={point}")
    run_here(*words, "run.dir=small", "train.micro_batch_tokens=32")
    finish(folder, *words, "run.dir=two", processes=2)
    one, again, small, two = (
        load_file(folder / name / "model/model.safetensors")
        for name in ("whole", "cut", "small", "two")
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    for other in (small, two):
        assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
