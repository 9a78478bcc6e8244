"""The study of suggestions: each strategy by the command's own code, areas against chance."""

import argparse
import json
from types import SimpleNamespace

import numpy as np
import pytest

from scripts.studies import suggest_runs, suggest_study

WORDS = ("sun", "rain", "snow")


def encode(texts):
    """A vector that says which word a text has, and how often."""
    return np.array([[text.count(word) + 0.01 * len(text) for word in WORDS] for text in texts])


@pytest.fixture
def known(tmp_path, monkeypatch):
    monkeypatch.setattr(suggest_runs, "frozen_states", SimpleNamespace(encode=encode))
    (tmp_path / "sets" / "trec6").mkdir(parents=True)
    for split in ("train", "test"):
        rows = [
            {"text": f"{WORDS[i % 3]} {split} n{i} m{i * 7}", "label": WORDS[i % 3]}
            for i in range(60)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "sets" / "trec6" / f"{split}.jsonl").write_text(lines)
    return argparse.Namespace(
        data=tmp_path / "sets", sets=["trec6"], strategies=suggest_study.STRATEGIES, seeds=2,
        start=6, rounds=2, step=4, pool=40, out=tmp_path / "out",
    )  # fmt: skip


def test_a_study_of_one_set(known, capsys):
    suggest_runs.run_study(known)
    said = capsys.readouterr().out.splitlines()
    table = said[-len(suggest_study.STRATEGIES) :]
    assert [line.split()[:2] for line in table] == [["trec6", s] for s in suggest_study.STRATEGIES]
    assert said[0].startswith("  trec6, seed 0, random: ")


@pytest.mark.parametrize("strategy", suggest_study.STRATEGIES[1:])
def test_a_strategy_names_rows_without_labels_once(known, strategy):
    known.out.mkdir()
    pool = suggest_runs.load(known, "trec6", "train", 40)
    head, others = suggest_runs.Head(pool.take(np.arange(6))), np.arange(6, 40)
    chosen = suggest_runs.ask_suggest(known, strategy, head, pool, others)
    assert len({*chosen}) == known.step
    assert {*chosen} <= {*others}


def test_gaps_are_those_of_pairs():
    areas = {("a", "random"): [50.0, 60.0], ("a", "margin"): [52.0, 61.0],
             ("b", "random"): [70.0, 70.0], ("b", "margin"): [70.0, 71.0]}  # fmt: skip
    *_, line = suggest_runs.report(areas).splitlines()
    assert line.split() == ["all", "sets", "margin", "+1.0"]
    assert "+1.5 ± 0.7" in suggest_runs.report(areas)
