"""Every leak and repeat that the real data sets are known to have is found, and named by its row.

The data sets stand beside the checkout (`../shared/data`), where they are there at all.
"""

import gzip
import json
from collections import Counter

import pytest

from finetune.config.schema import Data
from finetune.data import checks
from finetune.data.prepare import prepare_corpus
from finetune.data.sources import load_rows
from tests.support.processes import ROOT

FOLDER = ROOT.parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no real data sets in {FOLDER}")


def found_in(name):
    data = Data(source=str(FOLDER / name))
    return checks.describe_corpus(prepare_corpus(load_rows(data), data))["findings"]


def rows_of(file):
    content = file.read_bytes()
    lines = (gzip.decompress(content) if file.suffix == ".gz" else content).split(b"\n")
    return [json.loads(line) for line in lines if line]


@pytest.mark.parametrize(("name", "texts"), [("snips", 26), ("emotion", 11)])
def test_test_texts_that_stand_in_train(name, texts):
    train = {row["text"] for row in rows_of(FOLDER / name / "train.jsonl.gz")}
    test = rows_of(FOLDER / name / "test.jsonl")
    leaks = [f"test.jsonl: line {i + 1}" for i, row in enumerate(test) if row["text"] in train]
    assert len(leaks) == texts
    (found,) = (
        f
        for f in found_in(name)
        if (f["kind"], f["split"], f["other"]) == ("leak", "test", "train")
    )
    assert list(found["places"]) == leaks
    if name == "emotion":
        assert "11 with another label there" in found["rule"]


@pytest.mark.parametrize(
    ("name", "repeats", "to_the_letter"), [("sms_spam", 415, 414), ("bbc", 101, 98)]
)
def test_repeated_rows(name, repeats, to_the_letter):
    """Case and white space aside, as the sets' own counts are; some differ in these alone."""
    seen, again = Counter(), []
    for i, row in enumerate(rows_of(FOLDER / name / "all.jsonl.gz")):
        loosely = " ".join(row["text"].lower().split())
        seen[loosely] += 1
        if seen[loosely] > 1:
            again.append(f"all.jsonl.gz: line {i + 1}")
    assert len(again) == repeats
    found = found_in(name)
    (exact,) = (f for f in found if f["kind"] == "repeat")
    assert exact["count"] == len(exact["places"]) == to_the_letter
    near = [place for f in found if f["kind"].startswith("near ") for place in f["places"]]
    named = {row for place in near if place.endswith("(1.00)") for row in place[:-7].split(" ≈ ")}
    assert {*again} <= {*exact["places"]} | named
