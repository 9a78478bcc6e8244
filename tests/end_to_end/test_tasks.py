"""data.tasks through a whole run, its model, its predictions and its graph."""

import contextlib
import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import pipeline

from finetune import load
from finetune.cli.main import main
from finetune.hub.verify import verify_logits
from finetune.modeling.saved_model import load_classifier
from finetune.reporting.results_model import read_results
from finetune.reporting.tasks_text import each_task, tabulate_tasks
from tests.support.runs import assert_exact, results, run_here

TOPICS = {"sport": "match team goal", "money": "bank price stock", "tech": "chip code robot"}
TONES = {"bad": "poor lose", "good": "great win"}
METRICS = ("f1_macro", "accuracy")
TASKS = ("data.source=rows", "data.tasks={topic: 1, tone: 0.5}")


def write_rows(file, count):
    rows = []
    for i in range(count):
        topic, said = list(TOPICS)[i % 3], list(TONES)[i % 7 > 2]
        tone = list(TONES)[(i % 7 > 2) ^ (i % 8 == 5)]  # some are labelled wrongly
        row = {"text": f"{TOPICS[topic]} {TONES[said]} {i}", "topic": topic, "tone": tone}
        row["channel"] = "mail" if i % 4 else "web"
        rows.append(row | ({"tone": None} if i % 5 == 4 else {}))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def labelled(documents, tmp_path):
    (tmp_path / "rows").mkdir()
    for split, count in (("train", 60), ("validation", 20), ("test", 25)):
        write_rows(tmp_path / "rows" / f"{split}.jsonl", count)
    for name in ("encoder", "tiny.yaml"):
        (tmp_path / name).symlink_to(documents / name)
    with contextlib.chdir(tmp_path):
        yield tmp_path


def test_a_run_and_its_model(labelled, capsys):
    words = ("optim.lr=0.2", "train.epochs=6", "score.slices=[channel]")
    run_here(*TASKS, "run.dir=run", *words)
    said = capsys.readouterr().out
    found = results(labelled / "run")
    assert (found["data"]["task"], found["data"]["multi_label"]) == ("tasks", False)
    assert found["data"]["labels"] == [
        *("topic: money", "topic: sport", "topic: tech", "tone: bad", "tone: good")
    ]
    findings = {(one["split"], one["kind"], one["count"]) for one in found["data"]["findings"]}
    assert ("train", "no label of a task", 12) in findings
    lines = [json.loads(line) for line in (labelled / "run/predictions/test.jsonl").open()]
    accuracies = []
    for task, rows in (("topic", 25), ("tone", 20)):
        pairs = [(one["label"][task], one["predicted"][task]) for one in lines]
        right = [true == given for true, given in pairs if true is not None]
        assert len(right) == rows
        accuracies.append(np.mean(right))
        assert found["test"][f"{task}.accuracy"] == pytest.approx(accuracies[-1])
        assert found["test"]["intervals"][f"{task}.accuracy"] is not None
    assert found["test"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert found["test"]["f1_macro"] > 0.6
    for name in ("f1_macro", "accuracy"):
        low, high = found["test"]["intervals"][name]
        assert low < found["test"][name] < high < 1
    topic, tone = found["tasks"]
    assert [(one["name"], one["weight"]) for one in (topic, tone)] == [
        ("topic", 1.0),
        ("tone", 0.5),
    ]
    assert topic["test"]["accuracy"] == pytest.approx(found["test"]["topic.accuracy"])
    assert (np.array(tone["confusion"]).sum(), tone["test"]["rows"]) == (20, 20)
    assert {one["label"] for one in tone["classes"]} == {"bad", "good"}
    assert topic["baselines"]["tfidf"]["train_rows"] == 60
    assert tone["baselines"]["tfidf"]["train_rows"] == 48
    assert found["slices"] == []
    by_channel, by_length = tone["slices"]
    assert (by_channel["by"], by_length["by"]) == ("channel", "length")
    hits = sum(one["rows"] * one["accuracy"] for one in by_channel["slices"])
    assert hits / 20 == pytest.approx(tone["test"]["accuracy"])
    assert said.count("by channel") == 2
    check_pages(labelled / "run")
    check_model(labelled / "run", lines)
    check_predictions(labelled, lines)
    check_evaluation(found, capsys)
    check_graph(lines)
    for words in (
        ["suggest", "run", "rows/test.jsonl", "--output", "no.csv", "--n", "3"],
        ["evaluate", "run", "rows/test.jsonl", "--output", "no", "--unknown-labels", "wrong"],
        ["evaluate", "run", "rows/test.jsonl", "--output", "no", "--label", "topic"],
        ["compare", "run", "run"],
        ["suspects", "run/recipe.yaml", "--output", "no.csv"],
    ):
        capsys.readouterr()
        assert main(words) == 2
        assert "task" in capsys.readouterr().err


def check_pages(run):
    found = read_results(run)
    header, *rows = tabulate_tasks(found)
    assert header == ["", "validation", "test", "95 % interval", "TF-IDF", "majority"]
    names = [f"{task}{name}" for task in ("", "topic.", "tone.") for name in METRICS]
    assert {row[0] for row in rows} == {*names, "loss", "rows"}
    majority = {row[0]: float(row[5]) for row in rows if row[0] in names}
    mean = (majority["topic.accuracy"] + majority["tone.accuracy"]) / 2
    assert majority["accuracy"] == pytest.approx(mean, abs=1e-3)
    _, (task, alone) = each_task(found)
    assert (task.name, alone.data.labels) == ("tone", ["bad", "good"])
    assert (alone.data.splits["train"].rows, alone.metric_names) == (48, [*METRICS])
    page = (run / "report.html").read_text()
    for number, task in enumerate(("topic", "tone"), 1):
        assert f'id="task-{number}-classes"' in page
        assert f"Scores by label of ‘{task}’" in page
        assert f"Slices of ‘{task}’" in page
    assert page.count("<h3>Confusion matrix</h3>") == 2
    card = (run / "model/README.md").read_text()
    assert "A document classifier with 5 labels of 2 tasks, topic, tone" in card
    assert "- tone: bad, good" in card
    assert "topic.accuracy" in card


def check_model(run, lines):
    """Without this package's decisions: sigmoids of the logits are each task's probabilities."""
    config = json.loads((run / "model/config.json").read_text())
    assert config["tasks"] == [
        {"labels": 3, "name": "topic", "weight": 1.0},
        {"labels": 2, "name": "tone", "weight": 0.5},
    ]
    assert config["problem_type"] == "multi_label_classification"
    assert verify_logits(run, run / "model", run / "model") > 0
    texts = [line["text"] for line in lines]
    classify = pipeline("text-classification", model=str(run / "model"), top_k=None)
    for scores, line in zip(classify(texts), lines, strict=True):
        likely = {one["label"]: one["score"] for one in scores}
        assert likely == pytest.approx(line["probabilities"], abs=1e-4)
        assert sum(likely.values()) == pytest.approx(2)
    model, tokenizer = load_classifier(run / "model")
    batch = tokenizer(texts[:4], padding=True, return_tensors="pt")
    labels = torch.tensor([[1, 0, 0, 0, 1], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 1, 0, 1, 0]])
    output = model(**batch, labels=labels)
    nats = -torch.nn.functional.logsigmoid(output.logits) * labels
    expected = (nats[:, :3].sum() * 1.0 + nats[:, 3:].sum() * 0.5) / 1.5 / 4
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def check_predictions(folder, lines):
    words = ["predict", "run", "rows/test.jsonl", "--output", "out.csv", "--explain", "1"]
    assert main([*words, "--probabilities"]) == 0
    with (folder / "out.csv").open() as file:
        rows = [*csv.DictReader(file)]
    for row, line in zip(rows, lines, strict=True):
        for task, label in line["predicted"].items():
            assert row[task] == label
            expected = line["probabilities"][f"{task}: {label}"]
            assert float(row[f"{task}_score"]) == pytest.approx(expected, abs=0.01)
        told = json.loads(row["explanation"])
        assert set(told) == {f"{task}: {label}" for task, label in line["predicted"].items()}
    model = load("run")
    assert "of the tasks topic, tone" in repr(model)
    (found,) = model(["match team goal great win"])
    assert set(found) == {"topic", "topic_score", "tone", "tone_score"}


def check_evaluation(found, capsys):
    words = ["evaluate", "run", "rows/test.jsonl", "--output", "scored", "--slices", "channel"]
    assert main(words) == 0
    scored = json.loads(Path("scored/results.json").read_text(encoding="utf-8"))
    assert scored["test"] == found["test"]
    assert scored["is_test_of_run"] is True
    for ours, theirs in zip(scored["tasks"], found["tasks"], strict=True):
        for key in ("name", "classes", "confusion", "mistakes", "slices"):
            assert ours[key] == theirs[key]
    assert "Scores by label of ‘tone’" in Path("scored/report.html").read_text(encoding="utf-8")
    rows = "text,topic,tone\nmatch,sport,\nchip,tech,\nprice,food,\n"
    Path("new.csv").write_text(rows, encoding="utf-8")
    capsys.readouterr()
    assert main(["evaluate", "run", "new.csv", "--output", "no"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "got 'topic: food' (1 row" in told
    assert told.endswith("; --unknown-labels drop leaves these rows out")
    words = ["evaluate", "run", "new.csv", "--output", "one", "--unknown-labels", "drop"]
    assert main(words) == 0  # of the one task that some row has a label of
    one = json.loads(Path("one/results.json").read_text(encoding="utf-8"))
    assert [task["name"] for task in one["tasks"]] == ["topic"]
    assert one["test"]["accuracy"] == one["test"]["topic.accuracy"]


def check_graph(lines):
    pytest.importorskip("onnxruntime")
    assert main(["export", "run", "graph", "--data", "rows/test.jsonl"]) == 0
    texts = [line["text"] for line in lines[:5]]
    for one, other in zip(load("run")(texts), load("graph")(texts), strict=True):
        for task in ("topic", "tone"):
            assert one[task] == other[task]
            assert one[f"{task}_score"] == pytest.approx(other[f"{task}_score"], abs=0.01)


def test_it_resumes_and_shares_its_steps_exactly(labelled):
    assert_exact(labelled, *TASKS)
    assert results(labelled / "whole")["test"] == results(labelled / "cut")["test"]


def test_a_task_of_weight_0_leaves_the_other_as_if_it_were_alone(labelled):
    short = ("train.max_steps=4", "model.dropout=0.0", "score.every=4", "train.sampling=uniform")
    run_here(TASKS[0], "data.tasks={topic: 1, tone: 0}", *short, "run.dir=both")
    run_here(TASKS[0], "data.label=topic", *short, "run.dir=alone")
    both, alone = (
        load_file(labelled / name / "model/model.safetensors") for name in ("both", "alone")
    )
    for name, ours in both.items():
        theirs = alone[name]
        rows = slice(None, 3) if name.startswith("classifier") else slice(None)
        assert torch.allclose(ours[rows], theirs, atol=1e-5), name
    ours, theirs = results(labelled / "both"), results(labelled / "alone")
    assert ours["test"]["loss"] == pytest.approx(theirs["test"]["loss"], rel=1e-4)
    assert ours["test"]["topic.accuracy"] == theirs["test"]["accuracy"]
