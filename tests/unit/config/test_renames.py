"""A key or value by its old name is told what it is called now, wherever it stands."""

import pytest

from finetune.config import loader
from finetune.config.renames import REMOVED, RENAMED, RENAMED_VALUES, explain_rename
from finetune.config.schema import SECTIONS
from finetune.runtime.errors import InputError
from finetune.tuning.search_space import load_space


def problems_of(file, *words):
    with pytest.raises(InputError) as caught:
        loader.load(file, words)
    return list(caught.value.problems)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "r.yaml").write_text(text)
        return "r.yaml"

    return write


def test_in_a_recipe_file(recipe):
    file = recipe(
        "data: {source: x, long: truncate_tail, pool: max}\nmodel: {head_init: names}\n"
        "optim: {clip: block}\nscore: {best: loss}\n"
    )
    assert problems_of(file) == [
        "r.yaml: data.long was renamed to data.truncation; write data.truncation=tail",
        "r.yaml: data.pool was renamed to data.window_pooling",
        "r.yaml: model.head_init: names was renamed to label_names",
        "r.yaml: optim.clip was removed: the norm of the whole model's gradient is what is clipped",
        "r.yaml: score.best was renamed to score.monitor",
    ]


def test_on_the_command_line(recipe):
    file = recipe("data: {source: x}")
    asked = "data.long=windows", "data.truncation=truncate_head", "cache.prefix=off"
    assert problems_of(file, *asked) == [
        "command line: data.long was renamed to data.truncation",
        "command line: data.truncation: truncate_head was renamed to head",
        "command line: cache.prefix was renamed to cache.frozen_states",
    ]


def test_in_the_space_of_a_sweep(recipe, tmp_path):
    base = tmp_path / recipe("data: {source: x}")
    space = tmp_path / "space.yaml"
    space.write_text(
        "optim.every: {choice: [step, epoch]}\n"
        "data.truncation: {choice: [truncate_tail, windows]}\n"
    )
    with pytest.raises(InputError) as caught:
        load_space(space, base)
    assert list(caught.value.problems) == [
        f"{space}: optim.every was renamed to optim.schedule_every",
        f"{space}: data.truncation: truncate_tail was renamed to tail",
    ]


def test_a_misspelled_key_is_still_guessed(recipe):
    file = recipe("data: {source: x, truncatoin: tail}")
    assert problems_of(file) == [
        "r.yaml: data.truncatoin: no such key; did you mean data.truncation?"
    ]


def test_the_table_names_keys_that_are_there():
    keys = {f"{name}.{key}" for name, part in SECTIONS.items() for key in part.model_fields}
    assert {*RENAMED.values(), *RENAMED_VALUES} <= keys
    assert not keys & {*RENAMED, *REMOVED}
    assert explain_rename("data.text", "long") is None
