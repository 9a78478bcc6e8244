"""scripts/predict.py and `Classifier`: every format, bad rows, kills, any order and budget."""

import csv
import gzip
import io
import json
import random
import shutil
import subprocess
import sys
import threading
from collections import Counter

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.cli import predict as script
from finetune.config import schema
from finetune.data.formats.source import DataSource
from finetune.inference import chunks, engine, shards
from finetune.inference.classifier import Classifier
from finetune.inference.decision import DecisionRules
from finetune.inference.records import RequestedColumns
from finetune.modeling import build, pretrained, saved_model
from finetune.modeling import head as head_module
from finetune.runtime.errors import InputError
from tests.support import forks
from tests.support.processes import ENVIRONMENT, ROOT
from tests.support.runs import reset_accelerate
from tests.support.tiny import WORDS, tiny_encoder

LABELS = ["sports", "money", "tech"]
ROWS = 300


def texts(many=ROWS):
    """Texts of very unlike lengths, some cut at the model's 32 tokens."""
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=draw.choice((1, 2, 9, 40)))) for _ in range(many)]


def write_classifier(folder, head="linear", architecture="bert"):
    source = str(tiny_encoder(folder / "encoder", architecture))
    choices = schema.Model(head=head, head_init="normal", freeze="none")
    made = build.build_classifier(source, choices, LABELS, "sdpa", seed=0)
    tokenizer = pretrained.load_tokenizer(source, choices)
    tokenizer.model_max_length = 32
    given = tokenizer(texts(100), truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():  # else all texts get nearly the same answer
        head = head_module.find_head(made)
        head.weight.mul_(40)
        head.bias.sub_(made(**given).logits.mean(0))
    saved_model.save_classifier(made, tokenizer, folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def classifier(shared):
    return shared("classifier", write_classifier) / "model"


@pytest.fixture(scope="session")
def expected(classifier):
    """What the model says of each text alone, without this package's batches."""
    made, tokenizer = saved_model.load_classifier(classifier)
    found = []
    for text in texts():
        given = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
        with torch.no_grad():
            found.append(torch.softmax(made(**given).logits[0].double(), -1).numpy())
    assert len(Counter(row.argmax() for row in found)) == 3
    return np.array(found)


@pytest.fixture
def here(classifier, tmp_path, monkeypatch):
    (tmp_path / "model").symlink_to(classifier)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words, code=0):
    reset_accelerate()
    assert script.main([*words, "--precision", "fp32", "--threads", "1"]) == code


def predicted(file):
    """The rows of an output in any format, as dictionaries."""
    if file.name.endswith(".parquet"):
        return pq.read_table(file).to_pylist()
    opened = gzip.open if file.name.endswith(".gz") else open
    with opened(file, "rt", encoding="utf-8", newline="") as stream:
        if ".jsonl" in file.name:
            return [json.loads(line) for line in stream]
        return list(csv.DictReader(stream, delimiter="\t" if ".tsv" in file.name else ","))


def assert_right(rows, expected):
    assert [int(row["id"]) for row in rows] == list(range(1, len(rows) + 1))
    assert [row["label"] for row in rows] == [LABELS[i] for i in expected.argmax(1)]
    scores = [float(row["score"]) for row in rows]
    np.testing.assert_allclose(scores, expected.max(1), atol=2e-5)


def write(file, rows=None):
    """Rows in the format that the file's name says."""
    rows = rows or [{"text": text, "n": i} for i, text in enumerate(texts())]
    opened = gzip.open if file.name.endswith(".gz") else open
    kind = file.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=37)
        return file
    with opened(file, "wt", encoding="utf-8", newline="") as out:
        match kind:
            case "csv" | "tsv":
                writer = csv.DictWriter(out, rows[0], delimiter="\t" if kind == "tsv" else ",")
                writer.writeheader()
                writer.writerows(rows)
            case "jsonl":
                out.writelines(json.dumps(row) + "\n" for row in rows)
            case "json":
                json.dump(rows, out, indent=1)
            case "txt":
                out.writelines(row["text"] + "\n" for row in rows)
    return file


@pytest.mark.parametrize(
    "name",
    ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.txt", "a.csv.gz", "a.jsonl.gz"],
)
def test_every_input(here, expected, name):
    write(here / name)
    run("model", name, "--output", "out.jsonl", "--window", "64")
    assert_right(predicted(here / "out.jsonl"), expected)
    assert sorted(path.name for path in here.iterdir()) == sorted([name, "model", "out.jsonl"])


@pytest.mark.parametrize(
    "name", ["o.csv", "o.tsv", "o.jsonl", "o.parquet", "o.csv.gz", "o.jsonl.gz"]
)
def test_every_output(here, expected, name):
    rows = [{"text": text, "label": "gold", "n": i, "mixed": [i, "a"][i % 2], "real": i / 2,
             "yes": None if i == 3 else i % 2 == 0, "many": [i]}
            for i, text in enumerate(texts())]  # fmt: skip
    write(here / "a.jsonl", rows)
    kept = ["gold=label", "n", "mixed", "real", "yes", "many"]
    run("model", "a.jsonl", "--output", name, "--probabilities", "--keep", *kept, "--window", "99")
    found = predicted(here / name)
    assert_right(found, expected)
    if ".jsonl" in name:
        assert list(found[0]) == [
            "id", "gold", "n", "mixed", "real", "yes", "many", "label", "score", "probabilities"
        ]  # fmt: skip
        chances = [list(row["probabilities"].values()) for row in found]
        assert list(found[0]["probabilities"]) == LABELS
    else:
        columns = [f"probabilities.{label}" for label in LABELS]
        assert list(found[0])[-4:] == [*columns, "error"]
        chances = [[float(row[column]) for column in columns] for row in found]
        assert {row["error"] for row in found} <= {None, ""}
    np.testing.assert_allclose(chances, expected, atol=2e-5)
    kept = [tuple(row[name.rpartition("=")[0] or name] for name in kept) for row in found[2:5]]
    if name.endswith(".parquet"):
        assert kept == [
            ("gold", 2, "2", 1.0, True, "[2]"),
            ("gold", 3, "a", 1.5, None, "[3]"),
            ("gold", 4, "4", 2.0, True, "[4]"),
        ]
    elif ".jsonl" in name:
        assert kept[1] == ("gold", 3, "a", 1.5, None, "[3]")
    else:
        assert kept[1] == ("gold", "3", "a", "1.5", "", "[3]")


def test_folder_glob_split_and_saved_data_set(here, expected):
    folder = here / "many"
    (folder / "inner").mkdir(parents=True)
    rows = [{"text": text, "n": i} for i, text in enumerate(texts())]
    write(folder / "part-2.csv", rows[:100])
    write(folder / "part-10.jsonl", rows[100:200])
    write(folder / "part-11.parquet", rows[200:])
    (folder / ".hidden.csv").write_text("other\n1\n")
    (folder / "notes.md").write_text("no data")
    run("model", "many", "--output", "folder.csv", "--window", "70")
    assert_right(predicted(here / "folder.csv"), expected)
    run("model", str(folder / "part-*"), "--output", "glob.csv")
    assert_right(predicted(here / "glob.csv"), expected)
    run("model", "many", "--split", "part-2", "--output", "split.csv")
    assert_right(predicted(here / "split.csv"), expected[:100])
    table = datasets.Dataset.from_list(rows)
    datasets.DatasetDict({"train": table.select(range(7)), "test": table}).save_to_disk("saved")
    run("model", "saved", "--split", "test", "--output", "saved.csv")
    assert_right(predicted(here / "saved.csv"), expected)


def test_text_files_of_a_folder_are_documents(here, expected):
    (here / "docs").mkdir()
    for i, text in enumerate(texts(11)):
        (here / "docs" / f"{i}.txt").write_text(text + "\n")
    run("model", "docs", "--output", "out.csv")
    found = predicted(here / "out.csv")
    assert [row["id"] for row in found] == [f"docs/{i}.txt" for i in range(11)]
    assert [row["label"] for row in found] == [LABELS[i] for i in expected[:11].argmax(1)]
    run("model", "docs", "--txt", "lines", "--output", "lines.csv")
    assert_right(predicted(here / "lines.csv"), expected[:11])


@pytest.mark.parametrize("kind", ["jsonl", "txt", "csv", "packed"])
def test_standard_input(here, expected, monkeypatch, kind):
    name = {"packed": "a.jsonl.gz"}.get(kind, f"a.{kind}")
    content = write(here / name).read_bytes()
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)), encoding="utf-8")
    )
    words = {"csv": ["--format", "csv"], "packed": ["--format", "jsonl"]}.get(kind, [])
    run("model", "-", "--output", "out.csv", *words)
    assert_right(predicted(here / "out.csv"), expected)


BAD = [
    b'{"text": "the match", "n": 0}',
    b'{"text": null, "n": 1}',
    b'{"n": 2}',
    b'{"text": 3, "n": 3}',
    b'{"text": ["a", "b"], "n": 4}',
    b'{"text": "caf\xe9", "n": 5}',
    b'{"text": "   ", "n": 6}',
    b'{"text": "half',
    b'["no object"]',
    b'{"text": "\\ud83d", "n": 9}',
    b'{"text": "the goal", "n": 10}',
]
SAID = [
    None,
    "line 2: 'text' is null",
    "line 3: 'text' is missing",
    "line 4: 'text' should be text, and is 3",
    "line 5: 'text' should be text, and is a list [\"a\", \"b\"]",
    "line 6: 'text' is not UTF-8",
    "line 7: 'text' is empty",
    "line 8: expected a JSON object on each line, got invalid JSON (Unterminated string starting "
    "at at column 10)",
    "line 9: expected a JSON object on each line, got a list [\"no object\"]",
    "line 10: 'text' holds half of a surrogate pair, such as \\ud83d alone, which is no character",
    None,
]  # fmt: skip


def test_bad_rows_stop_nothing(here, capsys):
    (here / "bad.jsonl").write_bytes(b"\n".join(BAD) + b"\n")
    run("model", "bad.jsonl", "--output", "out.jsonl", "--keep", "n", "--window", "4")
    found = predicted(here / "out.jsonl")
    assert [row["id"] for row in found] == list(range(1, 12))
    said = [row.get("error") for row in found]
    assert said == [why if why is None else f"bad.jsonl: {why}" for why in SAID]
    for row, why in zip(found, SAID, strict=True):
        assert (row["label"] is None) == (row["score"] is None) == (why is not None)
    assert [row["n"] for row in found] == [0, 1, 2, 3, 4, 5, 6, None, None, 9, 10]
    assert "          9  invalid rows" in capsys.readouterr().out
    run("model", "bad.jsonl", "--output", "right.csv", "--errors", "wrong.csv")
    assert [row["id"] for row in predicted(here / "right.csv")] == ["1", "11"]
    assert list(predicted(here / "right.csv")[0]) == ["id", "label", "score"]
    wrong = predicted(here / "wrong.csv")
    assert [row["error"] for row in wrong] == [f"bad.jsonl: {why}" for why in SAID if why]
    assert list(wrong[0]) == ["id", "error"]


def test_bad_rows_of_tables(here):
    lines = [
        b"text,n", b"the match,0", b"too,many,cells", b'"open "quote,2', b"caf\xe9,3", b",4",
        b'"two', b'lines, one cell",5', b"", b"the goal,6", b'"never ends,7', b"last,8",
    ]  # fmt: skip
    (here / "bad.csv").write_bytes(b"\n".join(lines) + b"\n")
    run("model", "bad.csv", "--output", "out.jsonl", "--keep", "n")
    found = predicted(here / "out.jsonl")
    quotes = "expected quoted cells that end with a quote and double the quotes within, got"
    assert [row.get("error", row["n"]) for row in found] == [
        "0",
        "bad.csv: row 2: expected 2 cells in each row, as in the header, got 3",
        f"bad.csv: row 3: {quotes} text behind the quote that ends a cell",
        "bad.csv: row 4: 'text' is not UTF-8",
        "bad.csv: row 5: 'text' is empty",
        "5",
        "6",
        f"bad.csv: row 8: {quotes} a quote that does not end",
        "8",
    ]
    (here / "quotes.tsv").write_text('text\tn\n"the match\t0\nit was "good"\t1\n')
    run("model", "quotes.tsv", "--output", "tsv.jsonl", "--keep", "n")
    assert [row.get("error", row["n"]) for row in predicted(here / "tsv.jsonl")] == ["0", "1"]
    bytes_of = pa.array([b"the match", b"caf\xe9", None], pa.binary())
    pq.write_table(pa.table({"text": bytes_of}), here / "bad.parquet")
    run("model", "bad.parquet", "--output", "parquet.jsonl")
    assert [row.get("error") for row in predicted(here / "parquet.jsonl")] == [
        None,
        "bad.parquet: row 2: 'text' is not UTF-8",
        "bad.parquet: row 3: 'text' is null",
    ]


def said(capsys):
    return capsys.readouterr().err.splitlines()


def test_messages(here, capsys):
    write(here / "a.csv")
    (here / "taken.csv").write_text("mine")
    run("./no_model", "b.csv", "--output", "out.xls", "--errors", "none/e.csv", code=2)
    assert said(capsys) == [
        "error: out.xls: unknown ending; expected .csv, .tsv, .jsonl, .parquet, the first three "
        "also with .gz",
        "error: none/e.csv: the folder none does not exist; create it first",
        "error: MODEL: ./no_model: no such file or folder; did you mean model?",
        "error: INPUT: b.csv: no such file or folder; did you mean a.csv?",
    ]
    run("model", "a.csv", "--output", "taken.csv", code=2)
    assert said(capsys) == [
        "error: taken.csv: the file exists already; choose another name, or add --overwrite"
    ]
    run("model", "a.csv", "--output", "o.csv", "--text", "txt", "--keep", "n", "score=n", code=2)
    assert said(capsys) == [
        "error: --keep score: the output has a column 'score' of its own; write --keep "
        "my_score=score",
        "error: a.csv: no column 'txt' (--text); did you mean 'text'? (columns: 'text', 'n')",
    ]
    (here / "runs/one").mkdir(parents=True)
    shutil.copytree(here / "model", here / "runs/one/model")
    run("runs", "a.csv", "--output", "runs", code=2)
    assert said(capsys) == [
        "error: runs: this is a folder; name a file in it, such as runs/predictions.csv",
        f"error: MODEL: {here}/runs holds 1 run, and is not a run itself; name one, such as the "
        f"newest, {here}/runs/one",
    ]
    (here / "many").mkdir()
    run("model", "many", "--output", "o.csv", code=2)
    assert said(capsys) == [
        "error: many: expected files called .csv, .tsv, .json, .jsonl, .ndjson, .parquet, .txt "
        "(each also with .gz), found no file; --format says what a file holds whose name does not"
    ]
    (here / "cut.csv.gz").write_bytes(gzip.compress((here / "a.csv").read_bytes())[:-9])
    run("model", "cut.csv.gz", "--output", "o.csv", code=2)
    assert said(capsys) == [
        "error: cut.csv.gz: not a whole gzip file (Compressed file ended before the "
        "end-of-stream marker was reached)"
    ]
    run("encoder", "a.csv", "--output", "o.csv", code=2)
    assert "encoder" in said(capsys)[0]
    names = sorted(path.name for path in here.iterdir())
    assert names == ["a.csv", "cut.csv.gz", "many", "model", "runs", "taken.csv"]
    assert (here / "taken.csv").read_text() == "mine"


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from finetune.inference import batch_job, classifier, engines, inputs, outputs, shards  # once
from finetune.cli import predict as script

draw, kills, folder = random.Random(int(sys.argv[1])), int(sys.argv[2]), Path(".out.csv.shards")
words = sys.argv[3:]
for kill in range(kills + 1):
    child = os.fork()
    if child == 0:
        os._exit(script.main([*words, *["--resume"] * (kill > 0)]))
    if kill == kills:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    before = len(list(folder.glob("*.jsonl")))
    more = draw.randrange(4)
    while len(list(folder.glob("*.jsonl"))) < before + more:
        assert os.waitpid(child, os.WNOHANG)[0] == 0, "it ended before it was killed"
        time.sleep(0.001)
    time.sleep(draw.random() / 50)
    os.kill(child, signal.SIGKILL)
    print("parts", len(list(folder.glob("*.jsonl"))), os.waitpid(child, 0)[1], flush=True)
"""


def test_killed_and_resumed_is_never_stopped(here):
    write(here / "a.jsonl")
    words = ["model", "a.jsonl", "--output", "out.csv", "--window", "11", "--precision", "fp32"]
    words += ["--threads", "1", "--keep", "n", "--errors", "e.csv"]
    done = subprocess.run(
        [sys.executable, "-c", KILLER, "5", "4", *words],
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f" {9}\n") == 4  # killed, each
    assert "by earlier runs" in done.stdout
    killed = (here / "out.csv").read_bytes()
    run("model", "a.jsonl", "--output", "out.csv", "--window", "11", "--keep", "n", "--errors",
        "e.csv", "--overwrite")  # fmt: skip
    assert (here / "out.csv").read_bytes() == killed
    assert [row["n"] for row in predicted(here / "out.csv")] == [str(i) for i in range(ROWS)]


def stopped(here, many, *words):
    """A job that was killed after so many parts."""
    write(here / "a.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        whole = shards.ShardStore.write

        def write_some(self, index, *more):
            if index == many:
                raise KeyboardInterrupt
            whole(self, index, *more)

        patch.setattr(shards.ShardStore, "write", write_some)
        run("model", "a.jsonl", "--output", "out.csv", "--window", "20", *words, code=130)
    assert len(list((here / ".out.csv.shards").glob("*.jsonl"))) == many


def resume(*words, **more):
    run("model", "a.jsonl", "--output", "out.csv", "--window", "20", "--resume", *words, **more)


def test_resume_takes_whole_parts_only(here, expected, capsys):
    stopped(here, 7)
    run("model", "a.jsonl", "--output", "out.csv", "--window", "20", code=2)
    assert said(capsys) == [
        "error: out.csv: an unfinished job exists in .out.csv.shards; continue it with --resume, "
        "or discard it with --overwrite"
    ]
    parts = here / ".out.csv.shards"
    (parts / "00000002.jsonl").write_bytes((parts / "00000002.jsonl").read_bytes()[:-30])
    lines = (parts / "00000003.jsonl").read_text().splitlines(keepends=True)
    (parts / "00000003.jsonl").write_text("".join(lines[1:]))
    (parts / ".00000007.jsonl.new").write_text("half")
    resume()
    assert "300 rows" in (out := capsys.readouterr().out)
    assert "(100 by earlier runs)" in out
    assert_right(predicted(here / "out.csv"), expected)
    resume()
    assert capsys.readouterr().out == (
        "out.csv is complete: nothing to resume, whatever its model and input were; --overwrite "
        "starts again\n"
    )


def test_resume_refuses_another_job(here, capsys):
    stopped(here, 3)
    resume("--probabilities", "--keep", "n", code=2)
    assert said(capsys) == [
        f"error: --resume: {key}: the unfinished job of out.csv has {before}, this one {now}; run "
        "that job, or discard it with --overwrite"
        for key, before, now in (
            ("columns", '["text"]', '["text", "n"]'),
            ("names", '["id"]', '["id", "n"]'),
            ("probabilities", "false", "true"),
        )
    ]
    write(here / "a.jsonl", [{"text": "other"}, *({"text": text} for text in texts()[1:])])
    resume(code=2)
    assert said(capsys) == [
        "error: --resume: the input has changed: rows 1 to 20 differ from those already "
        "classified; start again with --overwrite"
    ]
    (here / "model").unlink()
    shutil.copytree(write_classifier(here / "other", "linear", "electra"), here / "model")
    write(here / "a.jsonl")
    resume(code=2)
    assert "error: --resume: model: the unfinished job of out.csv has" in said(capsys)[0]
    assert len(list((here / ".out.csv.shards").glob("*.jsonl"))) == 3


def test_a_resumed_job_keeps_the_engine_that_auto_chose(here, expected, capsys):
    stopped(here, 3, "--engine", "auto")
    out = " ".join(capsys.readouterr().out.split())
    assert "auto: torch, as no export of this model is beside it" in out
    resume("--engine", "auto", "--json")
    assert_right(predicted(here / "out.csv"), expected)
    assert json.loads(capsys.readouterr().out)["engine"] == "torch"


def test_what_stood_there_stays_until_the_new_is_whole(here):
    (here / "out.csv").write_text("old")
    stopped(here, 3, "--overwrite")
    assert (here / "out.csv").read_text() == "old"
    resume("--overwrite")
    assert len(predicted(here / "out.csv")) == ROWS


def test_two_processes_write_one_output(here, expected):
    write(here / "a.jsonl")
    words = ["model", "a.jsonl", "--output", "out.csv", "--precision", "fp32", "--window", "16"]
    done = forks.run_ranks(2, "scripts.predict", *words, cwd=here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 2 processes" in done.stdout
    assert done.stdout.count("300 rows in") == 1
    assert_right(predicted(here / "out.csv"), expected)
    assert not (here / ".out.csv.shards").exists()


@pytest.fixture(scope="module")
def loaded(classifier):
    return Classifier(classifier, precision="fp32", threads=1)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(60)), budget=st.integers(1, 3000), data=st.data())
def test_any_order_and_budget_give_the_same(loaded, expected, order, budget, data):
    some = order[: data.draw(st.integers(1, 60))]
    loaded.engine.budget = budget
    found = loaded([texts()[i] for i in some], probabilities=True)
    assert [answer["label"] for answer in found] == [LABELS[i] for i in expected[some].argmax(1)]
    chances = [list(answer["probabilities"].values()) for answer in found]
    np.testing.assert_allclose(chances, expected[some], atol=2e-5)


@pytest.mark.parametrize(
    ("threads", "workers"), [(1, 1), (2, 2), (8, 8), (12, 6), (13, 6), (64, 8)]
)
def test_workers_leave_few_threads_idle(threads, workers):
    assert engine.count_workers(threads) == workers


def test_several_workers_give_the_same(loaded, expected, monkeypatch):
    whole, seen = loaded.engine.run, []

    def noted(table, rows, threads):
        seen.append((threading.get_ident(), len(rows), threads))
        return whole(table, rows, threads)

    for name, value in {"run": noted, "threads": 7, "workers": 3, "budget": 64}.items():
        monkeypatch.setattr(loaded.engine, name, value)
    for many, batches_at_least, share in ((60, 6, 2), (2, 2, 3)):
        seen.clear()
        found = loaded(texts()[:many], probabilities=True)
        chances = [list(answer["probabilities"].values()) for answer in found]
        np.testing.assert_allclose(chances, expected[:many], atol=2e-5)
        assert {threads for *_, threads in seen} == {share}
        assert sum(rows for _, rows, _ in seen) == many
        assert len(seen) >= batches_at_least
        assert threading.get_ident() not in {thread for thread, *_ in seen}
    seen.clear()
    loaded(texts()[:1])
    assert seen == [(threading.get_ident(), 1, 7)]  # nothing to share: all threads


def test_a_gpu_that_runs_out_gets_smaller_batches(loaded, expected, monkeypatch):
    whole, most = loaded.engine.run, 100

    def run_out(table, rows, threads):
        if table.lengths[rows].sum() > most:
            raise torch.OutOfMemoryError
        return whole(table, rows, threads)

    monkeypatch.setattr(loaded.engine, "run", run_out)
    loaded.engine.budget = 4096
    found = loaded(texts(50))
    assert loaded.engine.budget <= 128
    assert [answer["label"] for answer in found] == [LABELS[i] for i in expected[:50].argmax(1)]
    most = 20
    with pytest.raises(InputError, match="a document of 32 tokens does not fit"):
        loaded(texts(50))


def test_in_python(loaded):
    assert loaded([]) == []
    assert loaded("the match")[0].keys() == {"label", "score"}
    assert loaded([{"text": "the match"}]) == loaded(["the match"])
    found = loaded(["the match", None, {"txt": "a"}, "", ("the match",), ["a", "b"], " "])
    assert found[0] == found[4] == loaded("the match")[0]
    assert [(one["label"], one["score"]) for one in (*found[1:4], *found[5:])] == [(None, None)] * 5
    assert [one.get("error") for one in found] == [
        None,
        "documents: number 2: expected text, got None",
        "documents: number 3: 'text' is missing",
        "documents: number 4: 'text' is empty",
        None,
        "documents: number 6: expected text, got a list of 2",
        "documents: number 7: 'text' is empty",
    ]
    with pytest.raises(InputError, match="documents: expected a text or several, got an int"):
        loaded(3)


def test_other_encoders_and_heads(tmp_path):
    """Rows that cannot be packed are padded, and get the answers of each text alone."""
    for head, architecture in (("native", "bert"), ("linear", "distilbert"), ("linear", "roberta")):
        folder = write_classifier(tmp_path / f"{head}-{architecture}", head, architecture)
        made, tokenizer = saved_model.load_classifier(folder)
        found = Classifier(folder, precision="fp32", threads=1)(texts(30), probabilities=True)
        for text, answer in zip(texts(30), found, strict=True):
            given = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
            with torch.no_grad():
                alone = torch.softmax(made(**given).logits[0], -1)
            got = torch.tensor(list(answer["probabilities"].values()))
            torch.testing.assert_close(got, alone, atol=2e-5, rtol=0)


def read_as(classifier, folder, **document):
    """A copy of the classifier that reads documents in another way."""
    shutil.copytree(classifier, folder)
    config = json.loads((folder / "config.json").read_text())
    config["document"] = {"max_length": 32} | document
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_several_columns_and_pairs(classifier, here, monkeypatch):
    made, tokenizer = saved_model.load_classifier(classifier)
    read_as(classifier, here / "joined", text=["title", "body"], template="{title} or {body}")
    rows = [
        {"title": "the match", "body": "win"},
        {"title": None, "body": "bank"},
        {"body": "robot"},
        {"title": " ", "body": ""},
        {"title": 3, "body": "a"},
    ]
    write(here / "a.jsonl", rows)
    run("joined", "a.jsonl", "--output", "joined.jsonl")
    found = predicted(here / "joined.jsonl")
    plain = Classifier(classifier, precision="fp32", threads=1)
    same = plain(["the match or win", " or bank", " or robot"])
    assert [(row["label"], row["score"]) for row in found[:3]] == [
        (answer["label"], pytest.approx(answer["score"], abs=1e-5)) for answer in same
    ]
    assert [row["error"] for row in found[3:]] == [
        "a.jsonl: line 4: 'title' and 'body' are empty",
        "a.jsonl: line 5: 'title' should be text, and is 3",
    ]
    write(here / "b.csv", [{"head": "the match", "content": "win"}])
    run("joined", "b.csv", "--text", "head", "content", "--output", "renamed.jsonl")
    assert predicted(here / "renamed.jsonl")[0]["label"] == same[0]["label"]

    read_as(classifier, here / "pairs", text_pair="claim")
    pairs = [{"text": "the match", "claim": text} for text in texts(20)]
    found = Classifier(here / "pairs", precision="fp32", threads=1)(pairs, probabilities=True)
    for row, answer in zip(pairs, found, strict=True):
        given = tokenizer(
            row["text"], row["claim"], truncation=True, max_length=32, return_tensors="pt"
        )
        with torch.no_grad():
            alone = torch.softmax(made(**given).logits[0], -1)
        got = torch.tensor(list(answer["probabilities"].values()))
        torch.testing.assert_close(got, alone, atol=2e-5, rtol=0)
    of_pairs = Classifier(here / "pairs", precision="fp32", threads=1)
    assert of_pairs([tuple(row.values()) for row in pairs], probabilities=True) == found
    of_frame = of_pairs(pd.DataFrame(pairs, index=range(7, 27)), probabilities=True)
    assert of_frame["label"].tolist() == [answer["label"] for answer in found]
    assert of_frame.index.tolist() == [*range(7, 27)]
    assert [one["error"] for one in of_pairs(["a", ("a", "b", "c"), ("a", None)])] == [
        "documents: number 1: expected a row with the columns text, claim, got 'a'",
        "documents: number 2: expected 2 texts (the columns text, claim), got 3 texts",
        "documents: number 3: 'claim' is null",
    ]


def test_windows_of_a_document(classifier, tmp_path):
    windowed = read_as(
        classifier,
        tmp_path / "windows",
        max_length=12,
        truncation="windows",
        stride=2,
        window_pooling="mean",
    )
    table = (reader := Classifier(windowed, precision="fp32", threads=1)).reading.encode(
        texts(40), None, reader.tokenizer
    )
    assert table.first is not None
    assert np.diff(table.first).max() > 3
    made = saved_model.load_classifier(classifier)[0]
    with torch.no_grad():
        for i, answer in enumerate(reader(texts(40), probabilities=True)):
            pieces = [
                torch.from_numpy(table.ids[table.span(piece)].astype(np.int64))[None]
                for piece in range(table.first[i], table.first[i + 1])
            ]
            logits = torch.cat([made(input_ids=ids).logits for ids in pieces]).mean(0)
            got = torch.tensor(list(answer["probabilities"].values()))
            torch.testing.assert_close(got, torch.softmax(logits, -1), atol=2e-5, rtol=0)


def test_rules():
    logits = np.array([[2.0, 0, 0], [0.1, 0, 0], [-9, 900, -9]], dtype=np.float32)
    one = list(DecisionRules(("a", "b", "c"), abstain_below=0.5).decide(logits, False))
    assert one == [
        {"label": "a", "score": 0.786986},
        {"label": None, "score": 0.355913},
        {"label": "b", "score": 1.0},
    ]
    several = DecisionRules(("a", "b", "c"), multi_label=True, thresholds=(0.9, 0.5, 0.51))
    assert list(several.decide(logits, False)) == [
        {"labels": ["b"], "scores": [0.5]},
        {"labels": ["b"], "scores": [0.5]},
        {"labels": ["b"], "scores": [1.0]},
    ]
    best_first = DecisionRules(("a", "b", "c"), multi_label=True).decide(logits[:1], True)
    assert list(best_first) == [
        {
            "labels": ["a", "b", "c"],
            "scores": [0.880797, 0.5, 0.5],
            "probabilities": {"a": 0.880797, "b": 0.5, "c": 0.5},
        }
    ]


def test_several_labels_and_abstention_in_a_job(here, classifier):
    (here / "model").unlink()
    shutil.copytree(classifier, here / "model")
    config = json.loads((here / "model/config.json").read_text())
    write(here / "a.csv")
    for name, more in (
        ("multi", {"problem_type": "multi_label_classification"}),
        ("unsure", {"document": {"abstain_below": 0.95, "thresholds": None}}),
    ):
        (here / "model/config.json").write_text(json.dumps(config | more))
        run("model", "a.csv", "--output", f"{name}.parquet", "--probabilities")
    multi, unsure = predicted(here / "multi.parquet"), predicted(here / "unsure.parquet")
    for row in multi:
        over = {label for label in LABELS if row[f"probabilities.{label}"] >= 0.5}
        assert set(row["labels"]) == over
        assert row["scores"] == sorted(row["scores"], reverse=True)
    assert {len(row["labels"]) for row in multi} >= {1, 2}
    for row in unsure:
        assert (row["label"] is None) == (row["score"] < 0.95)
    assert len({row["label"] for row in unsure}) > 1


def test_windows_are_made_ahead_and_no_further(tmp_path):
    """What bounds memory: at most one window waits, and one is being made."""
    file = write(tmp_path / "a.jsonl")
    made = []

    def noted():
        for window in chunks.read_chunks(
            [DataSource("a", "jsonl", file)], RequestedColumns(("text",)), 10
        ):
            made.append(window.index)
            yield window

    for used, window in enumerate(chunks.read_ahead(noted()), start=1):
        assert len(window.rows) == 10
        assert len(made) <= used + 2
    assert made == list(range(ROWS // 10))

    def fails():
        yield 1
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        list(chunks.read_ahead(fails()))


def test_long_documents_make_small_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_CHARACTERS", 500)
    file = write(tmp_path / "a.csv")
    found = list(
        chunks.read_chunks([DataSource("a", "csv", file)], RequestedColumns(("text",)), 10**6)
    )
    sizes = [sum(len(row.texts[0]) for row in window.rows) for window in found]
    assert len(found) > 20
    assert max(sizes) < 500 + max(map(len, texts()))
    assert [window.first for window in found] == list(
        np.cumsum([1, *[len(window.rows) for window in found]])[:-1]
    )
    assert 0.9 < found[-2].share <= 1.0 or found[-2].share is None


def test_a_run_folder_is_a_model(whole, tmp_path, monkeypatch):
    """What scored test in the run answers alike here."""
    monkeypatch.chdir(tmp_path)
    run(str(whole), str(whole.parent / "data" / "test.jsonl"), "--output", "out.jsonl")
    scored = [json.loads(line) for line in (whole / "predictions/test.jsonl").open()]
    found = predicted(tmp_path / "out.jsonl")
    assert [row["label"] for row in found] == [row["predicted"] for row in scored]
