"""One bad row costs one row: a line of gigabytes, a cell that no Python can hold, logits of NaN."""

import datetime
import gzip
import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.data.columns import ColumnSpec
from finetune.data.formats import bounded, json_scanner
from finetune.data.formats.file_row import RowProblem
from finetune.data.formats.registry import open_rows
from finetune.data.formats.source import DataSource
from finetune.data.read_rows import read_documents, read_file
from finetune.data.text_store import Store
from finetune.inference.classifier import Classifier
from finetune.inference.evaluation_job import _check_finite
from finetune.inference.loaded_classifier import NOT_FINITE
from finetune.inference.records import Record
from finetune.runtime.errors import InputError
from tests.end_to_end.test_predict import classifier, here, predicted, run  # noqa: F401
from tests.support import forks

SMALL = 200  # characters
LONG = "x" * 1000


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(bounded, "LONGEST_LINE", SMALL)


def cells(tmp_path, kind, content, name="rows"):
    file = tmp_path / f"{name}.{kind}"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with open_rows(DataSource(str(file), kind, file), ["text", "n"]) as reader:
        return [row.cells for row in reader.rows()]


CONTENT = {
    "csv": f"text,n\none,1\n{LONG},2\nthree,3\n",
    "tsv": f'text\tn\none\t1\n{LONG}"\t2\nthree\t3\n',
    "jsonl": f'{{"text": "one"}}\n{{"text": "{LONG}"}}\n{{"text": "three"}}\n',
    "json": f'[{{"text": "one"}}, {{"text": "\\"]}}\\\\{LONG}"}}, {{"text": "three"}}]',
    "txt": f"one\n{LONG}\nthree\n",
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", CONTENT)
def test_a_long_row_is_passed_by(tmp_path, small, kind, packed):
    content = CONTENT[kind].encode()
    first, problem, third = cells(tmp_path, kind, gzip.compress(content) if packed else content)
    assert "one" in (first if kind == "txt" else first["text"])
    assert "three" in (third if kind == "txt" else third["text"])
    assert isinstance(problem, RowProblem)
    assert (problem.expected.startswith("at most 200 bytes in a"), problem.got) == (True, "more")


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_long_line_within_quotes_takes_no_other_row_along(tmp_path, small, kind):
    mark = "," if kind == "csv" else "\t"
    content = f'text{mark}n\none{mark}1\n"two\n{LONG}"{mark}2\nthree{mark}3\n'
    found = cells(tmp_path, kind, content)
    good = [row["text"] for row in found if isinstance(row, dict)]
    assert [text for text in good if text in ("one", "three")] == ["one", "three"]
    assert any(isinstance(row, RowProblem) for row in found)
    assert not any(LONG[:50] in text for text in good)


def test_long_values_beside_an_array_are_passed_by(tmp_path, small):
    content = (
        f'{{"about": "{LONG}", "more": [{LONG.replace("x", "1,")}1], "rows": [{{"text": "a"}}]}}'
    )
    assert cells(tmp_path, "json", content) == [{"text": "a"}]
    deep = "[" * 100_000 + "]" * 100_000
    first, second = cells(tmp_path, "json", f'[{{"text": {deep}}}, {{"text": "a"}}]', "deep")
    assert isinstance(first, RowProblem)
    assert second == {"text": "a"}
    for broken in (f'[{{"text": "{LONG}', f'[{{"text": "{LONG}\\', f'[{{"{LONG}": 1'):
        with pytest.raises(InputError, match="line 1: not valid JSON"):
            cells(tmp_path, "json", broken, "broken")


def test_what_is_skipped_is_what_would_be_read():
    """Values in any order of brackets, quotes and backslashes end where the decoder ends them."""
    random = np.random.default_rng(0)
    for _ in range(200):
        value = {
            "".join(random.choice([*'"\\[]{},: a'], size=5)): [
                "".join(random.choice([*'"\\[]{},: \n'], size=int(random.integers(9))))
            ]
            * int(random.integers(3))
        }
        text = json.dumps([value, "end"])
        scanner = json_scanner.Scanner("a", io.BytesIO(text.encode()))
        scanner.next_character()
        scanner.skip_character()
        scanner._skip_value()
        assert scanner.next_character() == ","


def test_a_long_document_is_one_row(tmp_path, small):
    (tmp_path / "a.txt").write_text(LONG)
    [problem] = cells(tmp_path, "document", LONG)
    assert problem == bounded.too_long("document")


def test_long_and_unreadable_cells_of_parquet(tmp_path, small):
    far = pa.array([0, 2**62, 0], pa.int64()).cast(pa.timestamp("us"))
    table = pa.table({"text": ["one", LONG, "three"], "n": far})
    pq.write_table(table, tmp_path / "a.parquet")
    source = DataSource("a", "parquet", tmp_path / "a.parquet")
    with open_rows(source, ["n"]) as reader:
        first, problem, third = [row.cells for row in reader.rows()]
    assert first == third == {"n": datetime.datetime(1970, 1, 1)}
    assert problem.expected == "a value that can be read in 'n'"
    with open_rows(source, ["text"]) as reader:
        first, problem, third = [row.cells for row in reader.rows()]
    assert (first, problem, third) == (
        {"text": "one"}, bounded.too_long("cell"), {"text": "three"},
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json"])
def test_in_training_it_is_a_message(tmp_path, small, kind):
    file = tmp_path / f"a.{kind}"
    file.write_text(CONTENT[kind])
    with pytest.raises(InputError, match=r"a\.\w+: expected at most 200 bytes in a \w+, got more "):
        read_file(file, ColumnSpec(("text",), "n"))


def test_and_so_in_text_files(tmp_path, small):
    (tmp_path / "a.txt").write_text(CONTENT["txt"])
    with pytest.raises(InputError, match=r"a\.txt: line 2: expected at most 200 bytes in a line"):
        read_file(tmp_path / "a.txt", ColumnSpec(("text",), ""))
    with pytest.raises(InputError, match=r"a\.txt: expected at most 200 bytes in a document"):
        read_documents(tmp_path, [(tmp_path / "a.txt", "a")], True, Store())


def test_a_job_goes_on(here, small):  # noqa: F811
    (here / "a.jsonl").write_text(CONTENT["jsonl"])
    run("model", "a.jsonl", "--output", "out.jsonl")
    first, second, third = predicted(here / "out.jsonl")
    assert first["label"]
    assert third["label"]
    assert second["error"] == "a.jsonl: line 2: expected at most 200 bytes in a line, got more"


# --- a real line of two gigabytes -----------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_two_gigabytes_in_one_line(tmp_path):
    done = forks.run("tests.support.big_line", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for kind, (rows, problems, megabytes) in json.loads(done.stdout).items():
        assert (rows, problems) == (2, 1), kind
        assert megabytes < 600, kind


# --- logits that are not finite -------------------------------------------------------------------


def test_logits_that_are_not_finite_cost_their_rows(classifier, monkeypatch):  # noqa: F811
    loaded = Classifier(str(classifier), threads=1)
    texts = ["a match", "the market", "a chip"]
    before = loaded(texts, probabilities=True)
    compute = loaded.engine.run
    for bad in (np.nan, np.inf):

        def broken(table, rows, threads, bad=bad):
            logits = compute(table, rows, threads).clone()
            logits[[i for i, row in enumerate(rows) if row == 1], 0] = bad
            return logits

        monkeypatch.setattr(loaded.engine, "run", broken)
        first, second, third = loaded(texts, probabilities=True)
        assert (first, third) == (before[0], before[2])
        assert second == {"label": None, "score": None, "error": NOT_FINITE}
        rows = [Record((text,), ()) for text in texts]
        rows.insert(1, Record((), (), "a line that is broken"))
        found = list(loaded.predict(rows, loaded.encode(rows)))
        assert [one.get("error") for one in found] == [
            None,
            "a line that is broken",
            NOT_FINITE,
            None,
        ]


def test_an_evaluation_names_them():
    logits = np.zeros((3, 2), dtype=np.float32)
    _check_finite(logits, ["a", "b", "c"])
    logits[1, 0] = np.nan
    with pytest.raises(InputError, match=r"not finite for 1 of 3 documents \(b\); try --precision"):
        _check_finite(logits, ["a", "b", "c"])
