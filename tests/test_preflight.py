"""Near-duplicates are all found; leaks are told, dropped or refused; damaged texts are named."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import preflight, recipe
from finetune.corpus import Corpus, Split
from finetune.near_duplicates import near_duplicates
from finetune.rows import Places
from tests.processes import ENVIRONMENT, ROOT
from tests.runs import results, run_here

TEXTS = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=14), max_size=14)


def triples(words):
    padded = words + [""] * (3 - len(words)) if words else []
    return {tuple(padded[i : i + 3]) for i in range(len(padded) - 2)}


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_just_the_pairs_that_are_alike(words, alike):
    found = near_duplicates([" ".join(text) for text in words], alike)
    sets = [triples(text) for text in words]
    firsts = [min(j for j in range(len(sets)) if sets[j] == sets[i]) for i in range(len(sets))]
    wanted = {}
    for j, later in enumerate(sets):
        for i, earlier in enumerate(sets[:j]):
            if not later or not earlier:
                continue
            overlap = len(earlier & later) / len(earlier | later)
            as_twin = overlap == 1 and firsts[j] == i
            if as_twin or (alike <= overlap < 1 and firsts[i] == i and firsts[j] == j):
                wanted[i, j] = overlap
    pairs = zip(found.first.tolist(), found.second.tolist(), found.overlap.tolist(), strict=True)
    assert {(i, j): overlap for i, j, overlap in pairs} == pytest.approx(wanted)


def test_case_white_space_and_punctuation_do_not_count():
    found = near_duplicates(["The cat, it sat.", "the CAT it\n sat!", "!!!", "???", "a", "A."])
    assert [*zip(*(part.tolist() for part in found), strict=True)] == [(0, 1, 1.0), (4, 5, 1.0)]


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
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/inspect_data.py"), "tiny.yaml", *words],
        cwd=folder, env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
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
    assert [f["says"] for f in every["findings"]] == [f["says"] for f in found["findings"]]


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
    found = preflight.examine(corpus, recipe.Data(source="x")).findings
    assert [str(finding) for finding in found if finding.split == "test"] == [
        "test: 2 texts also stand in train (test: row 1, test: row 2): 1 with another label there; "
        "kept; the score counts them",
        "test: 1 text also stands, nearly, in train (test: row 3 ≈ train: row 3 (1.00)): "
        "1 with another label there; kept; the score counts them",
    ]


def test_leaks_are_refused(leaky, capsys):
    run_here("data.source=leaky", "data.on_leak=stop", code=2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    assert said[1] == (
        "error: test: 1 text also stands in train (test.jsonl: line 1): data.on_leak is 'stop'; "
        "mend the data, or set data.on_leak to warn or drop"
    )


def test_nothing_is_left_to_train_on(leaky, capsys):
    for split in ("train", "test"):
        (leaky / "leaky" / f"{split}.jsonl").write_text(
            '{"text": "just this", "label": "a"}\n{"text": "and that", "label": "b"}\n'
        )
    run_here("data.source=leaky", "data.on_leak=drop", code=2)
    assert capsys.readouterr().err == (
        "error: train: no rows are left; all stand in another split too (data.on_leak: drop)\n"
    )
