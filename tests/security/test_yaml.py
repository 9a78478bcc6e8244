"""A recipe as an attack on the parser: aliases, depth, size, odd shapes."""

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml.scanner import Scanner

from finetune.config import loader, yaml_files
from finetune.config.yaml_files import MAX_BYTES, MAX_DEPTH, MAX_MARKS, read_yaml
from finetune.runtime.errors import InputError

SECONDS = 3  # of a core; without limits, minutes


def laughs(width: int, depth: int, form: str) -> str:
    """Each anchor stands for `width` of the one before, as a list or a mapping."""
    lines = ["data: {source: a.csv}", "x0: &x0 [lol]"]
    for level in range(1, depth):
        alias = f"*x{level - 1}"
        if form == "list":
            inner = "[" + ", ".join([alias] * width) + "]"
        elif form == "mapping":
            inner = "{" + ", ".join(f"k{n}: {alias}" for n in range(width)) + "}"
        else:
            inner = "{<<: [" + ", ".join([f"&m{level} {{a: {alias}}}"] * width) + "]}"
        lines.append(f"x{level}: &x{level} {inner}")
    return "\n".join(lines)


@pytest.mark.parametrize("form", ["list", "mapping", "merge"])
@pytest.mark.parametrize(("width", "depth"), [(10, 12), (2, 40), (100, 5)])
def test_alias_bombs_are_refused_at_once(tmp_path, form, width, depth):
    file = tmp_path / "bomb.yaml"
    file.write_text(laughs(width, depth, form))
    begin = time.process_time()
    with pytest.raises(InputError) as caught:
        loader.load(file)
    assert time.process_time() - begin < SECONDS
    [problem] = caught.value.problems
    assert "not valid YAML" not in problem
    assert "more than" in problem


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 15_000,
        "data: {source: " + "[" * 100_000 + "]" * 100_000 + "}",
        "- " * 15_000 + "a",
        "? " * 15_000 + "a",
        "\n".join(" " * n + "a:" for n in range(500)),
    ],
    ids=["brackets", "braces", "closed", "dashes", "keys", "indented"],
)
def test_deep_nesting_is_refused_at_once(tmp_path, text):
    file = tmp_path / "deep.yaml"
    file.write_text(text)
    begin = time.process_time()
    with pytest.raises(InputError, match=f"nested more than {MAX_DEPTH} deep"):
        loader.load(file)
    assert time.process_time() - begin < SECONDS


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "&r {data: *r}"])
def test_what_contains_itself_is_refused(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InputError, match="stands for itself"):
        loader.load(tmp_path / "r.yaml")


def test_aliases_that_stand_for_little_are_read(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("data: &d {source: a.csv, text: &t [title, body]}\nrun: {name: ok}\n")
    assert loader.load(file).data.text == ("title", "body")
    file.write_text("data: {source: &s a.csv, train: *s}\n")
    assert loader.load(file).data.train == "a.csv"


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 2**26])
def test_a_huge_file_is_not_read(tmp_path, size):
    file = tmp_path / "huge.yaml"
    with file.open("wb") as out:
        out.truncate(size)
    begin = time.process_time()
    with pytest.raises(InputError, match="expected a recipe of at most 256 KiB"):
        loader.load(file)
    assert time.process_time() - begin < SECONDS


def test_an_endless_file_is_not_read():
    with pytest.raises(InputError, match="expected a recipe of at most 256 KiB"):
        loader.load("/dev/zero")


@pytest.mark.parametrize(
    "text",
    [
        "data: {source: [" + "1," * (MAX_MARKS + 1) + "]}",
        "data:\n" + "- 1\n" * MAX_MARKS,
        "{" + "a: 1, " * MAX_MARKS + "}",
        "\n" * (MAX_MARKS + 1),
    ],
    ids=["brackets", "lines", "braces", "blank lines"],
)
def test_many_values_are_refused_before_they_are_parsed(tmp_path, monkeypatch, text):
    monkeypatch.setattr(yaml_files, "_bounded_yaml", None)
    file = tmp_path / "wide.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match="more than 20,000 commas, colons, dashes and ends of"):
        loader.load(file)


@pytest.mark.parametrize("form", ["- label number {}", "- 'label, number {}: a'", "label {}: text"])
def test_a_recipe_with_5000_labels_is_read(tmp_path, form):
    file = tmp_path / "labels.yaml"
    file.write_text("\n".join(form.format(number) for number in range(5_000)))
    tree, problems = read_yaml(file, "recipe")
    assert len(tree) == 5_000
    assert problems == []


def test_a_text_is_parsed_once(tmp_path, monkeypatch):
    """Parsing is nearly all of the time that reading takes."""
    parsed = []
    fetch = Scanner.fetch_more_tokens
    monkeypatch.setattr(Scanner, "fetch_more_tokens", lambda self: parsed.append(1) or fetch(self))
    file = tmp_path / "r.yaml"
    file.write_text("- 1\n" * 100)
    read_yaml(file, "recipe")
    assert len(parsed) < 250
    parsed.clear()
    yaml_files.parse_value("[" + "1, " * 100 + "]")
    assert len(parsed) < 250


def test_an_anchor_may_be_used_again(tmp_path, recwarn):
    file = tmp_path / "r.yaml"
    file.write_text("a: &x 1\nb: &x 2\nc: *x\n")
    assert read_yaml(file, "recipe") == ({"a": 1, "b": 2, "c": 2}, [])
    assert [*recwarn] == []


def test_repeated_keys_and_merged_ones_are_told_apart(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text("a: &a {k: 1, l: 2}\nb: {<<: *a, k: 3}\nc: {m: 1, m: 2}\n")
    tree, problems = read_yaml(file, "recipe")
    assert tree["b"] == {"k": 3, "l": 2}
    assert problems == [f"{file}: c.m: set twice, on lines 3 and 3; keep one of them"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("seed: 5", "seed: no such section; seed is a key of the section run: write it under run:"),
        ("lr: 0.1", "lr: no such section; lr is a key of the section optim: write it under optim:"),
        ("seed: [5]", "seed: no such section; seed is a key of the section run"),
        ("5: 5", "5: no such section"),
        ("null: 5", "None: no such section"),
        ("true: {a: 1}", "True: no such section"),
        ("[a]: 5", "no such section"),
        ("2020-01-01: 5", "no such section"),
    ],
)
def test_keys_at_the_top_get_their_message(tmp_path, text, hint):
    file = tmp_path / "r.yaml"
    file.write_text(f"data: {{source: a.csv}}\n{text}\n")
    with pytest.raises(InputError) as caught:
        loader.load(file)
    assert hint in str(caught.value)


@pytest.mark.parametrize("text", ["5", "hello", "[1, 2]", "null", "", "true", "2020-01-01", "1.5"])
def test_a_recipe_that_is_one_value_gets_its_message(tmp_path, text):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=r"this is not a recipe|the recipe is empty"):
        loader.load(file)


NESTED = {
    "brackets": "[" * 50_000,
    "braces": "{a: " * 15_000,
    "dashes": "- " * 15_000,
    "itself": "&a [*a]",
    "aliases": laughs(10, 12, "list"),
}


@pytest.mark.parametrize("key", ["optim.lr", "run.seed", "train.stages", "run.seeds"])
@pytest.mark.parametrize("form", NESTED)
def test_overrides_are_bounded_too(tmp_path, key, form):
    file = tmp_path / "r.yaml"
    file.write_text("data: {source: a.csv}")
    begin = time.process_time()
    with pytest.raises(InputError) as caught:
        loader.load(file, [f"{key}={NESTED[form]}"])
    assert time.process_time() - begin < SECONDS
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("form", NESTED)
def test_a_path_may_be_any_text(tmp_path, form):
    file = tmp_path / "r.yaml"
    file.write_text("data: {source: a.csv}")
    assert loader.load(file, [f"data.source={NESTED[form]}"]).data.source == NESTED[form]


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.sampled_from(
            ["a", "1", "*x", "&x b", "null", "!!set {a}", "!!binary aa", "? [a]", "---"]
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4).map(lambda items: "[" + ", ".join(items) + "]"),
            st.lists(inner, max_size=4).map(
                lambda items: "{" + ", ".join(f"k{n}: {i}" for n, i in enumerate(items)) + "}"
            ),
        ),
        max_leaves=30,
    )
)
def test_any_text_is_read_or_refused_with_a_message(tmp_path_factory, text):
    file: Path = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(f"data: {text}\nx: {text}\n", encoding="utf-8")
    with contextlib.suppress(InputError):
        read_yaml(file, "recipe")
    with pytest.raises(InputError):  # there is no section `x`
        loader.load(file)
