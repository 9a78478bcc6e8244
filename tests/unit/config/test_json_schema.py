"""JSON Schema of recipes: right recipes pass, wrong ones fail, each key says what it is."""

import json

import pytest
from ruamel.yaml import YAML

from finetune.config import loader
from finetune.config.help import describe_field
from finetune.config.json_schema import recipe_schema
from finetune.config.renames import REMOVED, RENAMED
from finetune.config.schema import SECTIONS, Stage
from finetune.runtime.errors import InputError
from tests.support.processes import ROOT

jsonschema = pytest.importorskip("jsonschema")
SCHEMA = recipe_schema()
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


def read(text):
    return YAML(typ="safe", pure=True).load(text)


def problems(tree):
    return list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(tree))


def test_it_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert SCHEMA["$schema"].endswith("2020-12/schema")


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_shipped_recipes_are_right(file):
    assert problems(read(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "data: {source: a.csv}",
        "data: {source: a.csv}\ntrain:\noptim:\n",
        "data: {source: a.csv, text: [title, body], label: [a, b], labels: null}",
        "data: {source: a.csv}\noptim: {lr: auto}",
        "data: {source: a.csv}\noptim: {lr: 1, name: adamw, betas: [0.9, 0.99]}",
        "data: {source: a.csv}\ntrain: {epochs: auto, class_weights: {a: 2, b: 0.5}}",
        "data: {source: a.csv}\ntrain: {stages: [{freeze: 2, lr: auto}, {}]}",
        "data: {source: a.csv}\nmodel: {freeze: 3, dropout: null}\nscore: {every: 10}",
        "data: {source: a.csv, fold: 2/5}\nrun: {seeds: [0, 1], trackers: [wandb]}",
    ],
)
def test_right_recipes_pass_as_they_load(text, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    loader.load(tmp_path / "r.yaml")
    assert problems(read(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "train: {epochs: 3}",
        "data: null",
        "data: {text: a}",
        "data: {source: a.csv}\noptimizer: {lr: 1}",
        "data: {source: a.csv, sorce: b.csv}",
        "data: {source: 3}",
        "data: {source: a.csv, fold: 5}",
        "data: {source: a.csv, fold: two/5}",
        "data: {source: a.csv, labels: []}",
        "data: {source: a.csv, validation_fraction: 1.5}",
        "data: {source: a.csv}\noptim: {lr: 0}",
        "data: {source: a.csv}\noptim: {lr: fast}",
        "data: {source: a.csv}\noptim: {betas: [0.9]}",
        "data: {source: a.csv}\ntrain: {epochs: 0}",
        "data: {source: a.csv}\ntrain: {epochs: true}",
        "data: {source: a.csv}\ntrain: {batch_size: 32.5}",
        "data: {source: a.csv}\ntrain: {class_weights: {a: -1}}",
        "data: {source: a.csv}\ntrain: {stages: [{rate: 1}]}",
        "data: {source: a.csv}\nmodel: {freeze: some}",
        "data: {source: a.csv}\nscore: {every: never}",
        "data: {source: a.csv}\nrun: {trackers: [paper]}",
        "data: {source: a.csv}\nrun: {folds: 1}",
        "data: {source: a.csv}\npublish: {repo_id: mine}",
    ],
)
def test_wrong_recipes_fail_as_they_do_not_load(text, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(InputError):
        loader.load(tmp_path / "r.yaml")
    assert problems(read(text)) != []


def test_every_key_says_what_it_is_and_old_names_are_gone():
    for section in (*SECTIONS.values(), Stage):
        keys = SCHEMA["$defs"][section.__name__]["properties"]
        assert list(keys) == list(section.model_fields)
        for key, field in section.model_fields.items():
            assert keys[key]["description"] == f"{field.description} ({describe_field(field)})"
            assert field.is_required() or "default" in keys[key]
    assert list(SCHEMA["properties"]) == list(SECTIONS)
    named = {f"{name}.{key}" for name, part in SECTIONS.items() for key in part.model_fields}
    assert not named & {*RENAMED, *REMOVED}
