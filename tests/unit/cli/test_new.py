"""`finetune new`: files of many shapes → recipes that load, pass a dry run, and train."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finetune.cli import new
from finetune.cli.main import main
from finetune.config import json_schema, loader
from tests.support.tiny import WORDS


def document(i, words=9):
    return " ".join(WORDS[(i + k * k) % len(WORDS)] for k in range(words)) + f" {i}"


def write_cells(file, rows, delimiter):
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_lines(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_folders(folder, rows):
    for i, row in enumerate(rows):
        (folder / row["label"]).mkdir(parents=True, exist_ok=True)
        (folder / row["label"] / f"{i}.txt").write_text(row["text"])


def write_splits(folder, rows):
    folder.mkdir()
    write_lines(folder / "train.jsonl", rows[10:])
    write_lines(folder / "test.jsonl", rows[:10])


def tickets(i):
    return {"id": i, "subject": document(i, 3), "body": document(i), "queue": ("net", "pay")[i % 2]}


SHAPES = {
    "tickets.csv": (lambda file, rows: write_cells(file, rows, ","), tickets),
    "tickets.tsv": (lambda file, rows: write_cells(file, rows, "\t"), tickets),
    "my data.jsonl": (write_lines, tickets),
    "tickets.parquet": (lambda file, rows: pq.write_table(pa.Table.from_pylist(rows), file),
                        tickets),
    "by_label": (write_folders, lambda i: {"text": document(i), "label": "ab"[i % 2]}),
    "splits": (write_splits, lambda i: {"text": document(i), "label": "ab"[i % 2]}),
    "tags.csv": (lambda file, rows: write_cells(file, rows, ","),
                 lambda i: {"text": document(i), "tags": ("x;y", "x", "y", "y;z", "x;y;z")[i % 5]}),
    "pairs.jsonl": (write_lines, lambda i: {"premise": document(i), "hypothesis": document(i + 5),
                                            "label": i % 2}),
    "flags.csv": (lambda file, rows: write_cells(file, rows, ","),
                  lambda i: {"text": document(i), "a": i % 2, "b": i % 3 % 2, "c": i % 5 % 2}),
    "stars.csv": (lambda file, rows: write_cells(file, rows, ","),
                  lambda i: {"review": document(i), "stars": i % 5 + 1}),
}  # fmt: skip
COLUMNS = {
    "my data.jsonl": {"text": ("subject", "body"), "label": "queue"},
    "tags.csv": {"label": "tags", "label_separator": ";"},
    "pairs.jsonl": {"text": "premise", "text_pair": "hypothesis"},
    "flags.csv": {"label": ("a", "b", "c")},
    "stars.csv": {"text": "review", "label": "stars"},
    "by_label": {"text": "text", "label": "label"},
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_new_recipe_trains(here, capsys, name):
    write, make = SHAPES[name]
    write(here / name, [make(i) for i in range(120)])
    recipe = here / f"{name.split('.')[0]}.yaml"
    assert main(["new", name, "--model", "encoder"]) == 0
    captured = capsys.readouterr()
    assert f"Written to {recipe.name}" in captured.out
    assert captured.err == ""
    data = loader.load(recipe).data
    for key, value in COLUMNS.get(name, {}).items():
        assert getattr(data, key) == value
    words = ["train.max_steps=2", "data.max_length=32", "run.dir=run", "data.max_train_rows=64"]
    assert main(["train", str(recipe), *words, "--dry-run"]) == 0
    assert main(["train", str(recipe), *words, "--quiet"]) == 0
    assert "Report: " in capsys.readouterr().out


def test_an_existing_recipe_is_kept_unless_forced(here, capsys):
    write_lines(here / "tickets.jsonl", [tickets(i) for i in range(60)])
    assert main(["new", "tickets.jsonl", "--quiet"]) == 0
    assert capsys.readouterr().out == "Written to tickets.yaml\n"
    before = (here / "tickets.yaml").read_text()
    assert before.startswith(
        "# yaml-language-server: $schema=recipe.schema.json\n# tickets.jsonl: "
    )
    schema = json.loads((here / "recipe.schema.json").read_text())
    assert schema == json_schema.recipe_schema()
    (here / "recipe.schema.json").write_text("{}")
    (here / "tickets.yaml").write_text("mine")
    assert main(["new", "tickets.jsonl"]) == 2
    assert (here / "tickets.yaml").read_text() == "mine"
    assert capsys.readouterr().err == (
        "error: tickets.yaml: exists already; choose another name with --output, or replace it "
        "with --overwrite\n"
    )
    assert main(["new", "tickets.jsonl", "--force", "--quiet"]) == 0
    assert (here / "tickets.yaml").read_text() == before
    assert (here / "recipe.schema.json").read_text() == "{}"
    assert main(["new", "tickets.jsonl", "--output", "other/my.yml"]) == 0
    assert loader.load(here / "other" / "my.yml").data.label == "queue"
    assert main(["new", "tickets.jsonl", "--output", "my.txt"]) == 2


def test_a_folder_with_its_recipe_and_schema_beside_the_file(here, capsys, monkeypatch):
    """What this command writes is no split, so that it can be given the folder again."""
    box = here / "box"
    box.mkdir()
    monkeypatch.chdir(box)
    write_lines(box / "tickets.jsonl", [tickets(i) for i in range(60)])
    assert main(["new", ".", "--quiet", "--model", "../encoder"]) == 0
    assert main(["new", ".", "--force"]) == 0
    data = loader.load("recipe.yaml").data
    assert (data.source, data.label) == (".", "queue")
    assert main(["inspect", "recipe.yaml"]) == 0
    assert "not read" not in capsys.readouterr().out
    write_lines(box / "other.jsonl", [tickets(i) for i in range(60)])
    assert main(["new", ".", "--force"]) == 2
    assert capsys.readouterr().err == (
        "error: DATA: the source has the splits other, tickets, and none is called train; give the "
        "file that has the labels, or call it train\n"
    )


def test_a_file_without_labels_says_what_is_in_it(here, capsys):
    write_lines(here / "texts.jsonl", [{"text": document(i)} for i in range(60)])
    assert main(["new", "texts.jsonl"]) == 2
    captured = capsys.readouterr()
    assert captured.err == (
        "error: texts.jsonl: expected a column of labels, which has a few values that repeat, "
        "found none ('text': text, 60 different in 60 rows); add one, or name it with --label\n"
    )
    assert not (here / "texts.yaml").exists()
    rows = [{"text": document(i), "price": i + 0.5, "votes": {"a": i}} for i in range(60)]
    write_lines(here / "prices.jsonl", rows)
    assert main(["new", "prices.jsonl"]) == 2
    assert capsys.readouterr().err.endswith(
        "; add one, or name it with --label; numbers are predicted by a recipe with data.label and "
        "data.task: number; votes or shares of labels are read by data.label_probabilities\n"
    )


def test_other_encodings_are_told(here, capsys):
    text = "text,label\n" + "".join(f"{document(i)} é,{'ab'[i % 2]}\n" for i in range(60))
    (here / "latin.csv").write_bytes(text.encode("latin-1"))
    assert main(["new", "latin.csv"]) == 0
    told = capsys.readouterr().out
    assert "data.encoding  cp1252" in told
    assert "Check the encoding. Not UTF-8: perhaps cp1252" in told
    assert loader.load("latin.yaml").data.encoding == "cp1252"


@pytest.mark.parametrize(
    ("source", "stem"),
    [("data/tickets.csv.gz", "tickets"), ("owner/tickets", "tickets"), ("C:\\x\\a b.CSV", "a b"),
     ("folder/", "folder"), (".", "recipe"), ("v1.2", "v1.2")],
)  # fmt: skip
def test_the_name_of_a_recipe(source, stem):
    assert new._stem(source) == stem


def test_a_file_that_is_not_utf_8(here, capsys):
    """Its names and labels are read in the encoding that is recognised, or given."""
    rows = [
        {
            "Beschreibung": f"Die Rechnung für {document(i)} äöü",
            "Priorität": ("hoch", "tief")[i % 2],
        }
        for i in range(60)
    ]
    write_cells(here / "utf.csv", rows, ",")
    content = (here / "utf.csv").read_bytes().decode("utf-8").encode("cp1252")
    (here / "old.csv").write_bytes(content)
    assert main(["new", "old.csv", "--model", "encoder"]) == 0
    assert "\udce4" not in capsys.readouterr().out
    data = loader.load("old.yaml").data
    assert (data.encoding, data.label, data.text) == ("cp1252", "Priorität", "Beschreibung")
    assert "# Not UTF-8: perhaps cp1252, as which the first reads '" in (
        (here / "old.yaml").read_text("utf-8")
    )
    words = ["--force", "--encoding"]
    assert main(["new", "old.csv", *words, "latin-1"]) == 0
    assert loader.load("old.yaml").data.encoding == "latin-1"
    assert main(["new", "old.csv", *words, "cp1225"]) == 2
    (here / "both.csv").write_bytes(content + "über alles,hoch\n".encode())
    capsys.readouterr()
    assert main(["new", "both.csv"]) == 2
    told = capsys.readouterr().err
    assert "names of columns in UTF-8, got 'Priorit\ufffdt'" in told
    assert "(data.encoding) with --encoding" in told
