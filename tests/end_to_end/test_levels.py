"""data.hierarchy through a whole run, its model and its predictions."""

import contextlib
import json

import pytest

from finetune import load
from finetune.cli.main import main
from tests.support.runs import results, run_here

WORDS = {
    ("sport", "team"): "game team", ("sport", "race"): "fast race", ("money", "bank"): "bank tax",
    ("money", None): "debt",
}  # fmt: skip


@pytest.fixture
def nested(documents, tmp_path):
    """The same labels as names in one column, and as two columns."""
    for split, count in (("train", 40), ("validation", 16), ("test", 24)):
        rows = []
        for i in range(count):
            path = [*WORDS][i % 4]
            name = "/".join(part for part in path if part)
            text = f"{WORDS[path]} {i}"
            rows.append({"text": text, "label": name, "area": path[0], "topic": path[1]})
        (tmp_path / "rows").mkdir(exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "rows" / f"{split}.jsonl").write_text(lines)
    for name in ("encoder", "tiny.yaml"):
        (tmp_path / name).symlink_to(documents / name)
    with contextlib.chdir(tmp_path):
        yield tmp_path


def test_a_run_and_its_model(nested, capsys):
    words = ("data.source=rows", "data.hierarchy=/", "train.max_steps=4")
    run_here(*words, "run.dir=names")
    run_here(*words, "data.label=[area, topic]", "run.dir=columns")
    run_here("data.source=rows", "train.max_steps=4", "run.dir=flat")
    found, other = results(nested / "names"), results(nested / "columns")
    # Levels change nothing of the loss: resuming, micro-batches and processes are as of classes.
    assert results(nested / "flat")["hashes"]["weights"] == found["hashes"]["weights"]
    assert found["data"]["labels"] == ["money", "money/bank", "sport/race", "sport/team"]
    assert other["hashes"]["weights"] == found["hashes"]["weights"]
    for key in ("test", "validation", "levels"):
        assert other[key] == found[key]
    assert [(one["level"], one["nodes"]) for one in found["levels"]] == [(1, 2), (2, 4)]
    assert found["levels"][0]["accuracy"] == pytest.approx(found["test"]["level_1_accuracy"])
    assert found["levels"][1]["accuracy"] == pytest.approx(found["test"]["accuracy"])
    assert "hierarchical_f1" in found["baselines"]["tfidf"]
    low, high = found["test"]["intervals"]["hierarchical_f1"]
    assert low <= found["test"]["hierarchical_f1"] <= high
    assert '<section id="levels">' in (nested / "names/report.html").read_text()
    assert "- level 1, 2 labels: accuracy" in (nested / "names/model/README.md").read_text()
    model = load("names")
    for one in model(["game team 1", "bank", "debt and tax"], probabilities=True):
        p = one["probabilities"]
        assert one["levels"][-1] == one["label"]
        above = sum(value for name, value in p.items() if name.split("/")[0] == one["levels"][0])
        assert one["level_scores"][0] == pytest.approx(above, abs=1e-5)
        assert one["level_scores"] == sorted(one["level_scores"], reverse=True)
    (nested / "in.jsonl").write_text('{"text": "game team"}\n{"text": "tax"}\n')
    assert main(["predict", "names", "in.jsonl", "--output", "out.csv"]) == 0
    assert (
        (nested / "out.csv")
        .read_text()
        .splitlines()[0]
        .endswith("label,score,levels,level_scores,error")
    )
    capsys.readouterr()
    given = ["rows/test.jsonl", "--output", "evaluated"]
    assert main(["evaluate", "columns", *given]) == 0
    scored = json.loads((nested / "evaluated/results.json").read_text())
    assert scored["test"]["hierarchical_f1"] == pytest.approx(found["test"]["hierarchical_f1"])
    assert scored["levels"] == found["levels"]


def test_what_makes_no_sense_together_is_told(nested, capsys):
    for words, problem in (
        (["data.hierarchy=>"], "data.hierarchy: expected labels with '>' between their levels"),
        (["data.hierarchy=/", "data.task=ordered"], "data.hierarchy: expected null with data.task"),
        (["data.hierarchy=/", "data.label_separator=,"], "data.label_separator: expected null"),
        (["score.metrics=[hierarchical_f1]", "score.monitor=hierarchical_f1"],
         "'hierarchical_f1' cannot score 4 classes (it needs data.hierarchy"),
    ):  # fmt: skip
        run_here("data.source=rows", *words, "run.dir=none", code=2)
        assert problem in " ".join(capsys.readouterr().err.split())
