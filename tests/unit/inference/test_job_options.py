"""`job_options` and `job_output`: what is refused before a model loads, and the rows of a shard."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from finetune.cli import predict
from finetune.inference.batch_job import JobSummary
from finetune.inference.cascade import CascadeOptions
from finetune.inference.chunks import Chunk
from finetune.inference.decision import DecisionRules
from finetune.inference.engines import ModelSource
from finetune.inference.inputs import InputSpec
from finetune.inference.job_options import ColumnOptions, JobOptions, OutputOptions
from finetune.inference.job_output import JobOutput
from finetune.inference.labelled_input import LabelledInput
from finetune.inference.outputs import check_output_file
from finetune.inference.records import Record
from finetune.runtime.errors import InputError

MODEL = SimpleNamespace(labels=("a", "b"), columns=("text",), rules=SimpleNamespace(fields=()))


def test_kept_columns_have_names_of_their_own():
    options = ColumnOptions(keep=("n", "gold=label"))
    assert options.names == ("id", "n", "gold")
    options.check(MODEL)
    with pytest.raises(InputError) as caught:
        ColumnOptions(("x", "y"), keep=("label", "n", "n")).check(MODEL)
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "--keep label: the output has a column 'label' of its own",
        "--keep n: the output has a column 'n' of its own",
        "--text: the model reads 1 columns (text), got 2",
    ]


def test_only_a_cascade_has_a_column_that_says_which_model_answered():
    options = ColumnOptions(keep=("answered_by",))
    assert options.find_taken_names() == []
    [problem] = options.find_taken_names(cascades=True)
    assert problem.startswith("--keep answered_by: the output has a column 'answered_by'")


def test_files_that_would_be_lost(tmp_path):
    file = tmp_path / "a.csv"
    file.touch()
    item = SimpleNamespace(path=file)
    assert list(OutputOptions(file).find_lost_files([item])) == [
        f"--output: {file} is also the input; choose another name"
    ]
    other = tmp_path / "b.csv"
    assert list(OutputOptions(other, other).find_lost_files([item])) == [
        f"--errors: expected another file than --output, got {other} for both"
    ]
    assert list(OutputOptions(other, file).find_lost_files([])) == [
        f"{file}: the file exists already; choose another name, or add --overwrite"
    ]
    assert list(OutputOptions(other, file, overwrite=True).find_lost_files([])) == []


def test_files_of_a_cascade_that_would_be_lost(tmp_path):
    labelled = tmp_path / "labelled.csv"
    labelled.touch()

    def lost(output, data):
        cascade = CascadeOptions(ModelSource("student"), data=data)
        options = JobOptions(ModelSource("teacher"), InputSpec("-"), output, cascade=cascade)
        return list(options.find_lost_files([]))

    for data in (labelled, tmp_path):
        assert lost(OutputOptions(labelled, overwrite=True), LabelledInput(str(data))) == [
            f"--output: {labelled} is also of --cascade-data; choose another name"
        ]
    output = OutputOptions(tmp_path / "a.csv")
    assert lost(output, LabelledInput(str(labelled))) == []
    output.cascade_file.touch()
    assert lost(output, None) == [
        f"{output.cascade_file}: the file exists already; choose another --output, or add "
        "--overwrite"
    ]
    assert lost(replace(output, resume=True), None) == []


def test_a_file_that_cannot_be_written(tmp_path):
    check_output_file(None)
    check_output_file(tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"the folder .*none does not exist; create it first"):
        check_output_file(tmp_path / "none" / "a.csv")


def test_the_rows_of_a_shard_and_what_is_counted():
    chunk = Chunk(0, 5, [Record(("x",), (i,)) for i in ("p", 2, None)], 1.0)
    predictions = [
        {"label": "a", "score": 0.9},
        {"label": None, "score": 0.4},
        {"label": None, "score": None, "error": "no text"},
    ]
    output = JobOutput(OutputOptions(None), ("id", "n"), DecisionRules(("a", "b")))
    lines, footer = output.make_shard(chunk, iter(predictions))
    assert json.loads(lines[0]) == {"id": 5, "n": "p", "label": "a", "score": 0.9}
    assert [json.loads(line)["id"] for line in lines] == [5, 6, 7]
    assert (footer["errors"], footer["abstained"], footer["counts"]) == (1, 1, {"a": 1})
    assert footer["kinds"] == {"id": ["int"], "n": ["int", "text"]}


def test_rows_out_of_scope_are_counted():
    chunk = Chunk(0, 1, [Record(("x",), (i,)) for i in range(3)], 1.0)
    predictions = [
        {"label": label, "score": 0.4, "out_of_scope": is_out, "out_of_scope_score": 1.0}
        for label, is_out in (("a", False), (None, False), (None, True))
    ]
    output = JobOutput(OutputOptions(None), ("id",), DecisionRules(("a", "b")))
    _, footer = output.make_shard(chunk, iter(predictions))
    assert (footer["abstained"], footer["out_of_scope"]) == (2, 1)


def test_the_last_lines_say_how_many_are_out_of_scope(capsys):
    known = SimpleNamespace(json=False, errors=None, output="o.csv")
    for out_of_scope, said in ((0, "3  without a label\n"),
                               (2, "3  without a label, 2 of them out of scope\n")):  # fmt: skip
        found = JobSummary(5, 0, 3, {"a": 2}, 1.0, 5, out_of_scope=out_of_scope)
        predict.print_summary(found, known)
        assert said in capsys.readouterr().out


def test_several_labels_are_counted_each():
    chunk = Chunk(0, 1, [Record(("x",), ("i",)), Record(("y",), ("j",))], 1.0)
    rules = DecisionRules(("a", "b"), multi_label=True)
    predictions = [{"labels": ["a", "b"], "scores": [1, 1]}, {"labels": [], "scores": []}]
    lines, footer = JobOutput(OutputOptions(None), ("id",), rules).make_shard(
        chunk, iter(predictions)
    )
    assert json.loads(lines[0])["id"] == "i"
    assert (footer["abstained"], footer["counts"]) == (1, {"a": 1, "b": 1})


@pytest.mark.parametrize("words", [["label"], ["a=x", "a=y"], ["score", "n"]])
def test_a_name_that_is_taken_is_told_before_the_model_loads(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("text,label\n")
    (tmp_path / "model").mkdir()
    monkeypatch.setattr("finetune.cli.predict.check_model", lambda source: None)
    monkeypatch.setitem(sys.modules, "finetune.inference.batch_job", None)  # no import of it works
    assert predict.main(["model", "a.csv", "--output", "o.csv", "--keep", *words]) == 2
    assert f"--keep {words[0].partition('=')[0]}: the output has" in capsys.readouterr().err
