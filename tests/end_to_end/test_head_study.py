"""The study of heads: runs done once, one table, the differences of pairs."""

import json

from scripts.studies import head_study as study
from tests.support.runs import reset_accelerate


def test_a_study_of_one_set(here, monkeypatch, capsys):
    (here / "sets" / "snips").mkdir(parents=True)
    for split in ("train", "test"):
        rows = [{"text": f"{split} {i}", "label": ("music", "weather")[i % 2]} for i in range(40)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (here / "sets" / "snips" / f"{split}.jsonl").write_text(text)
    command = ["sets", "--sets", "snips", "--out", "out"]
    asked = ["model.source=encoder", "train.max_steps=2", "train.threads=1", "data.max_length=32"]
    reset_accelerate()
    assert study.main([*command, *asked]) == 0
    table = capsys.readouterr().out.splitlines()[-5:]
    assert [line.split()[:2] for line in table[1:3]] == [["snips", "linear"], ["snips", "native"]]
    assert table[3].startswith("native less linear, accuracy: ")
    assert study.main([*command, "--table"]) == 0  # from what was run
    assert capsys.readouterr().out.splitlines()[1:] == table


def test_the_differences_are_those_of_pairs():
    def made(accuracy):
        return {"accuracy": accuracy, "f1_macro": accuracy, "rows_per_second": 10.0}

    found = {
        ("agnews", "linear", 0): made(0.8), ("agnews", "native", 0): made(0.7),
        ("sst2", "linear", 0): made(0.5), ("sst2", "native", 0): made(0.8),
        ("sst2", "linear", 1): made(0.5), ("sst2", "native", 1): None,
    }  # fmt: skip
    *_, accuracy, f1 = study.report(found).splitlines()
    assert accuracy == (
        "native less linear, accuracy: +10.0 ± 20.0 points over 2 sets, from -10.0 to +30.0"
    )
    assert f1.startswith("native less linear, f1_macro: +10.0 ± 20.0")
