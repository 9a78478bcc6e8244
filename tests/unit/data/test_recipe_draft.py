"""What is seen in a source's rows, and which keys and comments follow from it."""

import json

import pytest

from finetune.config import schema
from finetune.config.recipe_writer import RecipeLine
from finetune.data.local_paths import PACKAGED_ENCODER
from finetune.data.recipe_draft import Wishes, draft_recipe
from finetune.data.recipe_lines import ENGLISH, MULTILINGUAL
from finetune.data.row_survey import count_foreign, estimate_tokens, survey_rows
from finetune.runtime.errors import InputError
from tests.support.tiny import WORDS


def write(folder, rows, name="tickets.jsonl"):
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def document(i, words=9):
    return " ".join(WORDS[(i + k * k) % len(WORDS)] for k in range(words)) + f" {i}"


def rows(count, labels="abc", words=9):
    return [{"text": document(i, words), "label": labels[i % len(labels)]} for i in range(count)]


def draft(folder, made, **wishes):
    found = draft_recipe(Wishes(write(folder, made), **wishes))
    return found, {line.name: line for line in found.lines}


def active(lines):
    return {name: line.value for name, line in lines.items() if line.active}


def test_keys_that_differ_from_defaults_and_no_others(tmp_path):
    found, lines = draft(tmp_path, rows(600), model="encoder")
    assert active(lines) == {
        "data.source": str(tmp_path / "tickets.jsonl"),
        "data.text": "text",
        "data.label": "label",
        "model.source": "encoder",
    }
    assert found.rows == 600
    assert found.labels == {"a": 200, "b": 200, "c": 200}
    assert lines["data.label"] == RecipeLine(
        "data.label", "label", "3 labels, with their rows: a (200), b (200), c (200)."
    )
    assert [*lines] == [*active(lines)]


def test_lists_that_are_written_as_text(tmp_path):
    made = [
        {"text": document(i), "emotions": str(["joy", "fear", "rage"][i % 3 :])} for i in range(90)
    ]
    found, lines = draft(tmp_path, made, model="encoder")
    assert active(lines)["data.label_lists"] is True
    assert "data.label_separator" not in lines
    assert found.labels == {"rage": 90, "fear": 60, "joy": 30}


def test_few_rows_get_the_settings_for_few_rows(tmp_path):
    _, lines = draft(tmp_path, rows(24))
    assert active(lines)["model.pooled_norm"] == 10
    assert active(lines)["model.head_init"] == "label_names"
    assert active(lines)["train.epochs"] == 15
    assert active(lines)["train.sampling"] == "stratified"
    assert not lines["run.folds"].active
    _, lines = draft(tmp_path, rows(90, "012"), model="encoder")
    assert not lines["model.pooled_norm"].active
    assert {"model.head_init", "train.epochs", "train.sampling"}.isdisjoint(lines)
    assert lines["data.labels"].value == ["name of 0", "name of 1", "name of 2"]
    assert not lines["data.labels"].active


def test_long_documents_and_uneven_labels(tmp_path):
    made = [
        {"text": document(i, 700), "label": "rare" if i % 25 == 0 else "common"} for i in range(75)
    ]
    _, lines = draft(tmp_path, made)
    assert lines["data.truncation"].comment.startswith("About 100 % of the documents are longer")
    assert (lines["data.max_length"].value, lines["data.max_length"].active) == (128, False)
    assert lines["train.class_weights"].comment.startswith("'common' has 72 rows and 'rare' 3.")


def test_the_encoder_follows_the_script(tmp_path):
    _, lines = draft(tmp_path, rows(80))
    assert lines["model.source"].value in (PACKAGED_ENCODER, ENGLISH)
    made = [{"text": f"рынок цена банк прибыль {i}", "label": "аб"[i % 2]} for i in range(80)]
    _, lines = draft(tmp_path, made)
    assert lines["model.source"].value == MULTILINGUAL
    assert count_foreign("naïve café – “x”") == 0


def test_what_would_stop_training_is_settled_by_a_key(tmp_path):
    write(tmp_path, rows(60), "train.jsonl")
    write(tmp_path, rows(9, "abd"), "test.jsonl")
    found = draft_recipe(Wishes(str(tmp_path)))
    [line] = [line for line in found.lines if line.name == "data.on_unseen_label"]
    assert line.value == "drop"
    assert line.comment.startswith("test: 3 rows have a label that train does not have")
    assert found.rows == 60


def test_what_no_key_settles_stops_here_too(tmp_path):
    made = [{"text": document(i), "label": 1.5 if i % 2 else 2} for i in range(60)]
    with pytest.raises(InputError, match="expected a column of labels"):
        draft_recipe(Wishes(write(tmp_path, made)))
    with pytest.raises(InputError, match=r"expected a label, as text, a whole number"):
        draft_recipe(Wishes(write(tmp_path, made), label=("label",)))
    with pytest.raises(InputError, match="no such file or folder"):
        draft_recipe(Wishes(str(tmp_path / "none.csv")))


def test_folders_have_no_columns_to_name(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(20):
            (tmp_path / label / f"{i}.txt").write_text(f"{label} {document(i)}")
    found = draft_recipe(Wishes(str(tmp_path)))
    assert found.labels == {"a": 20, "b": 20}
    assert [line.name for line in found.lines if line.active] == ["data.source", "model.source"]
    with pytest.raises(InputError, match="name columns, and a folder of documents has none"):
        draft_recipe(Wishes(str(tmp_path), text=("text",)))


def test_rows_as_training_reads_them(tmp_path):
    made = [*rows(60), {"text": " ", "label": "a"}, {"text": "lost", "label": None}]
    seen = survey_rows(schema.Data(source=write(tmp_path, made)))
    assert (seen.rows, seen.multi_label, seen.rows_of_a_label) == (62, False, 20)
    assert [finding.split(" (")[0] for finding in seen.findings] == [
        "train: 1 row has no text", "train: 1 row has no label",
    ]  # fmt: skip
    assert seen.has_names
    assert estimate_tokens("ten words " * 5) == 15


@pytest.mark.parametrize(
    ("name", "active"),
    [("id", True), ("ticketId", True), ("Vorgang Nr", True), ("link", False), ("stamp", False)],
)
def test_a_column_that_names_rows_is_data_id(tmp_path, name, active):
    made = [{name: f"T-{i}", **row} for i, row in enumerate(rows(60))]
    _, lines = draft(tmp_path, made, model="encoder")
    assert (lines["data.id"].value, lines["data.id"].active) == (name, active)
    assert f"Each row has a value of its own in '{name}'" in lines["data.id"].comment


def test_the_column_whose_name_says_so_comes_first(tmp_path):
    made = [{"link": f"x/{i}", "case_id": i, **row} for i, row in enumerate(rows(60))]
    _, lines = draft(tmp_path, made)
    assert lines["data.id"].value == "case_id"


def test_an_id_that_another_split_lacks_is_not_proposed(tmp_path):
    write(tmp_path, [{"id": i, **row} for i, row in enumerate(rows(60))], "train.jsonl")
    write(tmp_path, rows(12), "test.jsonl")
    found = draft_recipe(Wishes(str(tmp_path)))
    assert "data.id" not in [line.name for line in found.lines]


@pytest.mark.parametrize("mark", [";", "|", "\t"])
def test_the_delimiter_that_is_recognised_is_written(tmp_path, mark):
    file = tmp_path / "tickets.csv"
    lines = ["text;label", *(f"{row['text']};{row['label']}" for row in rows(60))]
    file.write_text("\n".join(lines).replace(";", mark) + "\n")
    word = {";": "semicolon", "|": "pipe", "\t": "tab"}[mark]
    [line] = [one for one in draft_recipe(Wishes(str(file))).lines if one.name == "data.delimiter"]
    assert (line.value, line.active) == (word, True)
    file.rename(tmp_path / "train.csv")  # of several files, others may have another
    (tmp_path / "test.csv").write_text("text,label\n" + "a b c,a\n" * 12)
    found = draft_recipe(Wishes(str(tmp_path)))
    [line] = [one for one in found.lines if one.name == "data.delimiter"]
    assert (line.value, line.active) == (word, False)
    file.write_text("\n".join(lines).replace(";", ",") + "\n")
    assert "data.delimiter" not in [one.name for one in draft_recipe(Wishes(str(file))).lines]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_files_in_utf_16_are_read(tmp_path, encoding):
    file = tmp_path / "tickets.csv"
    lines = ["Text;Priorität", *(f"{row['text']};{row['label']}" for row in rows(60))]
    file.write_bytes(("\r\n".join(lines) + "\r\n").encode(encoding))
    found = draft_recipe(Wishes(str(file)))
    lines = {line.name: line for line in found.lines}
    assert lines["data.encoding"] == RecipeLine(
        "data.encoding", encoding, "As its first bytes say."
    )
    assert lines["data.label"].value == "Priorität"
    assert lines["data.delimiter"].value == "semicolon"
    assert found.labels == {"a": 20, "b": 20, "c": 20}


def test_columns_of_votes_are_pointed_to_what_reads_them(tmp_path):
    made = [{"text": document(i), "joy": i % 4, "anger": 3 - i % 4} for i in range(40)]
    _, lines = draft(tmp_path, made)
    line = lines["data.label_probabilities"]
    assert (line.value, line.active) == (["joy", "anger"], False)
    assert "counts of annotators' votes" in line.comment
    for column, least in (("label", 0), ("anger", 1000)):  # a label by its name; no count of votes
        _, lines = draft(tmp_path, [row | {column: least + i % 2} for i, row in enumerate(made)])
        assert "data.label_probabilities" not in lines
