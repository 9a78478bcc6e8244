"""scripts/bench/gpu_check.py without a GPU: its parts run, and say what only a GPU can tell."""

import json

import pytest
import torch

from tests.support import forks
from tests.support.processes import ENVIRONMENT, ROOT


@pytest.fixture
def gpu_check(monkeypatch):
    """The script, whose runs are forked instead of started."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts/bench"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    import gpu_check

    def start(words, folder, seconds, environment):
        assert words[:3] == ["-m", "finetune", "train"]
        more = {name: environment[name] for name in {"ACCELERATE_USE_CPU"} & environment.keys()}
        return forks.run(forks.TRAIN, *words[3:], cwd=folder, environment=ENVIRONMENT | more)

    monkeypatch.setattr(gpu_check, "start", start)
    return gpu_check


def test_each_part_is_a_line_of_the_table(here, gpu_check, monkeypatch, capsys):
    def fail(check):
        raise OSError("no such thing")

    parts = {name: gpu_check.PARTS[name] for name in ("machine", "waits", "numbers", "resume")}
    monkeypatch.setattr(gpu_check, "PARTS", {"broken": fail, **parts})
    words = ["encoder", "data/train.jsonl", "out", "--seconds", "9999"]
    assert gpu_check.main(words) == 0
    found = [tuple(line) for line in json.loads((here / "out/found.json").read_text())]
    assert ("broken", "failed", "OSError: no such thing") in found
    assert ("machine", "device", "no CUDA") in found
    assert ("waits", "-", "no CUDA") in found
    assert ("numbers", "-", "no CUDA") in found
    [losses] = [value for part, what, value in found if what.startswith("first and last loss")]
    assert losses.startswith("1.098612, ")  # ln 3, of a head of zeros
    assert ("resume", "the same weights", "True") in found
    table = capsys.readouterr().out.split("\n\n")[-1].strip().splitlines()
    assert len(table) == len(found)


def test_no_part_begins_without_time(here, gpu_check, capsys):
    assert gpu_check.main(["encoder", "data/train.jsonl", "out", "--seconds", "0"]) == 0
    found = json.loads((here / "out/found.json").read_text())
    assert found == [[name, "-", "no time left"] for name in gpu_check.PARTS]
