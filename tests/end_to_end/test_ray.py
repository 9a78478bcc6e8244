"""scripts/predict_ray.py on a Ray of this machine: the same answers, in order."""

import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.inference.classifier import Classifier
from tests.end_to_end.test_predict import LABELS, classifier, here, texts, write  # noqa: F401
from tests.support.processes import ENVIRONMENT, ROOT

pytest.importorskip("ray", reason="the extra ray is not installed")

# Else its processes yield to every other of the machine, and here those are other tests.
EAGER = ENVIRONMENT | {"RAY_worker_niceness": "0"}


@pytest.mark.parametrize(("kind", "actors"), [("parquet", 1), ("jsonl", 2)])
def test_a_folder(here, classifier, kind, actors):  # noqa: F811
    (here / "in").mkdir()
    rows = [{"text": text, "n": i, "label": "old"} for i, text in enumerate(texts())]
    rows[7]["text"] = None
    for part in range(3):
        write(here / "in" / f"{part}.{kind}", rows[part * 100 : part * 100 + 100])
    words = [
        "model", "in", "--output", "out", "--batch", "64", "--precision", "fp32",
        "--probabilities", "--actors", str(actors),
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "predict_ray.py"), *words],
        cwd=here, env=EAGER, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 rows written to out" in done.stdout
    found = read_back(here / "out", kind)
    assert [row["n"] for row in found] == list(range(300))
    assert set(found[0]) == {
        "text", "n", "label", "score", "error", *(f"probabilities.{label}" for label in LABELS),
    }  # fmt: skip
    alone = Classifier(classifier, precision="fp32", threads=1)(
        [row["text"] for row in rows if row["text"] is not None]
    )
    assert [row["label"] for row in found if row["n"] != 7] == [row["label"] for row in alone]
    assert (found[7]["label"], found[7]["error"]) == (None, "the batch: row 8: 'text' is null")
    assert abs(sum(v for k, v in found[0].items() if k.startswith("probabilities")) - 1) < 1e-5


def test_csv_files_with_semicolons_in_another_encoding(here, classifier):  # noqa: F811
    (here / "in").mkdir()
    found = [f"{text} café" for text in texts()[:20]]
    for part in range(2):
        lines = [f"{text};{i}" for i, text in enumerate(found)][part * 10 : part * 10 + 10]
        content = "\r\n".join(["text;n", *lines, "bad"]).encode("cp1252")
        (here / "in" / f"{part}.csv").write_bytes(content)
    words = ["model", "in", "--output", "out", "--encoding", "cp1252", "--precision", "fp32"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "predict_ray.py"), *words],
        cwd=here, env=EAGER, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_back(here / "out", "jsonl")
    assert [row["n"] for row in rows] == [
        *map(str, range(10)),
        None,
        *map(str, range(10, 20)),
        None,
    ]
    bad = [row.pop("error") for row in rows if row["n"] is None]
    assert [one.rpartition("/")[2] for one in bad] == [
        f"{part}.csv: row 11: expected 2 cells in each row, as in the header, got 1"
        for part in range(2)
    ]
    alone = Classifier(classifier, precision="fp32", threads=1)(found)
    assert [row["label"] for row in rows if row["n"]] == [row["label"] for row in alone]


def test_files_hold_rows_in_order(here):  # noqa: F811
    from ray.data._internal.execution.interfaces import TaskContext

    from finetune.inference.ray_actor import OrderedSink

    # Ray's own sink fails one of about twenty of these.
    for attempt in range(100):
        sink = OrderedSink(str(here / str(attempt)))
        blocks = [pa.table({"n": range(64 * i, 64 * i + 64)}) for i in range(5)]
        sink.on_write_start(blocks[0].schema)
        sink.write(iter(blocks), TaskContext(0, "write", kwargs={"write_uuid": "x"}))
        found = read_back(here / str(attempt), "parquet")
        assert [row["n"] for row in found] == list(range(320))


def read_back(folder, kind):
    """The rows of all files that Ray wrote, in the order of their names."""
    if kind == "parquet":
        files = sorted(folder.glob("*.parquet"))
        return [row for file in files for row in pq.read_table(file).to_pylist()]
    files = sorted(folder.glob("*.json"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_messages(here):  # noqa: F811
    from finetune.cli import predict_ray as script

    (here / "in").mkdir()
    (here / "in" / "a.csv").write_text("text\na\n")
    assert script.main(["./none", "in", "--output", "in"]) == 2
    assert script.find_format(here / "in") == "csv"
    (here / "in" / "a.jsonl").write_text(json.dumps({"text": "a"}))
    with pytest.raises(script.InputError, match="found csv and jsonl"):
        script.find_format(here / "in")
    (here / "in" / "a.csv").unlink()
    assert script.find_format(here / "in") == "jsonl"
    (here / "in" / "a.jsonl").unlink()
    with pytest.raises(script.InputError, match="found none"):
        script.find_format(here / "in")
