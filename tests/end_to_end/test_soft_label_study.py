"""The study of soft labels: rows without labels, annotators' votes, pairs of runs."""

import json
import random

import pytest

from scripts.studies import soft_label_study as study
from tests.support.runs import reset_accelerate


def test_a_study_of_both(here, monkeypatch, capsys):
    (here / "sets" / "agnews").mkdir(parents=True)
    names = ("sport", "money", "tech")
    for split, count in (("train", 80), ("test", 60)):
        rows = [
            {"text": f"{names[i % 3]} {split} {i}", "label": names[i % 3]} for i in range(count)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (here / "sets" / "agnews" / f"{split}.jsonl").write_text(lines)
    monkeypatch.setattr(study, "VALIDATION", 20)
    monkeypatch.setattr(study, "TEST", 30)
    command = ["sets", "--labelled", "40", "--unlabelled", "40", "--out", "out"]
    asked = ["model.source=encoder", "train.threads=1", "train.max_steps=2", "data.max_length=16"]
    reset_accelerate()
    assert study.main([*command, *asked]) == 0
    said = capsys.readouterr().out
    assert "student less few: " in said
    assert "votes less majority: " in said
    runs = here / "out" / "unlabelled" / "seed-0" / "runs"
    taught = json.loads((runs / "student.json").read_text())
    everything = json.loads((runs / "all.json").read_text())
    assert taught["train"]["steps"] == everything["train"]["steps"]
    assert not (runs / "few").exists()
    assert study.main([*command, "--table"]) == 0  # from what was run
    assert capsys.readouterr().out.strip() == said.strip().partition("\n\n")[2].strip()


@pytest.mark.parametrize("wrong", [0.0, 0.5])
def test_the_majority_is_that_of_the_votes(wrong):
    rows = [{"text": f"{i}", "label": "abc"[i % 3]} for i in range(300)]
    voted = study.vote(rows, wrong, random.Random(0))
    for row, one in zip(rows, voted, strict=True):
        assert sum(one["votes"].values()) == study.ANNOTATORS
        assert one["votes"][one["label"]] == max(one["votes"].values())
        assert wrong or one["label"] == row["label"]


def test_what_is_recovered_is_a_share_of_the_gap():
    found = {("unlabelled", seed): {"few": 0.80, "all": 0.90, "student": 0.86} for seed in (0, 1)}
    assert "of the gap to all labels, 60 % is recovered" in study.report(found)
