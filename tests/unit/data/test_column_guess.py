"""What columns are for: by their names, and by what is in them."""

import csv
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config import schema
from finetune.data.column_guess import guess_columns
from finetune.data.column_survey import (
    ColumnSurvey,
    binary_columns,
    find_separator,
    find_train_tables,
    survey_columns,
)
from finetune.runtime.errors import InputError

SENTENCE = "the router drops every second packet since the last update of its firmware"
WORDS = SENTENCE.split()


def document(i, words=9):
    return " ".join(WORDS[(i + k * k) % len(WORDS)] for k in range(words)) + f" {i}"


def columns_of(rows):
    """Surveyed columns of rows as JSON has them."""
    columns = {name: ColumnSurvey(name) for name in rows[0]}
    for row in rows:
        for name, cell in row.items():
            columns[name].add(cell)
    return [*columns.values()]


def guess(make, count=60, **given_columns):
    return guess_columns(columns_of([make(i) for i in range(count)]), **given_columns)


def test_names_tell_which_column_is_which():
    found = guess(
        lambda i: {
            "ticket_id": i,
            "created": f"2024-05-{i % 28 + 1:02d}",
            "subject": document(i, 4),
            "body": document(i, 20),
            "priority": ("low", "high")[i % 2],
            "queue": ("billing", "returns", "network")[i % 3],
            "notes": None,
        }
    )
    assert found.text == ("subject", "body")
    assert found.label == "queue"
    assert found.other_labels == ("priority", "created")
    assert found.ids == ("ticket_id",)
    assert found.empty == ("notes",)
    assert (found.text_pair, found.separator, found.other_texts) == (None, None, ())


def test_content_tells_where_names_do_not():
    found = guess(lambda i: {"a": document(i), "b": "xyz"[i % 3], "c": f"k{i}"})
    assert (found.text, found.label, found.ids) == (("a",), "b", ("c",))


@pytest.mark.parametrize(
    ("text", "label", "attribute"),
    [
        ("Nachricht", "Kategorie", "Priorität"),
        ("Anfragetext", "Hauptkategorie", "Dringlichkeit"),
        ("contenu", "Catégorie", "statut"),
        ("mensaje", "Categoría", "prioridad"),
        ("testo", "categoria", "stato"),
        ("Текст сообщения", "Категория", "Приоритет"),
        ("正文", "类别", "优先级"),
        ("本文", "カテゴリー", "優先度"),
        ("내용", "분류", "우선순위"),
        ("body", "Team", "priority"),
        ("body", "Produkt", "Ticket-Status"),
    ],
)
@pytest.mark.parametrize("label_last", [True, False])
def test_the_label_is_no_attribute_in_any_place_and_language(text, label, attribute, label_last):
    columns = (attribute, label) if label_last else (label, attribute)
    found = guess(
        lambda i: {
            text: document(i),
            **{name: "abcde"[i % (5 if name == label else 3)] for name in columns},
        }
    )
    assert (found.text, found.label, found.other_labels) == ((text,), label, (attribute,))
    alone = guess(lambda i: {text: document(i), attribute: "abc"[i % 3]})
    assert alone.label == attribute


def test_a_heading_and_its_text_in_other_languages():
    found = guess(lambda i: {"Betreff": document(i, 3), "Nachricht": document(i), "Klasse": i % 2})
    assert (found.text, found.label) == (("Betreff", "Nachricht"), "Klasse")


@pytest.mark.parametrize("name", ["text", "Text", "query", "search_query", "tweet_text"])
@pytest.mark.parametrize("repeats", [False, True])
def test_a_text_of_a_single_word(name, repeats):
    found = guess(lambda i: {name: f"word{i // (1 + repeats)}", "label": "ab"[i % 2]})
    assert (found.text, found.label, found.ids) == ((name,), "label", ())


@pytest.mark.parametrize("name", ["text_id", "message_id", "code"])
def test_single_words_that_name_a_row_are_no_text(name):
    with pytest.raises(InputError, match="expected a column with text of several words"):
        guess(lambda i: {name: f"k{i}", "label": "ab"[i % 2]})


@pytest.mark.parametrize(
    ("first", "second"),
    [("sentence1", "sentence2"), ("premise", "hypothesis"), ("text_a", "text_b"),
     ("Question", "Sentence"), ("text", "text_pair"), ("question1", "question2")],
)  # fmt: skip
def test_pairs(first, second):
    found = guess(lambda i: {first: document(i), second: document(i + 7), "label": i % 2})
    assert (found.text, found.text_pair) == ((first,), second)


def test_columns_that_only_end_in_numbers_are_no_pair():
    found = guess(lambda i: {"q1": document(i), "q2": document(i + 7), "label": i % 2})
    assert found.text_pair is None


@pytest.mark.parametrize("mark", [";", "|", ",", "/", ", "])
def test_several_labels_in_a_cell(mark):
    tags = ["fast", "cheap", "kind", "loud"]
    found = guess(
        lambda i: {"text": document(i), "tags": mark.join(tags[k] for k in range(4) if i >> k & 1)}
    )
    assert (found.label, found.separator) == ("tags", mark.strip())


def test_names_of_several_words_are_one_label():
    names = ("Arts, Crafts", "Food/Drink", "Sports", "Home; Garden")
    found = guess(lambda i: {"text": document(i), "category": names[i % 4]})
    assert (found.label, found.separator) == ("category", None)


def test_lists_of_labels():
    found = guess(lambda i: {"text": document(i), "emotions": ["joy", "fear", "rage"][: i % 4]})
    assert (found.label, found.separator) == ("emotions", None)


@pytest.mark.parametrize("written", [repr, json.dumps, lambda names: str(names).replace(",", "")])
@pytest.mark.parametrize("name", ["emotions", "column"])
def test_lists_of_labels_that_are_written_as_text(written, name):
    """As pandas, JSON and NumPy write them to a csv file; their commas separate no labels."""
    found = guess(
        lambda i: {"text": document(i), name: written(["joy", "fear", "so sad", "rage"][i % 3 :])}
    )
    assert (found.label, found.separator, found.lists) == (name, None, True)
    one = guess(lambda i: {"text": document(i), "emotion": written([("joy", "fear")[i % 2]])})
    assert (one.label, one.separator, one.lists) == ("emotion", None, True)


def test_a_column_for_each_label():
    found = guess(
        lambda i: {"comment_text": document(i), "toxic": i % 2, "rude": i % 3 == 0, "spam": "0"}
    )
    assert found.label == ("toxic", "rude", "spam")
    named = guess(
        lambda i: {"text": document(i), "a": i % 2, "b": i % 3 % 2, "c": 0, "label": "xy"[i % 2]}
    )
    assert named.label == "label"


def test_what_the_user_names_is_taken():
    found = guess(
        lambda i: {"text": document(i), "other": document(i + 3), "label": i % 2, "kind": i % 3},
        text=("other",),
        label=("kind",),
    )
    assert (found.text, found.label) == (("other",), "kind")
    assert found.other_texts == ("text",)
    assert found.other_labels == ("label",)
    with pytest.raises(InputError) as caught:
        guess(lambda i: {"text": document(i), "label": i % 2}, text=("txt",), label=("zzz",))
    assert caught.value.problems == (
        "no column 'txt'; did you mean 'text'?",
        "no column 'zzz'; there are: text, label",
    )


def test_no_labels_and_no_documents():
    with pytest.raises(InputError) as caught:
        guess(lambda i: {"text": document(i), "price": i + 0.5})
    assert caught.value.problems == (
        "expected a column of labels, which has a few values that repeat, found none ('text': "
        "text, 60 different in 60 rows, 'price': numbers, 60 different in 60 rows); add one, or "
        "name it with --label; numbers are predicted by a recipe with data.label and "
        "data.task: number",
    )
    with pytest.raises(InputError, match="expected a column with text of several words"):
        guess(lambda i: {"label": i % 2, "n": i})


def test_a_file_is_read_to_its_end(tmp_path):
    file = tmp_path / "sorted.csv"
    with file.open("w", newline="") as out:
        write = csv.writer(out).writerow
        write(["text", "label"])
        for i in range(3000):
            write([document(i), "a" if i < 2000 else "b"])
    columns = survey_columns(find_train_tables(schema.Data(source=str(file))))
    assert [(column.rows, column.distinct) for column in columns] == [(3000, 3000), (3000, 2)]
    assert columns[0].words == 10


def test_kinds_of_columns():
    rows = [
        {"whole": str(i), "decimal": f"{i}.5", "text": "a b", "link": "https://x.de/a", "flag": "0"}
        for i in range(4)
    ]
    columns = {column.name: column for column in columns_of(rows)}
    kinds = {name: column.kind for name, column in columns.items()}
    assert kinds == {
        "whole": "whole numbers", "decimal": "numbers", "text": "text", "link": "text",
        "flag": "whole numbers",
    }  # fmt: skip
    assert columns["text"].is_text
    assert not columns["link"].is_text
    assert [one.name for one in binary_columns(columns.values())] == ["flag"]


def test_a_row_that_cannot_be_read_is_named(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("text,label\na b,x\na b,x,y\n")
    with pytest.raises(InputError) as caught:
        survey_columns(find_train_tables(schema.Data(source=str(file))))
    assert caught.value.problems == (
        f"{file}: row 2: expected 2 cells in each row, as in the header, got 3",
    )


def test_lines_before_the_header_are_shown(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("# exported 2024\ntext,label\na b,x\n")
    with pytest.raises(InputError) as caught:
        survey_columns(find_train_tables(schema.Data(source=str(file))))
    assert caught.value.problems[0] == (
        f"{file}: row 1: expected 1 cell in each row, as in the header, '# exported 2024' (where "
        "that is no name of a column, remove what comes before the names), got 2"
    )


@pytest.mark.parametrize("between", [",\n", ""])
def test_json_that_is_no_json_lines_is_told_as_such(tmp_path, between):
    file = tmp_path / "rows.jsonl"
    file.write_text(between.join(['{"text": "a b", "label": "x"}'] * 3))
    with pytest.raises(InputError, match="line 1: expected a JSON object on each line"):
        survey_columns(find_train_tables(schema.Data(source=str(file))))


def test_whole_numbers_that_became_floats_are_labels_where_their_name_says_so():
    rows = [
        {"text": f"the cup {i}", "label": f"{i % 3}.0", "score": f"{i % 3}.5"} for i in range(9)
    ]
    assert guess_columns(columns_of(rows)).label == "label"
    others = [{"text": row["text"], "label": row["score"]} for row in rows]
    with pytest.raises(InputError, match="expected a column of labels"):
        guess_columns(columns_of(others))


def test_a_file_without_a_header(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("the router drops every second packet since the update,network\na,b\n")
    with pytest.raises(InputError, match="the first line should name the columns"):
        survey_columns(find_train_tables(schema.Data(source=str(file))))


def test_the_files_of_train(tmp_path):
    names = [f"train-{i:05d}-of-00002.jsonl" for i in range(2)]
    for name in (*names, "test.jsonl"):
        (tmp_path / name).write_text(json.dumps({"text": "a"}))
    found = find_train_tables(schema.Data(source=str(tmp_path)))
    assert [one.path.name for one in found] == names
    (tmp_path / "folders" / "a").mkdir(parents=True)
    (tmp_path / "folders" / "a" / "1.txt").write_text("text")
    assert find_train_tables(schema.Data(source=str(tmp_path / "folders"))) == []
    (tmp_path / "x.docx").write_text("text")
    with pytest.raises(InputError, match=r"unknown file ending; expected one of \.csv"):
        find_train_tables(schema.Data(source=str(tmp_path / "x.docx")))


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
CELLS = st.one_of(st.text(max_size=30), st.none(), st.integers(), st.booleans(), st.floats(),
                  st.lists(st.text(max_size=4), max_size=3),
                  st.dictionaries(NAMES, st.none()))  # fmt: skip


@given(st.data())
def test_a_guess_names_columns_that_there_are_each_once_or_says_why_not(data):
    names = data.draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    rows = data.draw(
        st.lists(st.fixed_dictionaries(dict.fromkeys(names, CELLS)), min_size=1, max_size=8)
    )
    try:
        found = guess_columns(columns_of(rows))
    except InputError:
        return
    labels = (found.label,) if isinstance(found.label, str) else found.label
    used = [*found.text, *labels, *([] if found.text_pair is None else [found.text_pair])]
    assert len(set(used)) == len(used)
    assert {*used} <= {*names}


@given(st.lists(st.text("ab;,", max_size=6), min_size=1))
def test_a_separator_gives_fewer_labels_than_there_are_cells(cells):
    [column] = columns_of([{"label": cell} for cell in cells])
    mark = find_separator(column)
    if mark is not None:
        names = {part.strip() for cell in column.counts for part in cell.split(mark)} - {""}
        assert 1 < len(names) < len(column.counts)
