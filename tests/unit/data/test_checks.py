"""Leaks are told, dropped or refused; damaged texts are named."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from finetune.config import schema
from finetune.data import checks, near_duplicates
from finetune.data.corpus import Corpus, Split
from finetune.data.places import Places
from finetune.data.text_store import Texts
from finetune.runtime.atomic_files import write_json
from tests.support import forks
from tests.support.runs import results, run_here

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


@pytest.fixture
def leaky(here):
    """Rows 0 to 2 of test stand in train: to the letter, but for case, and but for a word."""
    own = [f"{word} is a text of number {word} and {i}" for i, word in enumerate("abcdefghijkl")]
    train = [
        LONG,
        LONG.upper() + " fifteen",
        *own,
        f"{LONG} extra",
        "caf\u00c3\u00a9",
        "x\x00y",
        "z",
    ]
    test = [LONG, f"{LONG} Fifteen!", LONG.replace("one ", "zero "), "an own text", "another one"]
    (here / "leaky").mkdir()
    for split, texts in {"train": train, "test": test, "validation": own[:1] + test[3:]}.items():
        rows = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(texts)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (here / "leaky" / f"{split}.jsonl").write_text(lines)
    return here


def inspect(folder, *words):
    done = forks.run("scripts.inspect_data", "tiny.yaml", *words, cwd=folder)
    return done.returncode, done.stdout, done.stderr


def test_inspect_names_what_is_wrong(leaky):
    code, out, err = inspect(leaky, "data.source=leaky", "--json", "found.json")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    found = json.loads((leaky / "found.json").read_text())
    told = {(f["kind"], f["split"], f["other"]): f["places"] for f in found["findings"]}
    assert told == {
        ("mojibake", "train", ""): ["train.jsonl: line 16"],
        ("control", "train", ""): ["train.jsonl: line 17"],
        ("one character", "train", ""): ["train.jsonl: line 18"],
        ("few rows", "train", ""): ["a: 9", "b: 9"],
        ("near conflict", "train", ""): ["train.jsonl: line 2 ≈ train.jsonl: line 1 (0.92)"],
        ("near repeat", "train", ""): ["train.jsonl: line 15 ≈ train.jsonl: line 1 (0.92)"],
        ("leak", "validation", "train"): ["validation.jsonl: line 1"],
        ("leak", "test", "train"): ["test.jsonl: line 1"],
        ("near leak", "test", "train"): [
            "test.jsonl: line 2 ≈ train.jsonl: line 2 (1.00)",
            "test.jsonl: line 3 ≈ train.jsonl: line 1 (0.85)",
        ],
        ("leak", "test", "validation"): ["test.jsonl: line 4", "test.jsonl: line 5"],
    }
    assert found["splits"]["test"]["words"] == {
        "shortest": 2, "median": 14, "p95": 14, "longest": 15,
    }  # fmt: skip
    assert list(leaky.glob("runs")) == []
    assert inspect(leaky, "data.source=leaky", "--json", ".") == (
        2, "", "error: --json: expected a file, found the folder .\n"
    )  # fmt: skip
    assert inspect(leaky, "data.source=leaky", "--json", "tiny.yaml/found.json")[::2] == (
        2,
        "error: tiny.yaml/found.json: cannot write: a part of that path is a file, not a folder; "
        "set --json to another folder\n",
    )


def test_leaks_are_dropped_from_train_and_never_from_test(leaky):
    run_here("data.source=leaky", "data.on_leak=drop", "run.dir=run", "train.epochs=1",
             "score.every=epoch")  # fmt: skip
    found = results(leaky / "run")["data"]
    assert {name: split["rows"] for name, split in found["splits"].items()} == {
        "train": 14, "validation": 1, "test": 5,
    }  # fmt: skip
    rules = [f["rule"] for f in found["findings"] if f["kind"] == "leak"]
    assert rules == [
        "1 row of train dropped (data.on_leak: drop)",
        "3 rows of train dropped (data.on_leak: drop)",
        "2 rows of validation dropped (data.on_leak: drop)",
    ]
    every = json.loads((leaky / "run/preflight.json").read_text())
    assert [f["message"] for f in every["findings"]] == [f["message"] for f in found["findings"]]


def test_a_leak_says_how_many_have_another_label_there():
    def split(name, texts, labels):
        places = Places(name, range(1, len(texts) + 1), "row")
        return Split(name, texts, np.array(labels), places, "x")

    corpus = Corpus(
        ("a", "b"),
        split("train", ["one text", "two texts", "three texts"], [0, 1, 1]),
        split("validation", ["an own one"], [0]),
        split("test", ["one text", "two texts", "Three texts"], [1, 1, 0]),
        (),
    )
    found = checks.check_corpus(corpus, schema.Data(source="x")).findings
    assert [str(finding) for finding in found if finding.split == "test"] == [
        "test: 2 texts also appear in train (test: row 1, test: row 2): 1 with another label "
        "there; "
        "kept; the score counts them",
        "test: 1 text has a near-duplicate in train (test: row 3 ≈ train: row 3 (1.00)): "
        "1 with another label there; kept; the score counts them",
    ]


def test_inspect_shows_all_of_what_would_stop_a_run(leaky):
    _, told, _ = inspect(leaky, "data.source=leaky")
    code, out, err = inspect(leaky, "data.source=leaky", "data.on_leak=stop")
    kept, stopped = "kept; the score counts them", "a run stops here (data.on_leak: stop)"
    assert code == 2
    assert " ".join(out.split()) == " ".join(told.split()).replace(kept, stopped)
    assert len(err.splitlines()) == 4
    assert all(line.startswith("error: a run stops here: ") for line in err.splitlines())


def test_leaks_are_refused(leaky, capsys):
    run_here("data.source=leaky", "data.on_leak=stop", code=2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    assert said[1] == (
        "error: test: 1 text also appears in train (test.jsonl: line 1): data.on_leak is 'stop'; "
        "correct the data, or set data.on_leak to warn or drop"
    )


def test_nothing_is_left_to_train_on(leaky, capsys):
    for split in ("train", "test"):
        (leaky / "leaky" / f"{split}.jsonl").write_text(
            '{"text": "just this", "label": "a"}\n{"text": "and that", "label": "b"}\n'
        )
    run_here("data.source=leaky", "data.on_leak=drop", code=2)
    assert capsys.readouterr().err == (
        "error: train: no rows are left; all are also in another split (data.on_leak: drop)\n"
    )


def test_what_is_found_in_every_row_is_no_string_for_each(here):
    """Row numbers are kept; where they stand is said when asked, and written in full."""
    many = 4000
    texts = [f"{LONG} \x00 {i}" for i in range(many)]
    labels = np.arange(many) % 2

    def split(name, rows):
        texts_of = Texts.of([texts[i] for i in rows])
        return Split(name, texts_of, labels[rows], Places(name, range(1, many + 1), "row"), name)

    train, others = split("train", np.arange(many)), split("test", np.arange(2))
    corpus = Corpus(("a", "b"), train, replace(others, name="validation"), others, ())
    near_duplicates.find_near_duplicates(["what is made once"])
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    corpus = checks.check_corpus(corpus, schema.Data(source="x"))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    found = {f.kind: f for f in corpus.findings if f.split == "train"}
    assert found["control"].count == many
    assert found["near repeat"].count + found["near conflict"].count > 0.99 * many
    assert after - before < 60 * many  # a string alone takes as much
    write_json(here / "found.json", checks.describe_corpus(corpus))
    written = json.loads((here / "found.json").read_text())["findings"]
    places = {f["kind"]: f["places"] for f in written if f["split"] == "train"}
    assert places["control"] == [f"train: row {i + 1}" for i in range(many)]
    assert len(places["near repeat"]) == found["near repeat"].count


def test_what_is_not_compared_is_said(monkeypatch):
    monkeypatch.setattr(near_duplicates, "MOST_PAIRS", 20)
    texts = [f"{LONG} {i}" for i in range(30)]
    places = Places("train", range(1, 31), "row")
    train = Split("train", texts, np.arange(30) % 2, places, "x")
    other = Split("test", ["an own one"], np.array([0]), places.take([0]), "x")
    corpus = Corpus(("a", "b"), train, replace(other, name="validation"), other, ())
    found = checks.check_corpus(corpus, schema.Data(source="x")).findings
    (said,) = (str(finding) for finding in found if finding.kind == "crowded")
    assert said == (
        "source: 30 documents share their rarest words with many others: each compared with the 1 "
        "closest in size only; some pairs are missed"
    )
    monkeypatch.setattr(checks, "MOST_CHARACTERS", 1000)
    found = checks.check_corpus(corpus, schema.Data(source="x")).findings
    (said,) = (str(finding) for finding in found if finding.split == "source")
    assert said == (
        "source: 32 documents not searched for near-duplicates: in more than 1,000 characters"
    )
