"""The text of a recipe: what is written is read back, whatever the text in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from finetune.config import loader
from finetune.config.recipe_writer import RecipeLine, format_yaml, write_recipe

LINES = [
    RecipeLine("train.class_weights", "balanced", "Uneven labels.", active=False),
    RecipeLine("data.source", "tickets.csv"),
    RecipeLine("data.text", ("subject", "the body"), "Two columns: " + "words " * 30),
    RecipeLine("data.label", "queue", "5 labels\nin 3 rows"),
    RecipeLine("data.labels", ["a", "b"], "Names.", active=False),
]


def test_the_text_as_a_person_reads_it():
    assert write_recipe(LINES, ["tickets.csv: 3 rows.", "", "    finetune train tickets.yaml"]) == (
        "# tickets.csv: 3 rows.\n"
        "#\n"
        "#     finetune train tickets.yaml\n"
        "data:\n"
        "  source: tickets.csv\n"
        f"  # Two columns:{' words' * 14}\n"
        f"  #{' words' * 16}\n"
        '  text: [subject, "the body"]\n'
        "  # 5 labels\N{REPLACEMENT CHARACTER}in 3 rows\n"
        "  label: queue\n"
        "  # Names.\n"
        "  # labels: [a, b]\n"
        "# train:\n"
        "  # Uneven labels.\n"
        "  # class_weights: balanced\n"
    )


def test_a_recipe_is_read_back(tmp_path):
    file = tmp_path / "tickets.yaml"
    file.write_text(write_recipe(LINES), encoding="utf-8")
    recipe = loader.load(file)
    assert recipe.data.text == ("subject", "the body")
    assert recipe.data.label == "queue"
    assert recipe.data.labels is None


@given(st.text(), st.text(), st.lists(st.text(), min_size=1))
def test_any_text_comes_back_from_a_value_and_stays_in_a_comment(value, comment, names):
    lines = [
        RecipeLine("data.source", value, comment),
        RecipeLine("data.labels", names, comment),
        RecipeLine("data.label", value, comment, active=False),
    ]
    tree = YAML(typ="safe", pure=True).load(write_recipe(lines, [comment]))
    assert tree == {"data": {"source": value, "labels": names}}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"), (True, "true"), (10.0, "10.0"), (5, "5"), ("no", '"no"'), ("n", '"n"'),
        ("7", '"7"'), ("a: b", '"a: b"'), ("package:x/y", "package:x/y"), ("/data/x", "/data/x"),
        ("../x.csv", "../x.csv"), ("C:\\x", '"C:\\\\x"'), ("\x85", '"\\x85"'), ("#a", '"#a"'),
    ],
)  # fmt: skip
def test_values_have_quotes_where_they_need_them(value, text):
    assert format_yaml(value) == text
