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


def test_both_sides_of_the_speed_table_are_of_the_same_steps(tmp_path, gpu_check):
    check = gpu_check.Check(tmp_path, tmp_path, tmp_path, 60, cuda=True)
    many, warm = gpu_check.window(check)
    assert (many, warm) == (120, 20)
    assert many % warm == 0  # lines for as many steps each, the first for those that warm it up
    lines = [{"kind": "train", "rows_per_second": rate} for rate in (1.0, 100.0, 50.0)]
    lines.insert(1, {"kind": "validation", "loss": 1.0})
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert gpu_check.rate_when_warm(tmp_path) == pytest.approx(2 / (1 / 100 + 1 / 50))


def test_inference_is_compared_on_a_cpu_too(here, gpu_check):
    words = ["encoder", "data/train.jsonl", "out", "--seconds", "9999", "--only", "inference"]
    assert gpu_check.main(words) == 0
    found = json.loads((here / "out/found.json").read_text())
    assert [what for _, what, _ in found] == [
        "pipeline, rows/s", "Classifier, rows/s", "share of the same labels",
    ]  # fmt: skip
    assert found[-1][-1] == "1"
