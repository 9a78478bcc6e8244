"""Rows whose label is likely wrong come first."""

import csv
import json
import runpy
import sys

import numpy as np
import pytest

from finetune.data.corpus import Split
from finetune.data.places import Places
from finetune.evaluation import label_errors
from finetune.runtime.errors import InputError
from tests.support.processes import ROOT
from tests.support.tiny import WORDS, tiny_encoder

pytest.importorskip("cleanlab")

NAMES = ("a", "b", "c", "no row")


def clouds(rows=300, wrong=0.2, seed=0):
    """Vectors of three kinds, their true classes, and labels of which a share is wrong."""
    draw = np.random.default_rng(seed)
    true = draw.integers(0, 3, rows)
    vectors = (4 * np.eye(3)[true] + draw.normal(size=(rows, 3))).astype(np.float32)
    flipped = draw.random(rows) < wrong
    return vectors, true, np.where(flipped, (true + draw.integers(1, 3, rows)) % 3, true)


def split(labels, name="train"):
    places = Places(f"{name}.csv", range(1, len(labels) + 1), "row")
    return Split(name, [f"text {i}" for i in range(len(labels))], labels, places, "x")


def test_wrong_labels_come_first():
    vectors, true, labels = clouds()
    halves = [split(labels[:200]), split(labels[200:], "validation")]
    found = label_errors.rank_suspects(halves, vectors, NAMES, seed=0)
    assert [one.rank for one in found] == [*range(1, 301)]
    places = [f"train.csv: row {i}" for i in range(1, 201)]
    places += [f"validation.csv: row {i}" for i in range(1, 101)]
    truth = dict(zip(places, [NAMES[c] for c in true], strict=True))
    assert {one.row for one in found} == set(places)
    wrong = label_errors.score_against_truth(found, truth)
    many = int(wrong.sum())
    assert wrong[:many].mean() > 0.85  # chance: 0.2
    assert abs(sum(one.likely_wrong for one in found) - many) < 0.3 * many
    right = [one.suggested == truth[one.row] for one in found[:many]]
    assert np.mean(right) > 0.85
    share, commonest = label_errors.measure_agreement(found)
    assert abs(share - 0.8) < 0.08  # as many labels as are right
    assert commonest == np.bincount(labels).max() / 300


def test_several_labels_a_row():
    vectors, true, _ = clouds(rows=200)
    labels = np.eye(3, dtype=np.int8)[true]
    labels[:8] = 1 - labels[:8]
    labels = np.column_stack([labels, np.zeros(200, np.int8)])
    found = label_errors.rank_suspects([split(labels)], vectors, NAMES, seed=0)
    worst = {one.row for one in found[:10]}
    assert sum(f"train.csv: row {i}" in worst for i in range(1, 9)) >= 7
    assert "," in found[0].label


def test_a_label_with_fewer_rows_than_folds():
    vectors, _, labels = clouds()
    labels[labels == 1] = 0
    labels[:3] = 1
    found = label_errors.rank_suspects([split(labels)], vectors, NAMES, seed=0)
    *ranked, one, two, three = found
    assert [each.row for each in (one, two, three)] == [f"train.csv: row {i}" for i in (1, 2, 3)]
    assert (one.label, one.rank, one.score, one.likely_wrong, one.suggested) == ("b", *[None] * 4)
    rest = label_errors.rank_suspects([split(labels[3:])], vectors[3:], NAMES, seed=0)
    assert [(one.label, one.score) for one in ranked] == [(one.label, one.score) for one in rest]
    assert {one.suggested for one in ranked} == {"a", "c"}


@pytest.mark.parametrize("rare", [[0, 1], [0, 1, 2]])
def test_fewer_than_two_labels_that_can_be_checked(rare):
    vectors, _, labels = clouds()
    labels[:] = 2
    labels[: len(rare)] = rare
    with pytest.raises(InputError) as caught:
        label_errors.rank_suspects([split(labels)], vectors, NAMES, seed=0)
    assert caught.value.problems == (
        "expected two labels or more with at least 5 rows each, as many as folds, got 1",
    )


def test_the_command(tmp_path, monkeypatch, capsys):
    tiny_encoder(tmp_path / "encoder")
    right = [(f"{WORDS[20 * (i % 3) + i % 20]} {i}", "xyz"[i % 3]) for i in range(90)]
    for name, wrong in (("train", 7), ("truth", 91)):
        lines = [
            json.dumps({"text": text, "label": "z" if i % wrong == 6 else label}) + "\n"
            for i, (text, label) in enumerate(right)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    (tmp_path / "data").mkdir()
    (tmp_path / "train.jsonl").rename(tmp_path / "data" / "train.jsonl")
    (tmp_path / "r.yaml").write_text(
        "data: {source: data}\nmodel: {source: encoder}\ntrain: {precision: fp32, threads: 1}\n"
    )
    monkeypatch.chdir(tmp_path)
    script = str(ROOT / "scripts" / "find_label_errors.py")

    def call(*words):
        monkeypatch.setattr(sys, "argv", [script, "r.yaml", *words])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(script, run_name="__main__")
        return caught.value.code

    assert call("data.test=carve", "--output", "out.csv", "--truth", "truth.jsonl") == 0
    said = capsys.readouterr().out
    assert said.startswith("81 rows checked")
    assert "\nThe check predicts " in said
    assert " % of the labels, each of a row that it had not seen; the" in said
    assert "wrong labels (chance: " in said
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 81
    assert [*rows[0]] == [
        "rank", "row", "label", "suggested", "score", "likely_wrong", "text",
    ]  # fmt: skip
    assert call("--output", "out.jsonl") == 0
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["rank"] == 1
    with (tmp_path / "data" / "train.jsonl").open("a") as file:
        file.writelines(json.dumps({"text": f"{word} rare", "label": "r"}) + "\n"
                        for word in WORDS[:4])  # fmt: skip
    (tmp_path / "data" / "test.jsonl").write_text("".join(
        json.dumps({"text": f"{WORDS[i]} new", "label": label}) + "\n"
        for i, label in enumerate("xyz")))  # fmt: skip
    capsys.readouterr()
    kept = (tmp_path / "out.csv").read_bytes()
    assert call("data.validation=none", "--output", "out.csv") == 2
    assert capsys.readouterr().err == (
        "error: --output: out.csv exists already; choose another file, or add --overwrite\n"
    )
    assert (tmp_path / "out.csv").read_bytes() == kept
    assert call("data.validation=none", "--output", "out.csv", "--overwrite") == 0
    said = capsys.readouterr().out
    assert said.startswith("90 rows checked, ")
    assert said.endswith(
        "4 rows not checked, and last in the file: their labels have fewer rows than the\n5 folds "
        "of the check: r (4)\n"
    )
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["rank"], row["label"], row["score"]) for row in rows[-4:]] == [("", "r", "")] * 4
    assert [row["rank"] for row in rows[:-4]] == [str(rank) for rank in range(1, 91)]
    assert call("--output", "none.csv", "data.label=nothing") == 2
    assert "error: " in capsys.readouterr().err
