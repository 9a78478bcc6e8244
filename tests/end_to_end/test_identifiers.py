"""data.id from the training data to every place that names a document, and through every way of
predicting."""

import contextlib
import csv
import gzip
import io
import json
import sys

import pandas as pd
import pyarrow as pa
import pytest

import finetune
from finetune.cli import evaluate, predict
from finetune.evaluation.label_errors import rank_suspects, write_suspects
from finetune.inference.classifier import Classifier
from finetune.reporting import compare
from tests.support.runs import results, run_here


def write_rows(file, count, first=0):
    rows = [
        {"ticket": f"T-{first + i}", "text": f"{'game team' if i % 2 else 'bank tax'} {i}",
         "label": "ab"[i % 2]}
        for i in range(count)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def lines_of(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


@pytest.fixture(scope="session")
def named(documents, shared):
    """A run whose documents have identifiers, beside its data and a copy of it without them."""

    def train(folder):
        (folder / "rows").mkdir(parents=True)
        for number, (split, count) in enumerate((("train", 40), ("validation", 12), ("test", 14))):
            write_rows(folder / "rows" / f"{split}.jsonl", count, 100 * number)
        for name in ("encoder", "tiny.yaml"):
            (folder / name).symlink_to(documents / name)
        with contextlib.chdir(folder):
            run_here("data.id=ticket", "data.source=rows", "train.max_steps=2", "run.dir=run")

    return shared("named", train)


def test_predictions_and_mistakes_of_a_run_name_their_documents(named):
    lines = lines_of(named / "run/predictions/test.jsonl")
    assert [line["id"] for line in lines] == [f"T-{200 + i}" for i in range(14)]
    assert [line["row"] for line in lines] == [f"test.jsonl: line {i + 1}" for i in range(14)]
    by_row = {line["row"]: line["id"] for line in lines}
    found = results(named / "run")
    wrong = [line for line in lines if line["label"] != line["predicted"]]
    assert len(found["mistakes"]) == len(wrong) > 0
    assert all(by_row[one["row"]] == one["id"] for one in found["mistakes"])
    page = (named / "run/report.html").read_text(encoding="utf-8")
    assert f"{found['mistakes'][0]['id']} · test.jsonl: line" in page
    run = compare.read_run(named / "run")
    assert compare.compare_runs([run, run]).settings == []


def run_predict(folder, tmp_path, rows, *words, name="out.jsonl"):
    source = tmp_path / "new.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = predict.main([
        str(folder / "run"), str(source), "--output", str(tmp_path / name), *words,
    ])  # fmt: skip
    assert code == 0
    return tmp_path / name


ROWS = [{"ticket": f"N-{i}", "text": f"bank {i}", "n": i} for i in range(6)]


def test_predict_names_rows_as_training_did(named, tmp_path, capsys):
    found = lines_of(run_predict(named, tmp_path, ROWS))
    assert [line["id"] for line in found] == [row["ticket"] for row in ROWS]
    out = run_predict(named, tmp_path, ROWS, "--probabilities", "--keep", "n", name="out.csv")
    with out.open(newline="") as lines:
        table = [*csv.DictReader(lines)]
    assert [*table[0]] == [
        "id", "n", "label", "score", "probabilities.a", "probabilities.b", "error",
    ]  # fmt: skip
    assert table[5]["id"] == "N-5"
    capsys.readouterr()
    found = lines_of(run_predict(named, tmp_path, ROWS, "--id", "n", name="other.jsonl"))
    assert [line["id"] for line in found] == [*range(6)]
    without = [{"text": row["text"]} for row in ROWS]
    found = lines_of(run_predict(named, tmp_path, without, name="numbers.jsonl"))
    assert [line["id"] for line in found] == [*range(1, 7)]
    said = " ".join(capsys.readouterr().out.split())
    assert "not every input has the column 'ticket'" in said


@pytest.mark.parametrize("words", [[], ["--format", "jsonl"]])
def test_standard_input_names_its_rows_too(named, tmp_path, capsys, monkeypatch, words):
    def run(content, name):
        stdin = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", stdin)
        out = str(tmp_path / name)
        code = predict.main([str(named / "run"), "-", "--output", out, *words])
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    content = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    code, said = run(gzip.compress(content), "packed.jsonl")
    assert (code, "named by their number" in said) == (0, False)
    found = lines_of(tmp_path / "packed.jsonl")
    assert [line["id"] for line in found] == [row["ticket"] for row in ROWS]
    code, said = run(content.replace(b"ticket", b"other"), "numbered.jsonl")
    assert (code, "named by their number" in said) == (0, True)
    # Where nothing is computed, how rows are named does not matter.
    for wrong in (b"", b"text,ticket\nbank,T-1\n"):
        if wrong and words:
            continue
        code, said = run(wrong, "wrong.jsonl")
        assert (code, "named by their number" in said) == (2, False), said


def test_rows_without_an_id_or_with_another_rows_are_named_and_kept(named, tmp_path, capsys):
    rows = [*ROWS, {"text": "x"}, {"ticket": "N-2", "text": "y"}, {"ticket": None, "text": "z"}]
    found = lines_of(run_predict(named, tmp_path, rows, "--window", "4"))
    assert [line["id"] for line in found][6:] == [None, "N-2", None]
    assert len(found) == 9
    said = " ".join(capsys.readouterr().out.split())
    assert "2 without an id in 'ticket' (row 7, 9): id is empty" in said
    assert "1 with the id of an earlier row (row 8 (N-2)): kept" in said
    run_predict(named, tmp_path, rows, "--json", name="summary.jsonl")
    summary = json.loads(capsys.readouterr().out)
    assert (summary["without_id"], summary["repeated_ids"], summary["rows"]) == (2, 1, 9)


def test_evaluate_takes_them_from_new_data(named, tmp_path):
    rows = write_rows(tmp_path / "june.jsonl", 12, 500)
    words = [str(named / "run"), str(tmp_path / "june.jsonl")]
    assert evaluate.main([*words, "--output", str(tmp_path / "june")]) == 0
    lines = lines_of(tmp_path / "june/predictions.jsonl")
    assert [line["id"] for line in lines] == [row["ticket"] for row in rows]
    plain = "".join(json.dumps({key: row[key] for key in ("text", "label")}) + "\n" for row in rows)
    (tmp_path / "june.jsonl").write_text(plain)
    assert evaluate.main([*words, "--output", str(tmp_path / "plain")]) == 0
    assert "id" not in lines_of(tmp_path / "plain/predictions.jsonl")[0]
    assert evaluate.main([*words, "--output", str(tmp_path / "x"), "--id", "ticket"]) == 2


def test_from_python_they_come_with_rows_and_files(named, tmp_path):
    classify = Classifier(named / "run")
    assert [one.get("id") for one in classify(ROWS)] == [row["ticket"] for row in ROWS]
    assert [*classify(ROWS)[0]] == ["id", "label", "score"]
    assert "id" not in classify(["a text"])[0]
    assert "id" not in classify([{"text": "a text"}])[0]
    (tmp_path / "new.csv").write_text("ticket,text\nN-0,bank\n,tax\n")
    found = finetune.predict(classify, tmp_path / "new.csv")
    assert [one.get("id") for one in found] == ["N-0", None]
    frame = pd.DataFrame(ROWS)
    joined = frame.join(finetune.predict(classify, frame, probabilities=True))  # by the index
    assert [*joined.columns] == [
        *frame.columns, "label", "score", "probabilities.a", "probabilities.b",
    ]  # fmt: skip


def test_ray_keeps_their_column(named):
    pytest.importorskip("ray")
    from finetune.inference.ray_actor import RayClassifier

    found = RayClassifier(str(named / "run"), keep=["n"])(pa.Table.from_pylist(ROWS))
    assert found.column_names == ["ticket", "n", "label", "score", "error"]


def test_mlflow_serves_them(named, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    assert mlflow
    from finetune.inference.mlflow_model import DocumentModel

    model = DocumentModel()
    model.classify = Classifier(named / "run")
    found = model.predict(None, pd.DataFrame(ROWS))
    assert [one["id"] for one in found] == [row["ticket"] for row in ROWS]


def test_suspects_have_them_where_there_are_some(named, tmp_path):
    pytest.importorskip("cleanlab")
    import numpy as np

    from finetune.config import schema
    from finetune.data import prepare, sources

    for column in ("ticket", None):
        data = schema.Data(source=str(named / "rows"), id=column)
        corpus = prepare.prepare_corpus(sources.load_rows(data), data)
        states = np.random.default_rng(0).normal(size=(len(corpus.train), 4)).astype(np.float32)
        ranked = rank_suspects([corpus.train], states, corpus.labels, 0)
        write_suspects(ranked, tmp_path / "suspects.csv")
        with (tmp_path / "suspects.csv").open(newline="") as lines:
            rows = [*csv.DictReader(lines)]
        assert ("id" in rows[0]) == (column is not None)
        if column:
            for row in rows:
                assert row["row"] == f"train.jsonl: line {int(row['id'][2:]) + 1}"
