"""The study of adapting: encoders and runs made once, one table, the differences of pairs."""

import json

from scripts.studies import adapt_study as study
from tests.support.runs import reset_accelerate


def test_a_study_of_one_set(here, capsys):
    (here / "sets" / "bbc").mkdir(parents=True)
    rows = [{"text": f"the game {i} was good", "label": ("a", "b")[i % 2]} for i in range(100)]
    text = "".join(json.dumps(row) + "\n" for row in [*rows, rows[0]])
    (here / "sets" / "bbc" / "all.jsonl").write_text(text)
    command = ["sets", "--sets", "bbc", "--out", "out", "--steps", "3"]
    asked = ["model.source=encoder", "train.max_steps=2", "train.threads=1"]
    reset_accelerate()
    assert study.main([*command, *asked]) == 0
    table = capsys.readouterr().out.splitlines()[-6:]
    assert table[0].startswith("bbc: perplexity ")
    assert " after 3 steps in " in table[0]
    assert [line.split()[:2] for line in table[2:4]] == [["bbc", "as"], ["bbc", "adapted"]]
    assert table[4].startswith("bbc, adapted less as it is, accuracy: ")
    parts = [(here / "out/bbc/data" / f"{name}.jsonl").read_text() for name in ("train", "test")]
    assert [part.count("\n") for part in parts] == [80, 20]  # of 100 that differ
    assert study.main([*command, *asked, "--table"]) == 0  # from what was run
    assert capsys.readouterr().out.splitlines()[1:] == table


def test_the_differences_are_those_of_pairs():
    def made(accuracy):
        return {"accuracy": accuracy, "f1_macro": accuracy}

    found = {
        ("bbc", "as it is", 0): made(0.5), ("bbc", "adapted", 0): made(0.6),
        ("bbc", "as it is", 1): made(0.5), ("bbc", "adapted", 1): made(0.8),
        ("bbc", "as it is", 2): made(0.5), ("bbc", "adapted", 2): None,
    }  # fmt: skip
    *_, accuracy, _ = study.report({"bbc": None}, found).splitlines()
    assert accuracy == ("bbc, adapted less as it is, accuracy: +20.0 ± 10.0 points over 2 seeds")
