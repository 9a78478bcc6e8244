"""Passes of a sharded model, of which one process may run out of memory and none waits for ever.

    passes = SharedPasses(model, accelerator)
    passes.run(compute, stand_in)    # → what `compute` gives; or OutOfMemoryError, at the end

Where weights are sharded, each process sends its part of every layer in each forward and backward
pass, and takes part in the sum of each gradient. One that stopped in the middle would leave the
others waiting. So where memory runs out, the process forgets what it has computed, and begins again
with as many passes over as little as there is (`stand_in`). It leaves out the exchanges that the
others have had from it, and takes part in all the rest. What comes of them is to be thrown away, on
every process: after `run` all have made the same exchanges, and can agree on that.

This needs what torch has since 2.13. With older releases the run ends with a message.
"""

# torch's `fully_shard` has types of its own, which are not public.
# mypy: disable-error-code="no-untyped-call,attr-defined,arg-type"

import gc
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from finetune.runtime.memory_errors import LOWER_BATCH, explain_memory_errors, is_out_of_memory

Result = TypeVar("Result")
CAN_BEGIN_AGAIN = hasattr(FSDPModule, "reset_iter_state") and hasattr(dist, "all_gather_single")


class SharedPasses:
    """Those of one model; of one that is not sharded, they are just computed.

    Args:
        model: prepared by the accelerator.
    """

    def __init__(self, model: torch.nn.Module, accelerator: Accelerator) -> None:
        self._device = accelerator.device
        self._root: Any = None
        self._made = self._had = 0  # exchanges of the passes under way; those to leave out
        if not accelerator.is_fsdp2:
            return
        self._root = accelerator.unwrap_model(model, keep_torch_compile=False)
        if CAN_BEGIN_AGAIN:
            for module in self._root.modules():
                if isinstance(module, FSDPModule):
                    module.set_custom_all_gather(_Gather(self))
                    module.set_custom_reduce_scatter(_ReduceScatter(self))

    def run(self, compute: Callable[[], Result], stand_in: Callable[[], object]) -> Result:
        """What `compute` gives.

        Args:
            compute: runs the passes.
            stand_in: runs as many, in the same order, in as little memory as can be.

        Raises:
            OutOfMemoryError: where memory ran out, once the others have what they wait for.
            InputError: where it ran out, and nothing smaller can be computed either.
        """
        if self._root is None:
            return compute()
        self._made = self._had = 0
        try:
            return compute()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # whose variables hold what was computed
            problem = str(error)
        with explain_memory_errors("training", LOWER_BATCH):
            if not CAN_BEGIN_AGAIN:
                raise torch.OutOfMemoryError(problem)
            self._root.reset_iter_state()
            free_memory(self._device)
            self._made, self._had = 0, self._made
            stand_in()
            self._had = 0
        raise torch.OutOfMemoryError(problem)

    def exchange(self, call: Callable[[], Any]) -> Any:
        """Take part in what the processes do together, or leave it out where they have had it."""
        done = None if self._made < self._had else call()
        self._made += 1
        return done


class _Exchange:
    """What torch asks of one: where its result goes, and itself."""

    def __init__(self, passes: SharedPasses) -> None:
        self._passes = passes

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _Gather(_Exchange):
    """A layer's weights, from all."""

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False
    ) -> Any:
        return self._passes.exchange(
            lambda: dist.all_gather_single(output_tensor, input_tensor, group, async_op)
        )


class _ReduceScatter(_Exchange):
    """The sum of all gradients of a layer, a part to each."""

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: Any,
        op: Any,
        async_op: bool = False,
    ) -> Any:
        return self._passes.exchange(
            lambda: dist.reduce_scatter_single(output_tensor, input_tensor, op, group, async_op)
        )


def free_memory(device: torch.device) -> None:
    """Give back what no tensor holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
