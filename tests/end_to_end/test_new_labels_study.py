"""The study of new labels: three runs on the same test rows, and what the child forgot."""

import json

from scripts.studies import new_labels_study as study
from tests.support.runs import reset_accelerate


def test_a_study_of_one_set(here, capsys):
    (here / "sets" / "banking77").mkdir(parents=True)
    names = ("music", "weather", "maps", "alarm")
    for split, count in (("train", 60), ("test", 40)):
        rows = [
            {"text": f"{names[i % 4]} {split} {i}", "label": names[i % 4]} for i in range(count)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (here / "sets" / "banking77" / f"{split}.jsonl").write_text(text)
    command = ["sets", "--new", "1", "--share", "0.5", "--out", "out"]
    asked = ["model.source=encoder", "train.threads=1", "data.max_length=32"]
    reset_accelerate()
    assert study.main([*command, *asked]) == 0
    table = capsys.readouterr().out.splitlines()[-2:]
    head, line = table[0].split(), table[1].split()
    assert head[:4] == ["set", "seed", "parent", "child"]
    assert line[:2] == ["banking77", "0"]
    parent, child, change = float(line[2]), float(line[3]), float(line[5])
    assert abs(child - parent - change) < 0.11  # of rounding
    assert line[-1] == "50.0"
    folder = here / "out" / "banking77" / "seed-0"
    assert not (folder / "parent").exists()
    old = [json.loads(one)["label"] for one in (folder / "old" / "train.jsonl").open()]
    assert len(set(old)) == 3
    assert study.main([*command, "--table"]) == 0  # from what was run
    assert capsys.readouterr().out.splitlines()[-2:] == table
