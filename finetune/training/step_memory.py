"""Out of memory in the middle of training → the same step again, with fewer tokens at once.

    memory = StepMemory(rows.micro_batch_tokens, model, recipe, accelerator, callbacks)
    losses = memory.compute(step, add_gradients)  # calls add_gradients(memory), on every process

How a step's rows are divided changes memory and not the gradient. So a step that ran out of memory
is computed anew with half as many tokens at once, from the same random states: the run is the one
that had this many from that step on. Where one row alone was too much, gradient checkpointing is
switched on instead, if the recipe leaves it open, and the step begins again with as many tokens as
before: what made them too many may be what is no longer kept.

Gradients are averaged over the processes only once all of them have computed their own. Were they
averaged during the backward pass, a process that ran out of memory in it would leave the others
waiting for ever. The passes of a sharded model, which are shared, are brought to an end for the
others (`shared_passes.py`).
"""

# torch's own `split` is not typed.
# mypy: disable-error-code="no-untyped-call"

import traceback
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

from finetune.compute.checkpointing import enable_checkpointing
from finetune.compute.shared_passes import SharedPasses, free_memory
from finetune.config import schema
from finetune.runtime.distributed import PATIENCE
from finetune.runtime.memory_errors import LOWER_BATCH, describe_memory_error, is_out_of_memory
from finetune.runtime.random_states import get_random_states, set_random_states

BUCKET = 25 * 2**20 // 4  # numbers whose mean is taken at once

# Is told the step under way (from 1), the tokens at once from there on, and whether gradient
# checkpointing was switched on.
OnLowered = Callable[[int, int, bool], None]


class StepMemory:
    """How many tokens each process computes at once, which falls where memory runs out.

    Attributes:
        tokens: computed at once.
        rows: of the micro-batch under way, which `add_gradients` sets.
        stands_in: whether `add_gradients` is to compute as many micro-batches of as little as can
            be, as the other processes of a sharded model wait for this one.
    """

    def __init__(
        self,
        tokens: int,
        model: torch.nn.Module,
        train: schema.Train,
        accelerator: Accelerator,
        on_lowered: OnLowered,
    ) -> None:
        self.tokens, self.rows, self.stands_in = tokens, 0, False
        self._planned = tokens
        self._model, self._train = model, train
        self._accelerator, self._on_lowered = accelerator, on_lowered
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        # A sharded model averages its shards itself.
        self._averages = accelerator.num_processes > 1 and not accelerator.is_fsdp2
        self._passes = SharedPasses(model, accelerator)
        self._rooms: dict[torch.dtype, Tensor] = {}

    def compute(
        self, step: int, add_gradients: Callable[["StepMemory"], list[Tensor]]
    ) -> list[Tensor]:
        """The losses of a step's micro-batches; every parameter has the gradient of all processes.

        Args:
            step: counted from 1.
            add_gradients: adds to the parameters' gradients those of this process's rows, in
                micro-batches of `tokens`, and gives their losses.

        Raises:
            InputError: where not even one row at once fits.
        """
        while True:
            states = get_random_states(self._accelerator.device)
            losses, problem, alone = self._attempt(add_gradients)
            failed, alone, reached = self._agree(problem is not None, alone)
            if not failed:
                self._average(reached)
                return losses
            for parameter in self._parameters:
                parameter.grad = None
            free_memory(self._accelerator.device)
            set_random_states(states, self._accelerator.device)
            self._lower(step, alone, problem)

    def _attempt(
        self, add_gradients: Callable[["StepMemory"], list[Tensor]]
    ) -> tuple[list[Tensor], str | None, bool]:
        """The losses; or what an error said that memory ran out, and whether a row was alone."""

        def stand_in() -> None:
            rows, self.stands_in = self.rows, True
            try:
                add_gradients(self)
            finally:
                self.rows, self.stands_in = rows, False

        try:
            self._make_room()
            return self._passes.run(lambda: add_gradients(self), stand_in), None, False
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # whose variables hold what was computed
            return [], str(error), 1 in (self.rows, self.tokens)

    def _agree(self, failed: bool, alone: bool) -> tuple[bool, bool, list[bool]]:
        """Whether any process ran out of memory, whether one did with a single row, and for each
        parameter whether it has a gradient on any."""
        if self._accelerator.num_processes == 1:
            return failed, alone, []
        # A sharded model sums its gradients itself.
        averaged = self._parameters if self._averages else []
        reached = [parameter.grad is not None for parameter in averaged]
        flags = torch.tensor([int(flag) for flag in (failed, alone, *reached)])
        dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=_host_group(dist.group.WORLD))
        any_failed, any_alone, *anywhere = (bool(flag) for flag in flags.tolist())
        return any_failed, any_alone, anywhere

    def _lower(self, step: int, alone: bool, problem: str | None) -> None:
        switched = False
        if not alone:
            self.tokens = max(1, self.tokens // 2)
        else:
            bare = self._accelerator.unwrap_model(self._model, keep_torch_compile=False)
            switched = self._train.checkpointing == "auto" and enable_checkpointing(bare)
            if not switched:
                raise describe_memory_error(
                    MemoryError(problem or "on another process"), "training", LOWER_BATCH
                )
            self.tokens = self._planned
        self._on_lowered(step, self.tokens, switched)

    def _make_room(self) -> None:
        """Where gradients are averaged is there before a step is computed, and lacks none then."""
        for parameter in self._parameters if self._averages else ():
            if parameter.dtype not in self._rooms:
                self._rooms[parameter.dtype] = parameter.detach().new_empty(BUCKET)

    def _average(self, reached: Sequence[bool]) -> None:
        """The mean over the processes of each gradient, as each has computed its own share.

        Args:
            reached: which parameters have a gradient on any process; where a layer that is dropped
                at random leaves one process without, its share is zero.
        """
        if not self._averages:
            return
        processes, gradients = self._accelerator.num_processes, list[Tensor]()
        for parameter, anywhere in zip(self._parameters, reached, strict=True):
            if anywhere and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is not None:
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            if len(bucket) == 1:  # it may be larger than the room, and needs none
                whole = bucket[0].contiguous()
                dist.all_reduce(whole.mul_(1 / processes))
                bucket[0].copy_(whole)
                continue
            sizes = [gradient.numel() for gradient in bucket]
            flat = self._rooms[bucket[0].dtype][: sum(sizes)]
            torch.cat([gradient.flatten() for gradient in bucket], out=flat)
            dist.all_reduce(flat.mul_(1 / processes))
            for gradient, part in zip(bucket, flat.split(sizes), strict=True):
                gradient.copy_(part.view_as(gradient))


def _buckets(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """Gradients of one type, in order, up to a number of numbers each."""
    buckets: list[list[Tensor]] = []
    size = BUCKET
    for gradient in gradients:
        if size + gradient.numel() > BUCKET or buckets[-1][0].dtype != gradient.dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(gradient)
        size += gradient.numel()
    return buckets


@cache
def _host_group(world: Any) -> Any:
    """The processes, to exchange numbers of the host: without waiting for their GPUs."""
    if dist.get_backend(world) == "gloo":
        return world
    return dist.new_group(backend="gloo", timeout=PATIENCE)
