"""The schedule as a pure function: rates by hand, where epochs begin, what is due after a step."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config import schema
from finetune.config.schema import Optim
from finetune.training.schedule import Schedule, learning_rate


def rates(steps, per_epoch, **choices):
    of = Optim(**{"lr": 1.0, **choices})
    return [learning_rate(step, steps, per_epoch, of) for step in range(steps)]


def test_linear_decay_by_hand():
    assert rates(5, 5, warmup=0.0) == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert rates(6, 6, warmup=0.3) == pytest.approx([1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25])


def test_each_schedule():
    assert rates(4, 4, warmup=0.0, schedule="constant") == [1, 1, 1, 1]
    cosine = [(1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)]
    assert rates(4, 4, warmup=0.0, schedule="cosine") == pytest.approx(cosine)
    assert rates(6, 2, warmup=0.0, schedule_every="epoch") == pytest.approx(
        [1, 1, 2 / 3, 2 / 3, 1 / 3, 1 / 3]
    )


@given(
    st.integers(1, 500),
    st.integers(1, 100),
    st.floats(0, 0.99),
    st.sampled_from(["linear", "cosine", "constant"]),
    st.sampled_from(["step", "epoch"]),
)
def test_rates_rise_then_fall_and_every_step_learns(steps, per_epoch, warmup, schedule, every):
    found = rates(steps, per_epoch, warmup=warmup, schedule=schedule, schedule_every=every)
    peak = found.index(max(found))
    assert all(0 < rate <= 1 for rate in found)
    assert found[: peak + 1] == sorted(found[: peak + 1])
    assert found[peak:] == sorted(found[peak:], reverse=True)


def recipe(**sections):
    return schema.Recipe(data=schema.Data(source="x"), optim=Optim(lr=0.1), **sections)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(0, 100), st.integers(1, 4))
def test_a_stage_begins_with_an_epoch_of_its_own(rows, batch_size, begin, epochs):
    of = recipe(train=schema.Train(epochs=epochs, batch_size=batch_size))
    schedule = Schedule.of(of, rows, begin)
    assert schedule.end - begin == epochs * -(-rows // batch_size)
    places = [schedule.position(step) for step in range(begin, schedule.end)]
    assert [within for _, within in places] == [*range(schedule.per_epoch)] * epochs
    assert len({epoch for epoch, _ in places}) == epochs
    assert schedule.is_evaluated(schedule.end)
    assert schedule.is_logged(schedule.end)
    assert schedule.is_logged(begin + 1)
    alone = Schedule.of(of, rows, rate_scale=0.5)
    assert [2 * alone.learning_rate(step) for step in range(alone.end)] == pytest.approx(
        [schedule.learning_rate(begin + step) for step in range(alone.end)]
    )


def test_what_is_due_after_a_step():
    of = recipe(
        train=schema.Train(epochs=2, batch_size=4, log_every=3), score=schema.Score(every=4)
    )
    schedule = Schedule.of(of, rows=20)
    done = range(1, schedule.end + 1)
    assert [n for n in done if schedule.is_evaluated(n)] == [4, 8, 10]
    assert [n for n in done if schedule.is_logged(n)] == [1, 3, 6, 10]


@given(st.integers(1, 300), st.integers(2, 60), st.integers(0, 100))
def test_no_line_of_the_log_but_the_first_covers_a_stub(steps, every, begin):
    of = recipe(train=schema.Train(batch_size=4, max_steps=steps, epochs=300, log_every=every))
    schedule = Schedule.of(of, rows=8, begin=begin)
    assert schedule.end == begin + steps
    lines = [n for n in range(begin + 1, schedule.end + 1) if schedule.is_logged(n)]
    assert lines[0] == begin + 1
    assert lines[-1] == schedule.end
    covered = np.diff([begin, *lines[1:]])  # the first line is of the first step alone
    assert (covered[:-1] == every).all()
    assert len(lines) < 3 or every <= covered[-1] < 2 * every
