"""The study of multi-label heads: documents made of others, runs done once, one table."""

import json

from scripts.studies import multi_label_study as study
from tests.support.runs import reset_accelerate


def test_a_study_of_one_set(here, monkeypatch, capsys):
    for name, labels in (("snips", ("music", "weather")), ("trec6", ("place", "person"))):
        (here / "sets" / name).mkdir(parents=True)
        for split in ("train", "test"):
            rows = [
                {"text": f"{name} {split} {i} {labels[i % 2]}", "label": labels[i % 2]}
                for i in range(40)
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (here / "sets" / name / f"{split}.jsonl").write_text(text)
    monkeypatch.setattr(study, "ROWS", {"train": 30, "validation": 12, "test": 12})
    monkeypatch.setattr(study, "OWN", 10)
    command = ["sets", "--sets", "mixed", "--scales", "labels/2", "--out", "out"]
    asked = ["model.source=encoder", "train.max_steps=2", "train.threads=1", "data.max_length=32"]
    reset_accelerate()
    assert study.main([*command, *asked]) == 0
    data = here / "out" / "mixed" / "data"
    of = {s: [json.loads(line) for line in (data / f"{s}.jsonl").open()] for s in study.ROWS}
    assert {split: len(rows) for split, rows in of.items()} == study.ROWS
    assert all(1 <= len(row["label"]) <= 3 for row in of["train"])
    assert all(all(name in row["text"] for name in row["label"]) for row in of["test"])
    table = capsys.readouterr().out.strip().splitlines()[-1]
    assert table.split()[:2] == ["mixed", "labels/2"]
    assert table.split()[-1] == "1"
    assert study.main([*command, "--table"]) == 0  # from what was run
    assert capsys.readouterr().out.strip().splitlines()[-1] == table
