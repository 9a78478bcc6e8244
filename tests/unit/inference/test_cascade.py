"""The plan of a cascade: in words, in a file, and of a job that goes on."""

import json

import pytest

from finetune.evaluation.cascade import CascadeThreshold
from finetune.inference.cascade import CascadePlan, _with_own_options, score_of
from finetune.inference.cascade_job import write_plan

PLAN = CascadePlan(
    "runs/student",
    0.3,
    "validation",
    CascadeThreshold(0.75, 1000, 0.8, 0.91, 0.912, 0.88, (-0.002, 0.006)),
)


def test_a_plan_is_read_back_as_it_was_written(tmp_path):
    write_plan(tmp_path / "plan.json", PLAN, rows=50, by_student=30)
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found.pop("answered_by") == {"student": 30, "teacher": 20}
    assert CascadePlan.from_json(found) == PLAN
    assert json.loads(json.dumps(PLAN.as_json())) == PLAN.as_json()


def test_a_plan_says_what_is_to_be_expected():
    assert PLAN.describe() == (
        "runs/student answers where its probability is 0.7500 or more: 80.0 % of 1,000 rows "
        "(validation), with an accuracy of 91.00 % in all; MODEL alone has 91.20 %: -0.20 points "
        "(95 % interval -0.60 to +0.20)"
    )


def test_a_plan_warns_of_models_that_are_swapped_and_of_few_rows():
    assert PLAN.warnings() == []
    swapped = CascadePlan(
        "big", 0.3, "validation", CascadeThreshold(0.3, 140, 1, 0.9, 0.8, 0.9, (0, 0))
    )
    order, few = swapped.warnings()
    assert order.startswith("big alone is right more often than MODEL (90.00 % and 80.00 %)")
    assert few.startswith("one of 140 rows is 0.71 points, and --max-loss is 0.3")


def test_messages_on_labelled_rows_name_the_cascade_s_options():
    said = (
        "a.csv: expected the labels of the model (x), got 'y'; --unknown-labels drop leaves these "
        "rows out, and wrong counts each of them as a wrong prediction; --label names another "
        "column"
    )
    assert _with_own_options(said) == (
        "a.csv: expected the labels of the model (x), got 'y'; --cascade-label names another column"
    )
    assert _with_own_options("x: name one with --split") == "x: name the file of one"
    assert _with_own_options("DATA: no.csv: no such file") == "no.csv: no such file"
    assert _with_own_options("--label-separator: no") == "--label-separator: no"


@pytest.mark.parametrize("prediction", [{"label": None, "score": 0.4}, {"error": "no text"}])
def test_who_gives_no_label_is_not_sure(prediction):
    assert score_of(prediction) < 0
