"""A rank that is stopped, killed or slow: it is named within the bound, or waited for."""

import re
import time

import pytest

from tests.support.processes import launch
from tests.support.runs import assert_same, checkpoints, end, finish, results

BOUND = "run.hang_minutes=0.2"  # 12 s: these tests share their cores with others
# Each after a sign of life from the step, which the others' message tells.
STOP = "time.sleep(5)\nos.kill(os.getpid(), signal.SIGSTOP)"
KILL = "time.sleep(5)\nos.kill(os.getpid(), signal.SIGKILL)"
SLOW = "time.sleep(20)"  # longer than the bound


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_stopped_is_named(here, whole_by_two, rank):
    """In the middle of training, where it hangs for ever: the other says so and ends."""
    by = {0: {"processes": 2}, 1: {"launcher": launch(2)}}[rank]  # one of them as a user does
    began = time.monotonic()
    code, said = end(here, "run.dir=run", "checkpoint.keep=99", BOUND, act=(9, rank, STOP), **by)
    assert code != 0
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert re.match(
        rf"error: rank {rank} \(process \d+ on \S+\) has given no sign of life for 1\d s, since "
        r"\d\d:\d\d:\d\d, last at (train|checkpoint|validate|score) after step \d\. It was stopped",
        line,
    ), said
    assert line.endswith("run.hang_minutes sets how long they wait")
    assert time.monotonic() - began < 240
    assert checkpoints(here / "run")[-1] == "step-00000008"
    finish(here, "run.resume=run", "checkpoint.keep=99", processes=2)
    assert_same(whole_by_two, here / "run")


def test_a_rank_that_is_killed_is_named(here):
    act = (9, 1, KILL)
    code, said = end(here, "run.dir=run", "checkpoint.keep=99", BOUND, processes=2, act=act)
    assert code != 0
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert re.match(
        r"error: another process of this run ended without a word \(rank 1 \(process \d+ on \S+\), "
        r"last at \w+ after step \d\): it was killed, or its machine",
        line,
    ), said
    assert checkpoints(here / "run")[-1] == "step-00000008"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_slow_is_waited_for(here, rank):
    words = "run.dir=run", "train.epochs=1", "run.hang_minutes=0.15"
    code, said = end(here, *words, processes=2, act=(9, rank, SLOW))
    assert code == 0, said
    assert "no sign of life" not in said
    assert results(here / "run")["num_processes"] == 2
