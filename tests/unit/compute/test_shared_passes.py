"""A sharded step in which one process runs out of memory: none waits, and all compute it again."""

from types import SimpleNamespace

import pytest
import torch

from finetune.compute import shared_passes
from finetune.compute.shared_passes import SharedPasses
from finetune.runtime.errors import InputError
from tests.support.sharded_step import sharded_step
from tests.support.tiny import tiny_encoder

needs_reset = pytest.mark.skipif(
    not shared_passes.CAN_BEGIN_AGAIN, reason="this torch cannot begin a sharded pass again"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def halved(tiny):
    return sharded_step(tiny, precision="fp32", budget=48)


@needs_reset
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("rank", [0, 1])
def test_the_step_is_computed_again_with_half_as_many_tokens(tiny, halved, rank, where):
    fails = {"rank": rank, "where": where, "part": 2}
    found = sharded_step(tiny, precision="fp32", fails=fails)
    assert found["told"] == [[1, 48, False]]
    assert (found["sums"], found["parts"]) == (halved["sums"], halved["parts"])


@needs_reset
def test_a_row_alone_switches_checkpointing_on_everywhere(tiny):
    fails = {"rank": 1, "where": "backward", "part": 3}
    expected = sharded_step(tiny, precision="bf16", budget=1)
    found = sharded_step(tiny, precision="bf16", budget=1, fails=fails)
    assert found["told"] == [[1, 1, True]]
    assert found["sums"] == expected["sums"]


@needs_reset
def test_micro_batches_are_fitted_to_the_process_with_the_least_memory(tiny):
    fails = {"rank": 1, "where": "backward", "part": 1}
    assert sharded_step(tiny, precision="fp32", fit=True, fails=fails) == 48


class Root(torch.nn.Module):
    def reset_iter_state(self):
        self.is_reset = True


def sharded_passes():
    accelerator = SimpleNamespace(
        is_fsdp2=True, device=torch.device("cpu"), unwrap_model=lambda model, **how: model
    )
    root = Root()
    return SharedPasses(root, accelerator), root


def fail():
    raise torch.OutOfMemoryError("CUDA out of memory")


@needs_reset
def test_exchanges_that_the_others_have_had_are_left_out():
    passes, root = sharded_passes()
    made = []

    def stand_in():
        assert root.is_reset
        for number in range(4):
            passes.exchange(lambda number=number: made.append(number))

    def compute():
        passes.exchange(lambda: made.append("first"))
        passes.exchange(lambda: made.append("second"))
        passes.exchange(fail)  # one that itself ran out of memory has not been made

    with pytest.raises(torch.OutOfMemoryError):
        passes.run(compute, stand_in)
    assert made == ["first", "second", 2, 3]


def test_where_nothing_smaller_fits_the_run_ends():
    passes, _ = sharded_passes()
    with pytest.raises(InputError, match="out of memory while training"):
        passes.run(fail, fail)


def test_other_errors_stay_what_they_are():
    passes, root = sharded_passes()

    def differ():
        raise ValueError("shapes differ")

    with pytest.raises(ValueError, match="shapes differ"):
        passes.run(differ, fail)
    assert not hasattr(root, "is_reset")
