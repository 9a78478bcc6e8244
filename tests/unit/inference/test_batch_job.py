"""A batch job in this process: what it counts, what it writes, and what it refuses or resumes."""

import csv
import json
import os
import threading
from dataclasses import replace

import pytest

from finetune.inference import job_start
from finetune.inference.batch_job import run_job
from finetune.inference.engine_choice import Choice
from finetune.inference.engines import EngineOptions, ModelSource
from finetune.inference.inputs import InputSpec
from finetune.inference.job_options import JobOptions, OutputOptions
from finetune.runtime.errors import InputError
from tests.end_to_end.test_predict import LABELS, classifier, texts  # noqa: F401

ROWS = 20


@pytest.fixture
def job(classifier, tmp_path):  # noqa: F811
    """Options of a job of 20 texts, one of them missing; the arguments are of its output."""
    source = tmp_path / "a.csv"
    with source.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([["text"], *([text] for text in texts(ROWS - 1)), [" "]])

    def options(**output):
        return JobOptions(
            ModelSource(str(classifier)),
            InputSpec(str(source)),
            OutputOptions(tmp_path / "out.csv", chunk_rows=8, **output),
            compute=EngineOptions(precision="fp32", threads=1),
        )

    return options


def written(job):
    with job().output.file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_job_counts_what_it_writes(job):
    done = run_job(job())
    rows = written(job)
    assert (done.rows, done.errors, done.computed) == (ROWS, 1, ROWS)
    assert [row["id"] for row in rows] == [str(i) for i in range(1, ROWS + 1)]
    assert list(done.counts) == LABELS
    for label, count in done.counts.items():
        assert count == sum(row["label"] == label for row in rows)
    assert sum(done.counts.values()) == ROWS - 1
    assert rows[-1]["error"]


def test_the_words_that_spoke_for_each_label(job):
    run_job(job(explain=2))
    rows = written(job)
    assert [*rows[0]] == ["id", "label", "score", "explanation", "error"]
    for row, text in zip(rows, texts(ROWS - 1), strict=False):
        words = json.loads(row["explanation"])
        assert len(words) <= 2
        assert all(text[one["start"] : one["end"]] == one["word"] for one in words)
    assert rows[-1]["explanation"] == ""
    assert any(row["explanation"] not in ("", "[]") for row in rows)


def test_auto_takes_no_row_of_a_pipe(job, tmp_path, monkeypatch):
    """A pipe is read once: rows that engines are compared on would be lost."""
    given = []

    def choose(source, options, read_rows):
        given.append(read_rows)
        return Choice("torch", source.name, ("auto: torch",))

    monkeypatch.setattr(job_start.Classifier, "choose_engine", choose)
    asked = replace(job(), engine="auto")
    assert run_job(asked).rows == ROWS
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    content = (tmp_path / "a.csv").read_bytes()
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    asked = replace(job(overwrite=True), engine="auto", input=InputSpec(str(pipe)))
    assert run_job(asked).rows == ROWS
    writer.join()
    assert given[0] is not None
    assert given[1] is None


def test_an_output_is_not_replaced_unasked(job):
    run_job(job())
    before = written(job)
    with pytest.raises(InputError, match="the file exists already; choose another name, or add"):
        run_job(job())
    assert run_job(job(resume=True)) is None  # complete
    assert run_job(job(overwrite=True)).computed == ROWS
    assert written(job) == before


def test_a_stopped_job_goes_on_after_its_shards(job, monkeypatch):
    from finetune.inference import job_output

    make_shard, chunks = job_output.JobOutput.make_shard, []

    def stop_at_the_second(self, chunk, predictions):
        chunks.append(chunk.index)
        if len(chunks) == 2:
            raise KeyboardInterrupt
        return make_shard(self, chunk, predictions)

    with monkeypatch.context() as patch:
        patch.setattr(job_output.JobOutput, "make_shard", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            run_job(job())
    assert not job().output.file.exists()
    done = run_job(job(resume=True))
    assert (done.rows, done.computed) == (ROWS, ROWS - 8)
    assert len(written(job)) == ROWS


def test_all_problems_of_the_options_at_once(job, tmp_path):
    options = job(errors=tmp_path / "out.csv")
    options = JobOptions(ModelSource(str(tmp_path / "none")), options.input, options.output)
    with pytest.raises(InputError) as caught:
        run_job(options)
    of_model, of_errors = caught.value.problems
    assert of_model.startswith(f"MODEL: {tmp_path / 'none'}: no such file or folder")
    assert of_errors.startswith("--errors: expected another file than --output")
