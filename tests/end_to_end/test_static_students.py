"""Static students through whole runs, and a cascade of one and its teacher."""

import contextlib
import csv
import json

import pytest

from finetune.cli import predict
from finetune.inference import batch_job
from finetune.inference.job_output import JobOutput
from finetune.runtime.errors import StoppedError
from finetune.training.prepared_data import STATIC_LENGTH
from tests.end_to_end.test_distillation import LABELLED, NAMES, text
from tests.support.runs import assert_same, results, run_here, stopped_at

STATIC = (*LABELLED, "model.source=static:encoder", "train.batch_size=4", "checkpoint.keep=99")


@pytest.fixture(scope="module")
def work(documents, tmp_path_factory):
    """Labelled rows, an encoder of layers that has learned a little, and a static student."""
    folder = tmp_path_factory.mktemp("static")
    (folder / "labelled").mkdir()
    starts = {"train": (0, 48), "validation": (48, 78), "test": (78, 108)}
    for split, rows in starts.items():
        lines = [json.dumps({"text": text(i), "label": NAMES[i % 3]}) + "\n" for i in range(*rows)]
        (folder / "labelled" / f"{split}.jsonl").write_text("".join(lines))
    for name in ("encoder", "tiny.yaml"):
        (folder / name).symlink_to(documents / name)
    with contextlib.chdir(folder):
        run_here(*LABELLED, "run.dir=teacher")
        run_here(*STATIC, "run.dir=student")
    return folder


@pytest.fixture
def within(work):
    with contextlib.chdir(work):
        yield work


def test_a_static_student_learns(work):
    found = results(work / "student")
    assert found["test"]["accuracy"] > 0.9
    assert found["model"]["source"].startswith("static:")
    document = json.loads((work / "student/model/config.json").read_text())["document"]
    assert document["max_length"] == 32


def test_it_is_taken_up_bit_for_bit(within):
    stopped_at(within / "student", within / "resumed", 16)
    run_here(*STATIC, "run.resume=resumed")
    assert_same(within / "student", within / "resumed")


def test_a_frozen_table_is_told(within, capsys):
    run_here(*LABELLED, "model.source=student/model", "run.dir=further", "train.max_steps=2")
    assert "the static embeddings are frozen, so that the head alone learns" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_trained_table_reads_as_much_as_a_distilled_one(within, capsys):
    for source in ("static:encoder", "student/model"):
        words = f"model.source={source}", "data.max_length=null", "train.max_steps=1"
        run_here(*LABELLED, *words, "run.dir=short", "run.overwrite=true")
        config = json.loads((within / "short/model/config.json").read_text())
        assert config["document"]["max_length"] == STATIC_LENGTH
        assert "attention" not in capsys.readouterr().out
        assert (within / "short/model/model.safetensors").stat().st_mode & 0o044


def test_it_learns_from_a_teacher(within):
    run_here(*STATIC, "distil.teacher=teacher", "run.dir=taught")
    assert results(within / "taught")["train"]["steps"] == 36


def cascade(*words, code=0):
    given = ["--cascade", "student", "teacher", "labelled/test.jsonl", "--overwrite", *words]
    assert predict.main(given) == code


def rows(file):
    with open(file, encoding="utf-8", newline="") as stream:  # noqa: PTH123
        return list(csv.DictReader(stream))


def alone(model, file):
    assert predict.main([model, "labelled/test.jsonl", "--output", file, "--overwrite"]) == 0
    return rows(file)


def test_each_row_is_answered_by_the_model_that_is_said(within):
    cascade("--output", "both.csv", "--window", "7")
    of = {"student": alone("student", "s.csv"), "teacher": alone("teacher", "t.csv")}
    plan = json.loads((within / "both.csv.cascade.json").read_text())
    found = rows("both.csv")
    assert [*found[0]] == ["id", "label", "score", "answered_by", "error"]
    for i, row in enumerate(found):
        who = row.pop("answered_by")
        is_sure = float(of["student"][i]["score"]) >= plan["threshold"]
        assert who == ("student" if is_sure else "teacher")
        assert row["label"] == of[who][i]["label"]
        assert float(row["score"]) == pytest.approx(float(of[who][i]["score"]), abs=1e-5)
    by_student = sum(float(row["score"]) >= plan["threshold"] for row in of["student"])
    assert plan["answered_by"] == {"student": by_student, "teacher": len(found) - by_student}
    assert (plan["rows"], plan["data"], plan["max_loss"]) == (30, "validation", 0.3)


def killed(*given):
    """A cascade's job that is killed as its first call of something begins."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*given, lambda *_: (_ for _ in ()).throw(StoppedError("killed")))
        cascade("--output", "killed.csv", "--window", "7", code=75)


@pytest.mark.parametrize("moment", [(JobOutput, "merge_shards"), (batch_job, "write_plan")])
def test_a_cascade_that_is_killed_goes_on(within, moment, capsys):
    cascade("--output", "whole.csv", "--window", "7")
    killed(*moment)
    resumed = ["--cascade", "student", "teacher", "labelled/test.jsonl", "--output", "killed.csv",
               "--window", "7", "--resume"]  # fmt: skip
    assert predict.main([*resumed, "--cascade-data", "labelled/train.jsonl"]) == 2
    assert "--resume: cascade: the unfinished job of killed.csv has" in capsys.readouterr().err
    assert predict.main(resumed) == 0
    for name in ("{}.csv", "{}.csv.cascade.json"):
        one, other = (within / name.format(which) for which in ("whole", "killed"))
        assert one.read_bytes() == other.read_bytes()
    alone("teacher", "killed.csv")  # whose plan is of no cascade any more
    assert not (within / "killed.csv.cascade.json").exists()


def test_labelled_rows_may_choose_the_threshold(within, capsys):
    data = ("--cascade-data", "labelled/validation.jsonl", "--output", "data.csv")
    cascade(*data, "--cascade-label", "topic", code=2)
    assert "no column 'topic' (--cascade-label)" in capsys.readouterr().err
    cascade(*data, "--max-loss", "5")
    assert json.loads((within / "data.csv.cascade.json").read_text())["max_loss"] == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-loss", "-1"], "--max-loss: expected 0 to less than 100 points, got -1"),
        (["--cascade-label", "label"], "--cascade-label: needs --cascade-data FILE"),
        (["--explain", "3"], "--explain: expected one model, got two (--cascade)"),
        (["--cascade", "teacher"], "--cascade: expected a student and its teacher, got the same"),
        (["--cascade", "student/none"], "--cascade: student/none: no such file or folder"),
        (["--cascade-data", "no.csv"], "--cascade-data: no.csv: no such file or folder"),
        (["--cascade", "student/model", "--keep", "answered_by=text"], "the output has a column"),
    ],
)
def test_what_a_cascade_refuses(within, words, message, capsys):
    cascade("--output", "refused.csv", *words, code=2)
    assert message in capsys.readouterr().err
    assert not (within / "refused.csv").exists()


def test_rows_that_have_moved_are_told_with_a_remedy(within, capsys):
    (within / "labelled").rename(within / "moved")
    try:
        given = ["--cascade", "student", "teacher", "moved/test.jsonl", "--output", "no.csv"]
        assert predict.main(given) == 2
    finally:
        (within / "moved").rename(within / "labelled")
    said = " ".join(capsys.readouterr().err.split())
    assert "whose validation split chooses the threshold, cannot be read again: data.source" in said
    assert "Put them back, or name labelled documents" in said


def test_other_labels_and_other_validation_rows_are_refused(within, capsys):
    (within / "other").mkdir()
    for file in (within / "labelled").iterdir():
        kept = [one for one in file.read_text().splitlines(True) if '"fair"' not in one]
        (within / "other" / file.name).write_text("".join(kept))
    run_here(*STATIC, "run.dir=two", "data.source=other", "train.max_steps=4")
    given = ["--cascade", "two", "teacher", "labelled/test.jsonl", "--output", "no.csv"]
    assert predict.main(given) == 2
    assert "expected two classifiers of the same labels, got bad, good" in capsys.readouterr().err
    run_here(*STATIC, "run.dir=less", "data.max_validation_rows=9", "train.max_steps=4")
    given[1] = "less"
    assert predict.main(given) == 2
    said = capsys.readouterr().err
    assert "have no validation split in common; name labelled documents" in " ".join(said.split())
