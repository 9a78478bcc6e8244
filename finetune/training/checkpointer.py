"""Checkpoints of a run: when one is due, what it holds, and how a run goes on from it.

A checkpoint is copied between two steps, and written by a thread during those that follow. One is
written at a time. What its writing raised is raised after the next step, or where the run ends,
goes back or writes the next: all of these wait for it.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune.config.schema import Recipe
from finetune.runtime.background_call import BackgroundCall
from finetune.runtime.console import print_line
from finetune.runtime.environment import library_versions
from finetune.runtime.errors import InputError
from finetune.runtime.held_tensors import hold_tensors
from finetune.training import checkpoint, run_folder, run_identity, train_state
from finetune.training.event_log import EventLog
from finetune.training.run_environment import RunEnvironment
from finetune.training.run_state import RunState
from finetune.training.stages import StageParts
from finetune.training.stop_consensus import StopConsensus
from finetune.training.train_log import TrainLog


class Checkpointer:
    """Writes a run's checkpoints and takes it up from them.

    Attributes:
        identity: what must be the same for a checkpoint to belong to this run.
    """

    def __init__(
        self,
        recipe: Recipe,
        env: RunEnvironment,
        folder: Path,
        state: RunState,
        events: EventLog,
        identity: Mapping[str, Any],
    ) -> None:
        self.recipe, self.env, self.folder = recipe, env, folder
        self.state, self.events, self.identity = state, events, identity
        self.stopping = StopConsensus(env.accelerator, env.listener)
        self._writing = BackgroundCall("checkpoint")  # on the main process
        self.restart_clock()

    def restart_clock(self) -> None:
        """`checkpoint.minutes` counts from here."""
        self._saved_at = time.monotonic()

    def is_due(self, step: int, *, scored: bool, last: bool) -> tuple[int, bool]:
        """The signal on which all processes stop now, or 0; and whether all write a checkpoint.

        Args:
            scored: whether validation was scored after this step.
            last: whether this was the run's last step.
        """
        settings = self.recipe.checkpoint
        age = time.monotonic() - self._saved_at
        is_old = settings.minutes is not None and age > 60 * settings.minutes
        # Where a writing has failed, the next one is due at once: it raises why.
        wanted = (is_old and self.env.accelerator.is_main_process) or self._writing.has_failed()
        signal, due = self.stopping.agreed(wanted, last)
        if settings.every != "never":
            due |= scored if settings.every == "evaluation" else step % int(settings.every) == 0
        # From that of the last step, the outputs are made anew where one is missing. It also serves
        # a run that is made longer.
        return signal, due or last or signal != 0

    def save(self, parts: StageParts, log: TrainLog) -> None:
        """Begin to write a checkpoint of the steps done. All processes call this.

        Raises:
            DivergedError: where a loss or gradient was not finite, which no checkpoint may hold.
            InputError: where this one cannot be begun, or the one before could not be written;
                those before stay.
        """
        self.wait()
        accelerator, step = self.env.accelerator, log.steps
        tensors, plain = train_state.capture(
            parts.model, parts.optimizer, log, accelerator, self.state.trained
        )

        def begin() -> None:
            about = {
                "identity": self.identity,
                "state": self.state.to_json(),
                "metrics_bytes": self.events.synced_size(),
                "num_processes": accelerator.num_processes,
                "sharded": accelerator.is_fsdp2,
                "versions": library_versions(),
            }
            best = checkpoint.hold_best(self.folder, step)
            # Those after it may hold a run that is lost already.
            spare = self.state.sound if self.recipe.train.on_divergence == "back_off" else None
            held = hold_tensors(tensors)

            def write() -> None:
                state = held() if held is not None else train_state.on_host(tensors)
                checkpoint.write_checkpoint(self.folder, step, state, about | plain, best)
                checkpoint.drop_old(self.folder, keep=self.recipe.checkpoint.keep, spare=spare)

            self._writing.start(write)
            if held is None:  # no room for a copy: training waits
                self._writing.wait()

        self.env.on_main(begin)
        self.restart_clock()

    def wait(self) -> None:
        """Return when what was begun is written. All processes call this.

        Raises:
            InputError: where it could not be written; the checkpoints before stay.
        """
        self.env.on_main(self._writing.wait)

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """It is left when what was begun is written, whatever ends the run.

        Raises:
            InputError: as `wait` does, where nothing else ended the run.
        """
        try:
            yield
        except BaseException:
            try:  # without the other processes, which may be elsewhere
                self._writing.wait()
            except InputError as problem:
                print_line(f"  ! {problem}")
            raise
        self.wait()

    def restore(self, point: Path, parts: StageParts, log: TrainLog) -> list[str]:
        """Put a checkpoint's state back, and the run's files to where they were then.

        Returns what a person should know of what changed since. All processes call this.

        Raises:
            InputError: where the checkpoint is damaged, or is of another recipe, data or model.
        """
        self.wait()
        accelerator = self.env.accelerator

        def prepare() -> tuple[dict[str, Any], list[str]]:
            plain = self.env.checkpoints.read(point)
            notes = run_identity.compare_identities(
                plain["identity"], self.identity, point, rates_found=True
            )
            notes += self._changes_since(plain)
            run_folder.reopen_folder(self.folder)  # first: what is left may never look finished
            checkpoint.drop_after(self.folder, checkpoint.step_of(point))
            checkpoint.restore_best(point, self.folder)
            if not self.events.truncate(plain["metrics_bytes"]):
                notes.append("metrics.jsonl lacks lines from before: it was changed or removed")
            return plain["state"], notes

        values, notes = self.env.on_main(prepare)
        self.state.load(values)
        is_main = accelerator.is_main_process
        plain = self.env.checkpoints.read(point) if is_main else {}
        tensors = self.env.checkpoints.read_tensors(point) if is_main else {}
        train_state.restore(
            parts.model, parts.optimizer, log, accelerator, self.state.trained, tensors, plain
        )
        self.env.checkpoints.forget()
        self.restart_clock()
        return notes

    def good_checkpoints(self) -> list[Path]:
        """The checkpoints from when the run was sound, the newest first."""
        return [
            point
            for point in checkpoint.list_checkpoints(self.folder)
            if checkpoint.step_of(point) <= self.state.sound
        ]

    def newest_good(self, error: InputError) -> Path:
        """The newest whole checkpoint from when the run was sound, before the error.

        Raises:
            InputError: where there is none.
        """
        self._writing.wait()
        for point in self.good_checkpoints():
            try:
                self.env.checkpoints.read(point)
            except InputError as damage:
                print_line(f"  ! {damage}")
                continue
            return point
        raise InputError(f"{error}; {self.folder} has no good checkpoint to go back to")

    def _changes_since(self, plain: checkpoint.Plain) -> list[str]:
        """What differs between the processes and libraries that wrote a checkpoint and these."""
        accelerator, notes = self.env.accelerator, []
        then, now = plain["num_processes"], accelerator.num_processes
        if then != now:
            notes.append(
                f"{then} process{'es' * (then > 1)} trained until here, {now} from here on: floats "
                "are added in another order, and dropout draws anew"
            )
        if plain["sharded"] != accelerator.is_fsdp2:
            place = "sharded over" if accelerator.is_fsdp2 else "whole on each of"
            notes.append(
                f"the weights are {place} the processes from here on: floats are added in another "
                "order"
            )
        for name, version in library_versions().items():
            if plain["versions"].get(name) != version:
                notes.append(f"{name} was {plain['versions'].get(name)}, and is {version}")
        return notes
