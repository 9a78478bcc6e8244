"""A model on new labelled rows: the run's own numbers on its test split; what changed on others."""

import dataclasses
import json
from pathlib import Path

import pytest

from finetune.cli import evaluate
from finetune.cli.main import main
from finetune.inference import labelled_input
from finetune.inference.classifier import Classifier
from finetune.inference.engine_choice import Choice
from finetune.inference.engines import ModelSource
from finetune.inference.evaluation_job import (
    OWN_FILES,
    EvaluationOptions,
    check_output,
    evaluate_rows,
)
from finetune.inference.labelled_input import LabelledInput, rename_columns
from finetune.reporting.results_model import read_results
from finetune.runtime.errors import InputError
from tests.support.tiny import WORDS


def options(model, source, **given):
    return EvaluationOptions(ModelSource(str(model)), LabelledInput(str(source), **given))


def document(i, words=9):
    return " ".join(WORDS[(i + k * k) % len(WORDS)] for k in range(words)) + f" {i}"


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def rows_of(count, labels="abc", words=9):
    return [{"text": document(i, words), "label": labels[i % len(labels)]} for i in range(count)]


def test_the_test_split_of_a_run_gives_its_very_numbers(whole, here):
    results = read_results(whole)
    found = evaluate_rows(options(whole, here / "data" / "test.jsonl")).evaluation
    assert found.is_test_of_run
    assert found.drift is None
    assert found.test == results.test
    assert found.calibration.test == results.calibration.test
    assert found.abstention.test == results.abstention.test
    for key in ("classes", "confusion", "confused_pairs", "lengths", "truncation", "mistakes"):
        assert getattr(found, key) == getattr(results, key)
    assert found.data.splits["test"] == results.data.splits["test"]
    by_split = evaluate_rows(options(whole / "model", here / "data", split="test")).evaluation
    assert by_split.test == results.test
    assert by_split.model.run == str(whole.absolute())


def test_predictions_are_those_of_the_run(whole, here, monkeypatch):
    found = evaluate_rows(options(whole, here / "data"))  # its split called test
    found.write(here / "made" / "test")
    for mine, theirs in (("predictions.jsonl", "predictions/test.jsonl"),):
        assert (here / "made" / "test" / mine).read_text() == (whole / theirs).read_text()
    files = sorted(file.name for file in (here / "made" / "test").iterdir())
    assert files == sorted(OWN_FILES) == ["predictions.jsonl", "report.html", "results.json"]
    monkeypatch.chdir(here / "made" / "test")
    found.write(Path())
    assert sorted(file.name for file in (here / "made" / "test").iterdir()) == files


def test_new_rows_beside_the_test_split(whole, here):
    rows = [*rows_of(90, "aab", 40), {"text": " ", "label": "a"}, {"text": "x", "label": None},
            rows_of(1, "aab", 40)[0]]  # fmt: skip
    found = evaluate_rows(options(whole, write(here / "june.jsonl", rows))).evaluation
    assert found.test.rows == 91
    assert [finding.message for finding in found.data.findings] == [
        "june.jsonl: 1 row has no text (june.jsonl: line 91): left out",
        "june.jsonl: 1 row has no label (june.jsonl: line 92): left out",
        "june.jsonl: 1 row duplicates an earlier text and label (june.jsonl: line 93): kept",
        "june.jsonl: 1 label of the model has no row (c): not scored",
    ]
    drift = found.drift
    assert (drift.before, drift.after, drift.tests) == (17, 91, 1 + 3 + 2 + 1)
    assert [one.label for one in drift.shares] == ["a", "b", "c"]
    assert [one.label for one in drift.recalls] == ["a", "b"]
    assert drift.lengths.is_clear  # longer than any of test
    assert [one.after for one in drift.lengths.buckets][:-1] == [0] * (
        len(drift.lengths.buckets) - 1
    )
    assert sum(one.before for one in drift.lengths.buckets) == 17


def test_labels_that_the_model_does_not_know(whole, here):
    file = write(here / "june.jsonl", rows_of(80, "abcd"))
    with pytest.raises(InputError) as caught:
        evaluate_rows(options(whole, file))
    assert caught.value.problems == (
        "june.jsonl: expected the labels of the model (a, b, c), got 'd' (20 rows, first line 4); "
        "--unknown-labels drop leaves these rows out, and wrong counts each of them as a wrong "
        "prediction; --label names another column",
    )
    dropped = evaluate_rows(options(whole, file, on_unknown="drop")).evaluation
    assert dropped.test.rows == 60
    assert dropped.data.labels == ["a", "b", "c"]
    assert dropped.data.unknown_labels == {"d": 20}
    wrong = evaluate_rows(options(whole, file, on_unknown="wrong"))
    kept = wrong.evaluation
    assert kept.test.rows == 80
    assert kept.data.labels == ["a", "b", "c", "d"]
    right = round(dropped.test.metric("accuracy") * 60)
    assert kept.test.metric("accuracy") == right / 80
    assert kept.test.loss is None
    assert kept.test.intervals["loss"] is None
    assert dropped.test.intervals["loss"] is not None
    assert kept.classes[3].recall == 0
    assert kept.classes[3].predicted == 0
    assert sum(map(sum, kept.confusion)) == 80
    assert [one.label for one in kept.drift.shares] == ["a", "b", "c", "d"]
    wrong.write(here / "out")
    lines = (here / "out" / "predictions.jsonl").read_text().splitlines()
    assert json.loads(lines[3])["probabilities"]["d"] == 0


def test_numbers_are_places_of_labels_and_columns_have_other_names(whole, here):
    rows = [{"body": document(i), "topic": i % 3} for i in range(30)]
    file = write(here / "june.jsonl", rows)
    named = evaluate_rows(options(whole, file, text=("body",), label=("topic",))).evaluation
    assert named.data.findings[0].message == (
        "june.jsonl: 30 labels are read as places of the model's labels: 0 is a, 1 is b, 2 is c"
    )
    same = [{"text": row["body"], "label": "abc"[row["topic"]]} for row in rows]
    assert named.test == evaluate_rows(options(whole, write(file, same))).evaluation.test
    with pytest.raises(InputError, match=r"--text: the model reads 1 columns \(text\), got 2"):
        evaluate_rows(options(whole, file, text=("a", "b")))
    with pytest.raises(InputError, match=r"no column 'topic' \(--label\)"):
        evaluate_rows(options(whole, file, label=("topic",)))


def test_a_model_without_its_run(whole, here):
    (here / "model").symlink_to(whole / "model")
    (here / "bare").mkdir()
    (here / "bare" / "m").symlink_to(whole / "model")
    found = evaluate_rows(options(here / "bare" / "m", here / "data" / "test.jsonl")).evaluation
    results = read_results(whole)
    assert (found.model.run, found.drift, found.is_test_of_run) == (None, None, False)
    assert found.test.metric("accuracy") == results.test.metric("accuracy")
    assert found.calibration.temperature == 1


def test_the_rows_are_read_once_where_engines_are_compared_on_them(whole, here, monkeypatch):
    read, compared = [], []
    whole_read = labelled_input.read_labelled

    def choose(source, options, read_rows):
        compared.extend(read_rows(Classifier(source.name)))
        return Choice("torch", source.name, ("auto: torch",))

    monkeypatch.setattr(
        labelled_input, "read_labelled", lambda *given: read.append(given) or whole_read(*given)
    )
    monkeypatch.setattr(Classifier, "choose_engine", staticmethod(choose))
    rows = rows_of(6)
    file = write(here / "once.jsonl", rows)
    found = evaluate_rows(dataclasses.replace(options(whole, file), engine="auto"))
    assert len(read) == 1
    assert [record.texts[0] for record in compared] == [row["text"] for row in rows]
    assert found.evaluation.model.engine[0] == "auto: torch"


def test_columns_of_a_template():
    assert rename_columns("{a}: {{{b}}} {a}", {"a": "x", "b": "y"}) == "{x}: {{{y}}} {x}"


def test_the_command(whole, here, capsys):
    write(here / "june.jsonl", rows_of(60, "aab", 30))
    words = ["evaluate", str(whole), "june.jsonl", "--output", "june"]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "changed" in captured.out
    assert captured.out.splitlines()[-1] == "Report: june/report.html"
    assert max(map(len, captured.out.splitlines())) <= 100
    page = (here / "june" / "report.html").read_text()
    assert "Changes since the test split" in page
    assert main(words) == 2
    assert capsys.readouterr().err == (
        "error: june: exists already; choose another folder with --output, or add --overwrite\n"
    )
    assert main([*words, "--overwrite", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((here / "june" / "results.json").read_text())
    assert printed["test"]["rows"] == 60
    assert main([*words, "--overwrite", "--quiet"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    for bad in (["nowhere", "june.jsonl"], [str(whole), "none.csv"]):
        assert main(["evaluate", *bad]) == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_a_folder_of_anything_else_is_never_replaced(tmp_path, monkeypatch, capsys):
    (tmp_path / "run" / "model").mkdir(parents=True)
    for name in ("results.json", "report.html", "recipe.yaml"):
        (tmp_path / "run" / name).touch()
    (tmp_path / "file").touch()
    (tmp_path / "june.csv").write_text("text,label\nmatch,a\n")
    monkeypatch.chdir(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    for output, why in (
        (".", ".: holds what no evaluation writes (model, recipe.yaml), which --overwrite would "
              "remove; choose another folder with --output"),
        ("../file", "../file: is no folder; choose another with --output"),
    ):  # fmt: skip
        words = ["evaluate", "run", "../june.csv", "--output", output, "--overwrite"]
        assert main(words) == 2
        assert capsys.readouterr().err == f"error: {why}\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_the_folder_of_an_evaluation_may_be_replaced(tmp_path):
    check_output(tmp_path / "none", overwrite=False)
    check_output(tmp_path, overwrite=True)
    for name in OWN_FILES:
        (tmp_path / name).touch()
        check_output(tmp_path, overwrite=True)
    with pytest.raises(InputError, match="exists already"):
        check_output(tmp_path, overwrite=False)


def test_the_folder_is_named_for_the_data_in_the_run(whole):
    known = evaluate.build_parser().parse_args([str(whole), "x/june.csv.gz", "--split", "test"])
    assert evaluate._default_output(known) == whole / "evaluations" / "june-test"


def test_new_rows_are_scored_by_the_values_of_a_column(whole, here, capsys):
    rows = [{"text": f"{'game' if i % 2 else 'bank'} {i}", "label": "ab"[i % 2],
             "channel": ("mail", "web")[i % 3 == 0]} for i in range(24)]  # fmt: skip
    write(here / "sliced.jsonl", rows)
    words = ["evaluate", str(whole), "sliced.jsonl", "--output", "sliced"]
    assert main([*words, "--slices", "channel"]) == 0
    assert "by channel" in capsys.readouterr().out
    found = json.loads((here / "sliced/results.json").read_text())
    assert [one["by"] for one in found["slices"]] == ["channel", "length"]
    by_channel = {one["value"]: one for one in found["slices"][0]["slices"]}
    assert {name: one["rows"] for name, one in by_channel.items()} == {"mail": 16, "web": 8}
    hits = sum(one["rows"] * one["accuracy"] for one in by_channel.values())
    assert hits == pytest.approx(24 * found["test"]["accuracy"])
    assert '<section id="slices">' in (here / "sliced/report.html").read_text()
    for column, problem in (
        ("chanel", "no column 'chanel' (--slices); did you mean 'channel'?"),
        ("label", "--slices: expected other columns than those of text and label, each once"),
    ):
        assert main([*words, "--overwrite", "--slices", column]) == 2
        assert problem in " ".join(capsys.readouterr().err.split())
