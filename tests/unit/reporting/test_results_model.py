"""results.json: read back as it was written; damaged ones are refused with one message."""

import json
import re

import pytest

from finetune.reporting import results, results_model
from finetune.reporting.results_model import StageSummary
from finetune.runtime.errors import InputError
from tests.unit.reporting.made import made_results


def test_results_are_read_back_as_they_were_written(tmp_path):
    made = made_results()
    results.write_results(made, tmp_path)
    assert results_model.read_results(tmp_path) == made
    found = json.loads((tmp_path / "results.json").read_text())
    assert next(iter(found)) == "schema"
    assert found["test"]["accuracy"] == made.test.metric("accuracy")
    assert made.scores is made.test
    with pytest.raises(KeyError):
        made.test.metric("no such metric")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "the file is damaged ("),
        (lambda text: "[1]", "expected schema 5, found None; train the recipe beside it again"),
        (lambda text: text.replace('"schema": 5', '"schema": 4'), "expected schema 5, found 4; "),
        (lambda text: text.replace('"best_step"', '"last_step"'),
         "the file is damaged (train.best_step: field required)"),
        (lambda text: text.replace('"steps": 60', '"steps": "many"', 1),
         "the file is damaged (train.steps: input should be a valid integer"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_message(tmp_path, damage, message):
    results.write_results(made_results(), tmp_path)
    file = tmp_path / "results.json"
    file.write_text(damage(file.read_text()))
    with pytest.raises(InputError) as caught:
        results_model.read_results(tmp_path)
    [problem] = caught.value.problems
    assert problem.startswith(f"{file}: {message}")
    assert "train the recipe beside it again" in problem


def test_a_folder_without_results(tmp_path):
    with pytest.raises(InputError, match=r"expected the folder of a finished run"):
        results_model.read_results(tmp_path)


def test_numbers_that_are_not_finite_are_null():
    values = made_results().as_json()
    values["test"] |= {"loss": float("nan"), "loss_se": float("inf"), "f1_macro": float("nan")}
    found = results_model.Results.model_validate(values)
    assert (found.test.loss, found.test.loss_se, found.test.metric("f1_macro")) == (None,) * 3


def test_every_key_has_a_meaning():
    table = results_model.describe().splitlines()
    meanings = dict(re.fullmatch(r"\| `(.+?)` \| (.+) \|", row).groups() for row in table[2:])
    assert len(meanings) > 120
    for key in ("schema", "train.best_step", "classes[].f1_interval", "validation.<metric>",
                "data.splits.<name>.median", "data.reading.max_length"):  # fmt: skip
        assert len(meanings[key]) > 5
    # One row a key, and no key without a meaning.
    assert len(meanings) == len(table) - 2


@pytest.mark.parametrize("freeze", ["encoder", 3])
def test_a_stage_may_freeze_a_number_of_layers(freeze):
    stage = StageSummary(freeze=freeze, lr=0.1, steps=4, first_step=1, epochs=1.0)
    assert StageSummary.model_validate_json(stage.model_dump_json()).freeze == freeze
