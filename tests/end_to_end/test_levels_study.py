"""The study of labels with levels: its columns, its three models, and that no path is broken."""

import json

import pytest

from finetune.runtime.errors import InputError
from scripts.studies import levels_study as study
from tests.support.runs import reset_accelerate

KINDS = {"LOC:city": "game team", "LOC:other": "fast race", "NUM:date": "bank tax"}


def write_questions(file, count):
    names = [*KINDS]
    lines = [f"{names[i % 3]} {KINDS[names[i % 3]]} caf\xe9 {i} ?\n" for i in range(count)]
    file.write_text("".join(lines), encoding="latin-1")


def test_a_study_of_one_seed(here, capsys):
    write_questions(here / "train.label", 120)
    write_questions(here / "test.label", 30)
    command = ["train.label", "test.label", "--seeds", "1", "--flat", "--out", "out"]
    asked = ["model.source=encoder", "train.threads=1", "data.max_length=32", "train.max_steps=3"]
    reset_accelerate()
    assert study.main([*command, *asked]) == 0
    *table, flat = capsys.readouterr().out.splitlines()[-5:]
    assert flat == "flat model of the fine labels: the same weights as 'levels'"
    head, levels, tasks, coarse = (line.split() for line in table)
    assert head[:3] == ["model", "seed", "coarse"]
    assert (levels[:2], levels[-1]) == (["levels", "0"], "0")
    assert tasks[0] == "tasks"
    assert coarse[3:] == ["–"] * 4
    results = json.loads((here / "out/seed-0/levels.json").read_text())["test"]
    assert float(levels[2]) == pytest.approx(100 * results["level_1_accuracy"], abs=0.06)
    assert float(levels[5]) == pytest.approx(100 * results["hierarchical_f1"], abs=0.06)
    row = json.loads((here / "out/seed-0/rows/test.jsonl").read_text().splitlines()[1])
    assert row == {
        "text": "fast race café 1 ?", "coarse": "LOC", "below": "other", "fine": "LOC/other",
    }  # fmt: skip
    (here / "bad.label").write_text("LOC city\n")
    with pytest.raises(InputError, match=r"bad\.label, line 1: expected a line such as"):
        study.read_questions(here / "bad.label")
