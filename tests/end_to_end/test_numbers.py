"""data.task number through a whole run, its model, its predictions and its graph."""

import contextlib
import csv
import json
from pathlib import Path

import numpy as np
import pytest

from finetune import load
from finetune.cli.main import main
from finetune.hub.verify import verify_logits
from tests.support.runs import assert_exact, results, run_here

WORDS = {"loss debt": 100.0, "old report": 200.0, "new growth": 300.0, "best champion": 400.0}
TASK = ("data.source=rows", "data.label=price", "data.task=number")


def write_rows(file, count):
    words = list(WORDS)
    rows = [
        {
            "text": f"{words[i % 4]} {i}",
            "price": WORDS[words[i % 4]] + 10.5 * (i % 3),
            "shop": "north" if i % 3 else "south",
        }
        for i in range(count)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def priced(documents, tmp_path):
    (tmp_path / "rows").mkdir()
    for split, count in (("train", 40), ("validation", 16), ("test", 24)):
        write_rows(tmp_path / "rows" / f"{split}.jsonl", count)
    for name in ("encoder", "tiny.yaml"):
        (tmp_path / name).symlink_to(documents / name)
    with contextlib.chdir(tmp_path):
        yield tmp_path


def test_a_run_and_its_model(priced, capsys):
    words = ("optim.lr=0.1", "score.interval_coverage=0.8", "score.slices=[shop]")
    run_here(*TASK, "run.dir=run", *words)
    assert "mae, less others'" in capsys.readouterr().out
    found = results(priced / "run")
    assert (found["data"]["task"], found["data"]["labels"]) == ("number", ["price"])
    assert set(found["test"]["intervals"]) == {"r2", "mae", "rmse", "spearman", "loss"}
    assert found["test"]["r2"] > 0.3
    lines = [json.loads(line) for line in (priced / "run/predictions/test.jsonl").open()]
    true, given = (np.array([one[key] for one in lines]) for key in ("label", "predicted"))
    assert found["test"]["mae"] == pytest.approx(np.abs(true - given).mean())
    by_shop = found["slices"][0]
    assert (by_shop["by"], by_shop["compared"]) == ("shop", "mae")
    off = sum(one["rows"] * one["mae"] for one in by_shop["slices"])
    assert off / 24 == pytest.approx(found["test"]["mae"])
    assert {*by_shop["slices"][0]["intervals"]} == {*found["test"]["intervals"]}
    numbers = found["numbers"]
    assert numbers["interval"]["asked"] == 0.8
    held = [one["low"] <= one["label"] <= one["high"] for one in lines]
    assert numbers["interval"]["reached"] == pytest.approx(np.mean(held))
    config = json.loads((priced / "run/model/config.json").read_text())
    assert config["document"]["interval"] == [0.8, numbers["interval"]["half_width"]]
    train = [json.loads(line)["price"] for line in (priced / "rows/train.jsonl").open()]
    assert config["number_mean"] == pytest.approx(np.mean(train))
    assert config["number_deviation"] == pytest.approx(np.std(train))
    page = (priced / "run/report.html").read_text()
    assert "Predicted and true numbers" in page
    assert "Confusion" not in page
    assert "mean absolute error, less the others’" in page
    card = (priced / "run/model/README.md").read_text()
    assert "A regression model of documents, which predicts ‘price’" in card
    assert "By label" not in card
    assert verify_logits(priced / "run", priced / "run/model", priced / "run/model") > 0
    check_predictions(priced, lines, capsys)
    check_evaluation(found, capsys)


def check_predictions(folder, lines, capsys):
    words = ["predict", "run", "rows/test.jsonl", "--output", "out.csv", "--precision", "fp32"]
    assert main(words) == 0
    with (folder / "out.csv").open() as file:
        rows = [*csv.DictReader(file)]
    for row, line in zip(rows, lines, strict=True):
        for name, value in (("number", "predicted"), ("low", "low"), ("high", "high")):
            assert float(row[name]) == pytest.approx(line[value], rel=1e-4)
    model = load("run")
    assert "the number 'price'" in repr(model)
    assert set(model("best champion 7")[0]) == {"number", "low", "high"}
    capsys.readouterr()
    for words in (
        ["predict", "run", "rows/test.jsonl", "--output", "no.csv", "--probabilities"],
        ["predict", "run", "rows/test.jsonl", "--output", "no.csv", "--explain", "3"],
        ["suggest", "run", "rows/test.jsonl", "--output", "no.csv", "--n", "3"],
        ["evaluate", "run", "rows/test.jsonl", "--output", "no", "--unknown-labels", "drop"],
        ["compare", "run", "run"],
        ["suspects", "run/recipe.yaml", "--output", "no.csv"],
    ):
        assert main(words) == 2
        assert "number" in capsys.readouterr().err
    assert not (folder / "no.csv").exists()


def check_evaluation(found, capsys):
    words = ["evaluate", "run", "rows/test.jsonl", "--output", "scored", "--slices", "shop"]
    assert main(words) == 0
    scored = json.loads(Path("scored/results.json").read_text(encoding="utf-8"))
    assert scored["test"] == found["test"]
    assert scored["numbers"] == found["numbers"]
    assert scored["slices"] == found["slices"]
    assert scored["is_test_of_run"] is True
    Path("bad.csv").write_text("text,price\nnew,3\nold,high\n", encoding="utf-8")
    capsys.readouterr()
    assert main(["evaluate", "run", "bad.csv", "--output", "no"]) == 2
    assert "'price' (--label): expected numbers, got 'high' at bad.csv: row 2" in " ".join(
        capsys.readouterr().err.split()
    )


def test_it_resumes_and_shares_its_steps_exactly(priced):
    assert_exact(priced, *TASK)
    assert results(priced / "whole")["test"] == results(priced / "cut")["test"]


def test_it_does_not_depend_on_the_unit(priced):
    """A run on other units predicts the same numbers, in these units."""
    (priced / "other").mkdir()
    for split in ("train", "validation", "test"):
        lines = [json.loads(line) for line in (priced / "rows" / f"{split}.jsonl").open()]
        rows = [one | {"price": one["price"] * 1000 - 7} for one in lines]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (priced / "other" / f"{split}.jsonl").write_text(text)
    run_here(*TASK, "train.max_steps=4", "run.dir=one")
    run_here("data.source=other", *TASK[1:], "train.max_steps=4", "run.dir=two")
    one, two = results(priced / "one")["test"], results(priced / "two")["test"]
    for name, factor in (("r2", 1), ("loss", 1), ("mae", 1000), ("rmse", 1000)):
        assert two[name] == pytest.approx(factor * one[name], rel=1e-3)


def test_splits_are_cut_evenly_and_train_alone_needs_numbers(priced, capsys):
    write_rows(priced / "all.jsonl", 200)
    run_here("data.source=all.jsonl", *TASK[1:], "train.max_steps=1", "run.dir=cut")
    found = results(priced / "cut")
    assert "stratified by tenths of the numbers" in found["data"]["splits"]["test"]["origin"]
    truth = [json.loads(line)["label"] for line in (priced / "cut/predictions/test.jsonl").open()]
    assert abs(np.mean(truth) - found["numbers"]["mean"]) < 0.2 * found["numbers"]["deviation"]
    rows = [json.loads(line) for line in (priced / "rows/test.jsonl").open()]
    text = "".join(json.dumps({"text": row["text"]}) + "\n" for row in rows)
    (priced / "rows/test.jsonl").write_text(text)
    run_here(*TASK, "train.max_steps=1", "run.dir=unlabelled")
    found = results(priced / "unlabelled")
    assert (found["analysed"], found["baselines"]) == ("validation", None)
    capsys.readouterr()
    run_here(*TASK[:2], "run.dir=none", code=2)
    assert "where they are numbers to be predicted, set data.task=number" in " ".join(
        capsys.readouterr().err.split()
    )
    (priced / "same.csv").write_text("text,price\n" + "new,3\nold,3.0\n" * 20)
    run_here("data.source=same.csv", *TASK[1:], "run.dir=none", code=2)
    assert "expected two different numbers or more in 'price'" in " ".join(
        capsys.readouterr().err.split()
    )


def test_the_graph_computes_the_same(priced):
    pytest.importorskip("onnxruntime")
    run_here(*TASK, "train.max_steps=2", "run.dir=run")
    assert main(["export", "run", "graph", "--data", "rows/test.jsonl"]) == 0
    texts = ["best champion 7", "loss debt 1", "of"]
    ours, theirs = load("run", precision="fp32")(texts), load("graph")(texts)
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
