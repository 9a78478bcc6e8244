"""What a run has done so far: losses, gradient norms, rows, time → a line of numbers now and then.

Sums are kept on the device, and the device's values are read only when a line is logged.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor

from finetune.runtime.cost_meter import StepTimer
from finetune.runtime.errors import InputError

Line = dict[str, float]
SPEEDS = ("seconds", "rows", "tokens")  # whose change since the last line gives the speed
COUNTS = ("steps", "clipped", *SPEEDS)


class LostError(InputError):
    """A run that diverged and may not, or can no longer, back off."""


class DivergedError(InputError):
    """Training diverged at this `step`, as when a loss is not finite, and cannot continue."""

    def __init__(self, problem: str, step: int, advice: str) -> None:
        super().__init__(problem)
        self.step, self.advice = step, advice

    @classmethod
    def at(cls, step: int, what: str, value: float) -> "DivergedError":
        return cls(
            f"step {step}: the {what} is not finite ({value})",
            step,
            "lower optim.lr, set optim.max_grad_norm=1.0 where it is off, or set "
            "train.on_divergence=back_off",
        )

    @classmethod
    def collapsed(cls, step: int, label: str) -> "DivergedError":
        return cls(
            f"step {step}: the model has collapsed: it predicts '{label}' for every validation "
            "document, with the same logits, and would not recover",
            step,
            "lower optim.lr, or set train.on_divergence=back_off",
        )

    def final(self, best: float | None, folder: Path, halved: int) -> LostError:
        """The error that ends the run: what to change, and where the best model is.

        Args:
            best: the step of the best model, which is in `folder`; None: there is none.
            halved: how often the rate was halved before.
        """
        advice = self.advice
        if halved:
            advice = f"the learning rate was already halved {halved} times; lower optim.lr"
        if best is None:
            kept = "no model was saved before that, as validation had not been scored yet"
        else:
            kept = f"the best model before that, from step {best:.0f}, is in {folder}"
        return LostError(f"{self}; {advice}; {kept}")


class TrainLog:
    """The running account of a training loop.

    Attributes:
        steps, rows, tokens: all that has been done, over all processes.
        clipped: the steps whose gradient was longer than the limit.
        seconds: spent in the loop, without the time `paused`.
        timer: which part of the steps took how much of it, since this process was started.
    """

    def __init__(self, accelerator: Accelerator, max_norm: float | None) -> None:
        self.accelerator, self.max_norm = accelerator, max_norm or math.inf
        self.steps = self.rows = self.tokens = self.clipped = 0
        self.seconds = 0.0
        self.timer = StepTimer(accelerator.device)
        self.start()
        self._begin_window()

    def _begin_window(self) -> None:
        device = self.accelerator.device
        # MPS has no float64; a window's sums are short enough for float32 there.
        exact = torch.float32 if device.type == "mps" else torch.float64
        self._sums = torch.zeros(2, dtype=exact, device=device)  # of losses, of their squares
        self._norms: list[torch.Tensor] = []  # of each step's gradient, before clipping: scalars
        self._before: tuple[float, ...] = (self.seconds, self.rows, self.tokens)

    def start(self) -> None:
        """The loop begins here, or goes on."""
        self._since = time.perf_counter()
        self.timer.start()

    def mark(self, part: str) -> None:
        """The time since the last mark went into this part of a step."""
        self.timer.end_part(part)

    def add(self, losses: torch.Tensor) -> None:
        """Losses of some rows, as this process computed them. (rows,)"""
        losses = losses.detach().to(self._sums.dtype)
        self._sums += torch.stack([losses.sum(), losses.square().sum()])

    def end_step(self, norm: torch.Tensor, rows: int, tokens: int) -> None:
        """A step's gradient norm before clipping, and its rows and tokens over all processes.

        Raises:
            DivergedError: on a CPU at once, elsewhere (where a look costs a sync) at the next line.
        """
        self.steps, self.rows, self.tokens = self.steps + 1, self.rows + rows, self.tokens + tokens
        self._norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if self.accelerator.device.type == "cpu":
            self._stop_if_not_finite()

    def line(self) -> Line:
        """The steps since the last line: mean loss with its standard error, norms, speed.

        Where fp16 skipped all of them, as it may the first few, there is no norm.

        A batch's mean loss is a Monte Carlo estimate of the true loss. Over the n rows since the
        last line, whose losses have the standard deviation s, it is sure to about s / sqrt(n).
        """
        self._stop_if_not_finite()
        total, squares = self.accelerator.reduce(self._sums).tolist()  # waits for the device
        # fp16 skips a step that overflows and lowers its scale; such a step has no norm.
        norms = [norm for norm in torch.stack(self._norms).tolist() if math.isfinite(norm)]
        if not math.isfinite(total) or (not norms and not self._seeks_scale()):
            raise DivergedError.at(self.steps, "mean loss", total)
        self.timer.read()
        self._clock()
        seconds, rows, tokens = (
            now - then
            for now, then in zip((self.seconds, self.rows, self.tokens), self._before, strict=True)
        )
        variance = max(0.0, squares - total * total / rows) / max(1, rows - 1)
        clipped = sum(norm > self.max_norm for norm in norms)
        skipped = len(self._norms) - len(norms)
        self.clipped += clipped
        self._begin_window()
        gradient = {}
        if norms:
            gradient = {"grad_norm": sum(norms) / len(norms), "clipped": clipped / len(norms)}
        return {
            "loss": total / rows,
            "loss_se": math.sqrt(variance / rows),
            **gradient,
            "skipped": skipped,
            "rows_per_second": rows / seconds,
            "tokens_per_second": tokens / seconds,
        }

    def state(self) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        """What a run must know to go on exactly: plain numbers, and this process's own sums.

        To be called while `paused`, when the clock is stopped.

        Raises:
            DivergedError: where a loss or a gradient was not finite: no state to go on from.
        """
        self._stop_if_not_finite()
        plain = {name: getattr(self, name) for name in COUNTS}
        plain |= {f"{name}_before": value for name, value in zip(SPEEDS, self._before, strict=True)}
        norms = torch.stack(self._norms) if self._norms else torch.zeros(0)
        return plain, {"sums": self._sums, "norms": norms}

    def load(self, plain: dict[str, float], tensors: dict[str, torch.Tensor]) -> None:
        """Go on from a `state`."""
        for name in COUNTS:
            setattr(self, name, plain[name])
        self._before = tuple(plain[f"{name}_before"] for name in SPEEDS)
        self._sums = tensors["sums"].to(self._sums)
        self._norms = list(tensors["norms"].to(self._sums.device))
        self._since = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is not the loop's own, such as scoring."""
        self._clock()
        yield
        self.start()

    def _clock(self) -> None:
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now

    def _seeks_scale(self) -> bool:
        """Whether fp16 may yet find a loss scale at which gradients are finite: it halves it at
        each step that overflows, and below 1 there is nothing left to gain."""
        scaler = self.accelerator.scaler
        return scaler is not None and scaler.is_enabled() and scaler.get_scale() >= 1

    def _stop_if_not_finite(self) -> None:
        scaler = self.accelerator.scaler
        if not self._norms or (scaler is not None and scaler.is_enabled()):
            return  # single steps that overflow are fp16's way; `line` looks at them together
        finite = torch.isfinite(torch.stack(self._norms))
        if finite.all():
            return
        first = int((~finite).nonzero()[0])
        step = self.steps - len(self._norms) + first + 1
        raise DivergedError.at(step, "loss or its gradient's norm", self._norms[first].item())
