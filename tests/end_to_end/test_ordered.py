"""data.task ordered through a whole run, its model, its predictions and its graph."""

import contextlib
import json

import numpy as np
import pytest
from safetensors.torch import load_file

from finetune import load
from finetune.cli.main import main
from tests.support.runs import assert_exact, results, run_here

ORDER = ["bad", "fair", "good", "great"]
WORDS = {"bad": "loss debt", "fair": "old report", "good": "new growth", "great": "best champion"}
TASK = ("data.source=rows", "data.task=ordered", f"data.label_order=[{', '.join(ORDER)}]")


@pytest.fixture
def rated(documents, tmp_path):
    (tmp_path / "rows").mkdir()
    for split, count in (("train", 40), ("validation", 16), ("test", 24)):
        rows = [
            {"text": f"{WORDS[ORDER[i % 4]]} {i}", "label": ORDER[i % 4], "stars": i % 4 + 1,
             "shop": "north" if i % 3 else "south"}
            for i in range(count)
        ]  # fmt: skip
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "rows" / f"{split}.jsonl").write_text(lines)
    for name in ("encoder", "tiny.yaml"):
        (tmp_path / name).symlink_to(documents / name)
    with contextlib.chdir(tmp_path):
        yield tmp_path


def test_a_run_and_its_model(rated, capsys):
    run_here(*TASK, "run.dir=run", "optim.lr=0.3", "score.slices=[shop]")
    assert "rank_mae, less others'" in capsys.readouterr().out
    found = results(rated / "run")
    assert (found["data"]["task"], found["data"]["labels"]) == ("ordered", ORDER)
    assert found["monitor"] == "quadratic_weighted_kappa"
    test = found["test"]
    assert set(test["intervals"]) == {
        "quadratic_weighted_kappa", "rank_mae", "within_one_accuracy", "accuracy", "loss",
    }  # fmt: skip
    counts = np.array(found["confusion"])
    away = np.abs(np.subtract.outer(range(4), range(4)))
    assert test["rank_mae"] == pytest.approx((counts * away).sum() / 24)
    assert test["within_one_accuracy"] == pytest.approx(counts[away <= 1].sum() / 24)
    by_shop = found["slices"][0]
    assert (by_shop["by"], by_shop["compared"]) == ("shop", "rank_mae")
    assert sum(one["rows"] * one["rank_mae"] for one in by_shop["slices"]) == pytest.approx(
        24 * test["rank_mae"]
    )
    config = json.loads((rated / "run/model/config.json").read_text())
    assert config["ordered"] is True
    weights = load_file(rated / "run/model/model.safetensors")
    assert weights["classifier.weight"].shape == (3, 32)
    card = (rated / "run/model/README.md").read_text()
    assert "ordered, from the lowest to the highest" in card
    model = load(rated / "run")
    predictions = model(["best champion 7", "loss debt 1"], probabilities=True)
    for one in predictions:
        assert list(one["probabilities"]) == ORDER
        assert sum(one["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    unknown = (rated / "rows/test.jsonl").read_text() + '{"text": "new", "label": "worst"}\n'
    (rated / "unknown.jsonl").write_text(unknown)
    words = ["evaluate", "run", "unknown.jsonl", "--output", "scored", "--unknown-labels"]
    capsys.readouterr()
    assert main([*words, "stop"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "rows out; --label names another column" in told
    assert main([*words, "wrong"]) == 2
    assert "has no rank, got wrong; it lacks worst" in " ".join(capsys.readouterr().err.split())
    assert main([*words, "drop"]) == 0
    lines = [json.loads(line) for line in (rated / "run/predictions/test.jsonl").open()]
    assert np.mean([one["label"] == one["predicted"] for one in lines]) == test["accuracy"]


def test_it_resumes_and_shares_its_steps_exactly(rated):
    assert_exact(rated, *TASK)


def test_numbers_are_ordered_by_their_value_and_words_are_asked_for(rated, capsys):
    run_here(*TASK[:2], "data.label=stars", "train.max_steps=1", "run.dir=stars")
    assert results(rated / "stars")["data"]["labels"] == ["1", "2", "3", "4"]
    capsys.readouterr()
    for words, problem in (
        (TASK[:2], "data.label_order: expected the labels from the lowest to the highest"),
        ((*TASK[:2], "data.label_order=[bad, good]"), "expected labels among data.label_order"),
        ((TASK[0], TASK[2]), "data.label_order: expected null without data.task 'ordered'"),
        ((*TASK, "model.head=native"), "model.head: expected linear with data.task 'ordered'"),
        ((*TASK, "model.head_init=label_names"), "model.head_init: expected zeros or normal"),
        ((*TASK, "data.labels=[bad, fair]"), "data.labels: expected null with data.task"),
        ((*TASK, "data.label_separator=,"), "data.label_separator: expected null with data.task"),
    ):
        run_here(*words, "run.dir=none", code=2)
        assert problem in " ".join(capsys.readouterr().err.split())
        assert not (rated / "none").exists()


def test_the_graph_computes_the_same(rated, capsys):
    pytest.importorskip("onnxruntime")
    run_here(*TASK, "train.max_steps=2", "run.dir=run")
    assert main(["export", "run", "graph", "--data", "rows/test.jsonl"]) == 0
    texts = ["best champion 7", "loss debt 1", "of"]
    ours = load("run")(texts, probabilities=True)
    theirs = load("graph")(texts, probabilities=True)
    for one, other in zip(ours, theirs, strict=True):
        assert one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)
