"""Documents to adapt to: what is read, left out, held out, and how it becomes rows."""

import json
from pathlib import Path

import numpy as np
import pytest

from finetune.adaptation import documents as module
from finetune.adaptation.settings import Settings, in_options
from finetune.modeling import pretrained
from finetune.runtime.errors import InputError
from finetune.training.masking import Masking
from tests.support.tiny import tiny_encoder


def write(name, text):
    Path(name).write_text(text, encoding="utf-8")


def read(settings):
    told = []
    found = module.find_documents(settings, told.append)
    return module.read_documents(settings, found, told.append), told


def settings_of(*documents, **keys):
    keys |= {"cache.keep": False}
    return Settings("encoder", tuple(documents), Path("out"), keys=keys)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"the game number {i} was good"} for i in range(60)]
    rows += [{"text": "  the game number 3 was good "}, {"text": " "}, {"text": None}]
    write("some.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    Path("notes").mkdir()
    write("notes/a.txt", "a match\nof two teams")
    Path("notes/b.txt").write_bytes(b"caf\xe9 and bank")
    return tmp_path


def test_what_is_no_document_and_what_repeats_is_left_out(here):
    documents, told = read(settings_of("some.jsonl", "notes"))
    assert told == [
        "3 rows are left out, which hold no document: some.jsonl: line 62: 'text' is empty; "
        "some.jsonl: line 63: 'text' is null; notes/b.txt: the text is not UTF-8",
        "1 document repeats an earlier one: left out",
    ]
    assert (len(documents.train), len(documents.held_out)) == (58, 3)  # a twentieth of 61
    both = {*documents.train, *documents.held_out}
    assert len(both) == 61
    assert "a match\nof two teams" in both
    again, _ = read(settings_of("some.jsonl", "notes"))
    assert [*again.held_out] == [*documents.held_out]
    other, _ = read(settings_of("some.jsonl", "notes", **{"run.seed": 1}))
    assert [*other.held_out] != [*documents.held_out]


def test_long_documents_are_several_rows_without_gaps(here, tmp_path):
    encoder = str(tiny_encoder(tmp_path / "encoder"))
    settings = Settings(encoder, ("some.jsonl", "long.txt"), Path("out"))
    recipe = Settings(
        encoder, ("x",), Path("out"), keys={"data.max_length": 8, "cache.keep": False}
    ).recipe
    write("long.txt", " ".join(["bank", "price", "stock"] * 20))
    documents, _ = read(settings)
    config = pretrained.load_config(encoder, recipe.model)
    tokenizer = pretrained.load_tokenizer(encoder, recipe.model)
    masking = Masking.of_tokenizer(tokenizer)
    rows = module.tokenize(documents, recipe, config, tokenizer, masking)
    tables = rows.tables
    assert rows.max_length == 8
    whole = [*documents.train, *documents.held_out]
    inner = sum(len(tokenizer.tokenize(text)) for text in whole)
    assert sum(int((table.lengths - 2).sum()) for table in tables.values()) == inner
    assert rows.counts[tokenizer.cls_token_id] == 0
    assert rows.counts.sum() == int((tables["train"].lengths - 2).sum())
    assert np.array_equal(tables["train"].lengths, tables["train"].full)


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        (("-",), "DOCUMENTS: expected files, which a run that is taken up reads again, got "
         "standard input"),
        (("one.txt",), "DOCUMENTS: expected at least 2 different documents, one of which is held "
         "out, found 1 in one.txt"),
    ],
)  # fmt: skip
def test_what_is_refused(here, documents, said):
    write("one.txt", "one document\n")
    with pytest.raises(InputError) as caught:
        read(settings_of(*documents))
    assert str(caught.value) == said


def test_keys_are_told_as_options():
    with pytest.raises(InputError) as caught, in_options():
        raise InputError("train.minutes: 1 leaves no time; set data.max_length=12, or optim.lr")
    assert str(caught.value) == "--minutes: 1 leaves no time; set --max-length 12, or --lr"
    settings = settings_of("a.csv", **{"train.minutes": 2.5, "data.text": ["title", "body"]})
    assert settings.recipe.train.minutes == 2.5
    assert settings.recipe.data.columns() == ("title", "body")
    assert settings.words() == [
        "encoder", "a.csv", "--output", "out", "--minutes", "2.5", "--text", "title", "body",
    ]  # fmt: skip
    assert settings_of("a.csv", **{"train.minutes": 1.0}).words()[-2:] == ["--minutes", "1"]
