"""Weights spread over two processes (FSDP2): the same run as one process's."""

import json
import shutil
import subprocess

import pytest
from safetensors.torch import load_file

from tests.support import forks
from tests.support.processes import ENVIRONMENT, ROOT, RUN, launch
from tests.support.runs import finish
from tests.support.tiny import WORDS, tiny_encoder

CONFIG = str(ROOT / "recipes" / "accelerate" / "fsdp2.yaml")
OPTIONS = "--config_file", CONFIG
SHARDED = [*launch(), *OPTIONS, "--num_processes", "2", RUN]
RECIPE = """
data: {source: data, max_length: 32}
model: {source: encoder}
train: {epochs: 2, batch_size: 8, log_every: 3, precision: fp32, threads: 1}
optim: {lr: 0.1}
score: {every: 5}
checkpoint: {every: 4, keep: 9}
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    tiny_encoder(folder / "encoder")
    (folder / "data").mkdir()
    for split, rows in {"train": 41, "validation": 13, "test": 17}.items():
        with (folder / "data" / f"{split}.jsonl").open("w") as out:
            for i in range(rows):
                words = [WORDS[(20 * (i % 3) + i * k) % 60] for k in range(1, 3 + i % 9)]
                line = {"text": " ".join([split, str(i), *words]), "label": "abc"[i % 3]}
                out.write(json.dumps(line) + "\n")
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder


def run_sharded(work, *words):
    done = forks.run_ranks(2, forks.TRAIN, "tiny.yaml", *words, cwd=work, options=OPTIONS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 processes, weights sharded" in done.stdout


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("freeze", ["none", "encoder"])
def test_the_same_run_as_one_process(work, freeze):
    one, two = work / f"{freeze}-one", work / f"{freeze}-two"
    words = f"model.freeze={freeze}", "model.dropout=0", "train.average_last=0.5"
    finish(work, *words, f"run.dir={one}")
    run_sharded(work, *words, f"run.dir={two}")
    assert json.loads((two / "results.json").read_text())["num_processes"] == 2
    assert files(one) == files(two)
    assert json.loads((two / "results.json").read_text())["sharded"]
    for file in sorted(files(one)):
        if file.endswith(".safetensors"):
            ones, twos = load_file(one / file), load_file(two / file)
            # A checkpoint also holds each process's random states and sums.
            assert {n for n in ones if "process/" not in n} == {
                n for n in twos if "process/" not in n
            }
            for name in ones:
                # To where a softmax gives no gradient (keys' biases), sums of its errors go.
                if "process/" not in name:
                    scale = ones[name].float().abs().max().clamp(min=1e-2)
                    apart = (ones[name].float() - twos[name].float()).abs().max()
                    assert apart <= 1e-5 * scale, (file, name)


def test_resuming_gives_the_same_bits(work):
    whole, again = work / "whole", work / "again"
    more = "model.dropout=0.1", "train.average_last=0.9"
    words = "tiny.yaml", *more, f"run.dir={whole}"
    done = subprocess.run(
        [*SHARDED, *words], cwd=work, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 processes, weights sharded" in done.stdout
    shutil.copytree(whole, again)
    (again / "results.json").unlink()
    for step in (8, 12):
        shutil.rmtree(again / "checkpoints" / f"step-{step:08d}")
    run_sharded(work, *more, f"run.resume={again}")
    for file in ("model/model.safetensors", "checkpoints/step-00000012/state.safetensors"):
        assert (whole / file).read_bytes() == (again / file).read_bytes()
