"""The study of documents out of scope: intents left out, each kind of detector, both models."""

import argparse
import json
from types import SimpleNamespace

import numpy as np
import pytest

from scripts.studies import out_of_scope_runs as study
from tests.support.runs import reset_accelerate

NAMES = ("music", "weather", "maps", "alarm", "mail", "news")


def encode(texts):
    states = [[text.count(name) + 0.01 * (len(text) % 7) for name in NAMES] for text in texts]
    return np.array(states, dtype=np.float32)


@pytest.mark.parametrize("tuned", [False, True])
def test_a_study_of_six_intents(here, monkeypatch, capsys, tuned):
    monkeypatch.setattr(study, "frozen_states", SimpleNamespace(encode=encode))
    monkeypatch.setattr(study, "LEFT_OUT", 2)
    monkeypatch.setattr(study, "OTHERS", 10)
    for folder in ("intents", "other"):
        (here / folder).mkdir()
        for split, count in (("train", 360), ("test", 60)):
            rows = [
                {"text": f"{NAMES[i % 6]} {folder} {split} {i}", "label": NAMES[i % 6]}
                for i in range(count)
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (here / folder / f"{split}.jsonl").write_text(lines)
    known = argparse.Namespace(
        banking77=here / "intents", other=here / "other", draws=[0],
        tuned=here / "tuned" if tuned else None,
    )  # fmt: skip
    reset_accelerate()
    asked = ["model.source=encoder", "train.threads=1", "train.max_steps=2", "data.max_length=16"]
    study.run_study(known, asked if tuned else [])
    said = capsys.readouterr().out
    table = said.partition("mean ± sd over the draws\n")[2].splitlines()
    kinds = [*study.out_of_scope.KINDS, "as chosen"]
    assert [line[2:18].strip() for line in table] == kinds
    assert all("the 19 intents" in line and "flagged known" in line for line in table)


def test_rows_of_the_intents_left_out_are_in_no_part_but_their_own():
    rows = {
        split: [{"text": f"{i}", "label": f"l{i % 77}"} for i in range(770)]
        for split in ("train", "test", "other")
    }
    parts, kept = study.divide(rows, 0)
    assert len(kept) == 77 - study.LEFT_OUT
    for part in ("train", "validation", "inside"):
        assert {row["label"] for row in parts[part]} <= {*kept}
    assert not {row["label"] for row in parts["outside"]} & {*kept}
    assert len(parts["train"]) + len(parts["validation"]) == 10 * len(kept)
