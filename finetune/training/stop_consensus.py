"""A signal to one process, or a checkpoint that is due → all processes answer at the same step."""

from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from accelerate import Accelerator

from finetune.config import schema
from finetune.data.corpus import Corpus
from finetune.runtime.distributed import PATIENCE
from finetune.runtime.errors import BEFORE_TRAINING, InputError, StoppedError
from finetune.runtime.signals import SignalListener


def validate_stopping(recipe: schema.Recipe, corpus: Corpus, is_trial: bool) -> list[str]:
    """Refuse what only validation could decide where there is none; what it does in part, as notes.

    Args:
        is_trial: whether this is a trial of several, which are compared by it.

    Raises:
        InputError: names what asked for it.
    """
    if len(corpus.validation):
        return []
    none = f"there is no validation split ({corpus.validation.origin}); set data.validation=carve"
    if is_trial:
        raise InputError(f"data.validation: trials are compared by validation, and {none}")
    settings = {
        "score.patience": (recipe.score.patience, "nothing tells when to stop"),
        "score.target_accuracy": (recipe.score.target_accuracy, "no threshold can be chosen"),
    }
    problems = [
        f"{key}: {none}, or leave {key} out, as {why}"
        for key, (value, why) in settings.items()
        if value is not None
    ]
    if problems:
        raise InputError(problems)
    if recipe.train.on_divergence == "back_off":
        return [
            "train.on_divergence: back_off sees losses that are not finite only: without "
            "validation, nothing tells whether the model has collapsed"
        ]
    return []


class StopConsensus:
    """While it is entered, signals wait for the step under way.

    The processes' requests are put together in the background while a step is computed, and looked
    at after the next: that costs no step any time, and all stop one step later than asked.
    """

    def __init__(self, accelerator: Accelerator, listener: SignalListener) -> None:
        self._listener = listener
        listener.moment = BEFORE_TRAINING
        self._alone = accelerator.num_processes == 1
        # A group of its own, on the CPU: it neither waits for the GPU nor for the gradients.
        self._group = None if self._alone else dist.new_group(backend="gloo", timeout=PATIENCE)
        self._requests = torch.zeros(2, dtype=torch.int64)
        self._answer: Any = None

    def __enter__(self) -> Self:
        self._listener.patient = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # All processes come here together, or after an error that each may have alone.
        together = kind is None or issubclass(kind, (StoppedError, InputError))
        if together and self._group is not None:
            if self._answer is not None:
                self._answer.wait()
            dist.destroy_process_group(self._group)
        self._listener.moment = "after the last step"
        self._listener.patient = False
        if kind is None and self._listener.heard is not None:
            self._listener.stop()  # it came after the last answer

    def agreed(self, checkpoint: bool, last: bool) -> tuple[int, bool]:
        """The signal on which all stop now, or 0; and whether all write a checkpoint now.

        Args:
            checkpoint: whether this process finds one due.
            last: whether this was the last step, so that no later one can bring the answer.
        """
        mine = torch.tensor([self._listener.heard or 0, int(checkpoint)], dtype=torch.int64)
        if self._alone:
            answer = mine
        else:
            if self._answer is not None:
                self._answer.wait()
            answer, self._requests = self._requests, mine
            self._answer = dist.all_reduce(
                self._requests, op=dist.ReduceOp.MAX, group=self._group, async_op=True
            )
            if last:
                self._answer.wait()
                answer = torch.maximum(answer, self._requests)
        number, due = answer.tolist()
        return int(number), bool(due)
