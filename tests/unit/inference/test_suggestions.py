"""Which documents are suggested: the least certain, none like another, whatever the strategy."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.cli import suggest as command
from finetune.inference import suggestions
from finetune.inference.classifier import Classifier
from finetune.inference.decision import DecisionRules
from finetune.inference.suggestions import STRATEGIES, measure_uncertainty
from tests.end_to_end.test_predict import texts, write_classifier

PROBABILITIES = st.lists(
    st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=1, max_size=20
)


@given(PROBABILITIES)
def test_margin_and_entropy_are_least_certain_at_the_same_end(drawn):
    probabilities = np.array(drawn) / np.sum(drawn, axis=1, keepdims=True)
    margins, entropies = measure_uncertainty(probabilities, DecisionRules(("a", "b", "c")))
    assert ((margins >= 0) & (margins <= 1)).all()
    assert ((entropies >= 0) & (entropies <= np.log(3) + 1e-9)).all()
    even, sure = np.full((1, 3), 1 / 3), np.array([[1.0, 0.0, 0.0]])
    for one, margin, entropy in ((even, 0, np.log(3)), (sure, 1, 0)):
        found = measure_uncertainty(one, DecisionRules(("a", "b", "c")))
        assert [float(value[0]) for value in found] == pytest.approx([margin, entropy])


def test_of_several_labels_the_least_certain_decides():
    rules = DecisionRules(("a", "b"), multi_label=True, thresholds=(0.5, 0.2))
    margins, entropies = measure_uncertainty(np.array([[0.9, 0.25], [0.5, 1.0]]), rules)
    assert margins.tolist() == pytest.approx([0.05, 0.0])
    assert entropies[1] == pytest.approx(np.log(2))


def test_near_duplicates_know_each_other_also_through_equal_texts():
    words = [f"w{i}" for i in range(30)]
    one, like, other = " ".join(words), " ".join([*words, "more"]), "quite another text of words"
    near = suggestions._find_near([one, like, one, other, like.upper()])
    assert near == {0: {1, 2, 4}, 1: {0, 2, 4}, 2: {0, 1, 4}, 3: set(), 4: {0, 1, 2}}
    assert suggestions._find_near([]) == {}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suggest")
    write_classifier(folder)
    return folder / "model"


def run_suggest(model, tmp_path, *words, name="out.jsonl"):
    code = command.main([str(model), str(tmp_path / "in.jsonl"), "--output",
                         str(tmp_path / name), *words])  # fmt: skip
    file = tmp_path / name
    return code, [json.loads(line) for line in file.read_text().splitlines()] if not code else []


def write_input(tmp_path):
    rows = [{"key": f"K{i}", "text": text} for i, text in enumerate(texts(80))]
    rows += [{"key": f"copy of {row['key']}", "text": row["text"]} for row in rows]
    rows.append({"key": "empty", "text": " "})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "in.jsonl").write_text(lines)
    return rows


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_file_of_documents_to_label(model, tmp_path, strategy, capsys):
    rows = write_input(tmp_path)
    words = ("--n", "12", "--strategy", strategy, "--id", "key")
    code, found = run_suggest(model, tmp_path, *words)
    assert code == 0
    said = capsys.readouterr().out
    assert "12 documents to label, of 160" in said
    assert "1 row left out that cannot be classified" in said
    assert len(found) == 12
    by_key = {row["key"]: row["text"] for row in rows}
    classify = Classifier(str(model))
    for one in found:
        assert list(one) == ["id", "text", "label", "predicted", "score", "margin", "entropy"]
        assert by_key[one["id"]] == one["text"]
        assert one["label"] is None
        assert classify(one["text"])[0]["label"] == one["predicted"]
    assert len({one["text"] for one in found}) == 12
    assert run_suggest(model, tmp_path, *words, name="again.jsonl")[1] == found
    every = classify([row["text"] for row in rows[:160]], probabilities=True)
    highest = [sorted(one["probabilities"].values())[::-1] for one in every]
    if strategy == "margin":
        least = sorted({round(one[0] - one[1], 5) for one in highest})
        assert [round(one["margin"], 5) for one in found[:3]] == pytest.approx(least[:3], abs=1e-4)
    if strategy == "core_set":
        assert found[0]["margin"] == pytest.approx(
            min(one[0] - one[1] for one in highest), abs=1e-4
        )


def test_what_cannot_be_is_refused_and_no_file_is_replaced(model, tmp_path, capsys):
    write_input(tmp_path)
    assert run_suggest(model, tmp_path, "--n", "500")[0] == 0  # all there are, each once
    texts_found = [json.loads(line)["text"] for line in (tmp_path / "out.jsonl").open()]
    assert len(texts_found) == len({*texts_found}) <= 80
    before = (tmp_path / "out.jsonl").read_bytes()
    capsys.readouterr()
    for words, problem in (
        ((), "out.jsonl exists already; choose another file, or add --overwrite"),
        (
            ("--overwrite", "--keep", "score=key"),
            "'score': the file has a column 'score' of its own",
        ),
        (("--overwrite", "--text", "txt"), "no column 'txt' (--text)"),
    ):
        assert run_suggest(model, tmp_path, *words)[0] == 2
        assert problem in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "out.jsonl").read_bytes() == before
    (tmp_path / "in.txt").write_text("win the game\nlose money\n")
    code = command.main([str(model), str(tmp_path / "in.txt"), "--output", str(tmp_path / "o.csv"),
                         "--n", "1", "--json"])  # fmt: skip
    assert code == 0
    assert json.loads(capsys.readouterr().out)["read"] == 2
    assert (tmp_path / "o.csv").read_text().splitlines()[0] == (
        "id,text,label,predicted,score,margin,entropy"
    )


@pytest.mark.parametrize("strategy", ["margin", "entropy", "cluster_margin"])
def test_candidates_that_are_all_alike_hide_no_other(model, tmp_path, monkeypatch, strategy):
    monkeypatch.setattr(suggestions, "PER_SUGGESTION", 1)
    monkeypatch.setattr(suggestions, "MANY", 1)
    different = [row["text"] for row in write_input(tmp_path)[:20]]
    rows = [{"text": different[0]}] * 60 + [{"text": text} for text in different]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, few = run_suggest(model, tmp_path, "--n", "6", "--strategy", strategy)
    assert code == 0
    assert len({row["text"] for row in few}) == 6
    if strategy != "cluster_margin":  # as if all were candidates
        monkeypatch.setattr(suggestions, "PER_SUGGESTION", 1000)
        _, all_ = run_suggest(model, tmp_path, "--n", "6", "--strategy", strategy, name="all.jsonl")
        assert all_ == few
