"""The study of long documents: sets made of others, runs done once, one table."""

import json

from scripts.studies import long_document_study as study
from tests.support.runs import reset_accelerate


def test_a_study_of_hidden_sentences(here, monkeypatch, capsys):
    for name, labels in (("sst2", ("bad", "good")), ("agnews", ("World", "Sports"))):
        (here / "sets" / name).mkdir(parents=True)
        for split in ("train", "validation", "test"):
            rows = [
                {"text": f"{name} {split} {i} is {labels[i % 2]}.", "label": labels[i % 2]}
                for i in range(40)
            ]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (here / "sets" / name / f"{split}.jsonl").write_text(text)
    monkeypatch.setattr(study, "ROWS", {"train": 30, "validation": 12, "test": 12})
    command = ["sets", "--sets", "hidden", "--ways", "tail", "softmax", "--out", "out"]
    asked = ["model.source=encoder", "train.threads=1", "data.max_length=32"]
    reset_accelerate()
    assert study.main([*command, *asked]) == 0
    data = here / "out" / "hidden" / "data"
    rows = {s: [json.loads(line) for line in (data / f"{s}.jsonl").open()] for s in study.ROWS}
    assert {split: len(some) for split, some in rows.items()} == study.ROWS
    for split, some in rows.items():
        for row in some:
            assert row["text"].count("agnews") == study.NEWS
            assert row["text"].count(f"sst2 {split}") == 1
            assert f"is {row['label']}." in row["text"]
    table = capsys.readouterr().out.strip().splitlines()[-2:]
    assert [line.split()[:2] for line in table] == [["hidden", "tail"], ["hidden", "softmax"]]
    assert study.main([*command, "--table"]) == 0  # from what was run
    assert capsys.readouterr().out.strip().splitlines()[-2:] == table
