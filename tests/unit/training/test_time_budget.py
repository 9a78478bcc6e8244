"""train.minutes: what fits into the time, and what is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config import schema
from finetune.runtime.errors import InputError
from finetune.training import time_budget
from finetune.training.time_budget import Budget, Speed

SPEEDS = st.builds(
    Speed,
    step=st.floats(1e-3, 20),
    forward=st.floats(1e-8, 1e-3),
    timed=st.just(9),
    whole=st.one_of(st.none(), st.floats(1e-8, 1e-2)),
)
BUDGETS = st.builds(
    Budget,
    minutes=st.floats(0.1, 600),
    spent=st.floats(0, 300),
    validation=st.integers(0, 10**7),
    test=st.integers(0, 10**7),
    weights=st.integers(1, 2 * 10**9),
    closing=st.integers(0, 10**7),
)


@given(
    budget=BUDGETS,
    speed=SPEEDS,
    every=st.one_of(st.just("epoch"), st.integers(1, 1000)),
    most=st.integers(1, 10**6),
)
def test_the_plan_ends_in_time_and_uses_it(budget, speed, every, most):
    """Steps, scorings and closing fit; one step and scoring more would not, unless it is capped."""
    try:
        plan = time_budget.plan_steps(budget, speed, schema.Score(every=every), most)
    except InputError:
        return
    assert 1 <= plan.steps <= most
    assert 1 <= plan.scored_every <= plan.steps
    validation = budget.validation * speed.forward + time_budget.SAVING * budget.weights
    left = 60 * budget.minutes - budget.spent - sum(plan.seconds)
    assert left >= -2 * validation - 1e-6  # a last scoring may be nearer than `every` steps
    if not plan.is_capped and plan.steps < most:
        assert left <= speed.step + time_budget.SCORINGS[1] * validation + 1e-6
    if every == "epoch":
        assert math.ceil(plan.steps / plan.scored_every) <= time_budget.SCORINGS[1]


def test_no_time_for_a_step_is_refused_with_what_it_would_take():
    budget = Budget(minutes=0.5, spent=20, validation=10_000, test=20_000, weights=10**8)
    speed = Speed(step=2.0, forward=1e-3, timed=5)
    with pytest.raises(InputError) as caught:
        time_budget.plan_steps(budget, speed, schema.Score(), most=1000)
    assert str(caught.value) == (
        "train.minutes: 0.5 leaves no time to train: preparing took 20.0 s, a step takes 2.00 "
        "s, scoring validation and saving the model 11.0 s, the test scores and the report 25.0 s; "
        "expected at least 1.4"
    )
    enough = time_budget.plan_steps(
        Budget(1.4, 20, 10_000, 20_000, 10**8), speed, schema.Score(), most=1000
    )
    assert enough.steps >= 1


def test_what_is_scored_after_the_last_step_takes_time_too():
    """A table with frozen layers' states is faster to score than test, which is scored once."""
    budget = Budget(5, 20, validation=0, test=20_000, weights=1, closing=10_000)
    for whole, test in ((None, 20), (4e-3, 80)):
        speed = Speed(step=1.0, forward=1e-3, timed=5, whole=whole)
        plan = time_budget.plan_steps(budget, speed, schema.Score(), most=10**6)
        assert plan.seconds[2] == pytest.approx(10 + test + time_budget.CLOSING)


@pytest.mark.parametrize(
    ("train", "rows", "most"),
    [
        (schema.Train(minutes=1, batch_size=10), 100, 10 * time_budget.MOST_EPOCHS),
        (schema.Train(minutes=1, batch_size=10), 10, schema.LEAST_STEPS),
        (schema.Train(minutes=1, batch_size=10, epochs=4), 100, 40),
        (schema.Train(minutes=1, batch_size=10, max_steps=7), 100, 7),
    ],
)
def test_epochs_and_steps_are_the_most_that_is_done(train, rows, most):
    assert time_budget.most_steps(rows, train) == most


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"stages": [{}, {}]}, "minutes: expected null with train.stages"),
        ({"min_steps": 5}, "min_steps: expected null with train.minutes"),
        ({"min_steps": 5, "max_steps": 9}, "min_steps: expected null with train.minutes"),
        ({"minutes": 0}, "minutes"),
    ],
)
def test_what_contradicts_minutes_is_refused(keys, said):
    with pytest.raises(ValueError, match="minutes") as caught:
        schema.Train(**({"minutes": 1.0} | keys))
    assert said.split(":")[0] in str(caught.value)


def test_steps_that_are_named_are_planned_already():
    assert schema.Train(minutes=1).awaits_plan
    assert not schema.Train(minutes=1, min_steps=9, max_steps=9).awaits_plan
    assert not schema.Train().awaits_plan
