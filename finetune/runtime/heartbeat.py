"""Signs of life of the processes of a run, outside their collectives.

    heartbeat.start(10, remedy)    # after the processes have joined; all call it
    heartbeat.note("score")        # what this process is doing, for the others' message

A process that waits for another in a collective cannot tell one that is slow from one that is gone.
So each has a thread that says every few seconds that it lives, through a connection of its own to
the store where the processes met. The thread goes on while the process computes, downloads or
waits, for however long: slow is never hung. It stops where the process is stopped, swapped out for
good or killed, or where its machine or network fails. After `minutes` without a sign, the others
say which one it is, what it was doing last, and end.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch.distributed as dist

from finetune.runtime import console

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

Result = TypeVar("Result")

MINUTES = 10.0  # of silence, where no recipe says otherwise
PERIOD = 2.0  # seconds between two signs, at most
SIGNS = 10  # in the time after which a process counts as hung, at least
RESUME = (
    "go on from the last checkpoint with run.resume=auto. run.hang_minutes sets how long they wait"
)
KEY, ERRORS = "finetune/heartbeat", "finetune/errors"
NAMED = 8  # processes whose activity a note has
EXIT_CODE = 1  # as where another process of the run was killed
STORE_SECONDS = 5.0  # for a last word to the store, which may have gone itself


@dataclass
class Peer:
    """What is known of another process.

    Attributes:
        beat: the number of its last sign; None before the first.
        silent: seconds since, as far as this process was awake itself.
        last: what it said then: host, process, activity.
        done: whether it has ended well.
    """

    beat: int | None = None
    silent: float = 0.0
    last: Mapping[str, Any] = field(default_factory=dict)
    done: bool = False


class Heartbeat:
    """The signs of life that one process gives and looks at.

    Args:
        store: a connection to the run's store that nothing else uses: its calls may block.
        minutes: of silence after which a process counts as hung.
        remedy: what to do then, for the message.
        end: what is done then, with the message; by default it is printed and the process ends.
    """

    def __init__(
        self,
        store: "Store",
        rank: int,
        world: int,
        minutes: float,
        remedy: str = RESUME,
        end: Callable[[str], None] | None = None,
    ) -> None:
        self.store, self.rank, self.minutes, self._remedy = store, rank, minutes, remedy
        self._end = end or self._print_and_exit
        self._period = min(PERIOD, 60 * minutes / SIGNS)
        self._peers = {other: Peer() for other in range(world) if other != rank}
        self._activity, self._since, self._step = "prepare", time.monotonic(), 0
        self._stopped = threading.Event()
        self._answered = 0.0  # seconds since the store last answered
        self._noted_after = 60 * minutes  # seconds without progress of anyone: a note, then twice
        self._lock = threading.Lock()
        for run in (self._speak, self._watch):
            threading.Thread(target=run, name=f"heartbeat {run.__name__}", daemon=True).start()

    def note(self, activity: str, step: int | None = None) -> None:
        """Say what this process is doing now, and how many steps are done."""
        self._activity, self._since = activity, time.monotonic()
        self._step = self._step if step is None else step

    def stop(self) -> None:
        """This process is done, and the others need not wait for a sign of it any more."""
        if not self._stopped.is_set():
            self._stopped.set()
            done = json.dumps({"done": True})

            def say() -> None:
                with self._lock:
                    self.store.set(f"{KEY}/{self.rank}", done)

            _within_seconds(say)

    # --- its threads ------------------------------------------------------------------------------

    def _speak(self) -> None:
        """Give a sign and hear those of the others, until the end."""
        beat, keys = 0, {other: f"{KEY}/{other}" for other in self._peers}
        while not self._stopped.wait(self._period if beat else 0.0):
            beat += 1
            try:
                with self._lock:
                    if self._stopped.is_set():
                        return
                    self.store.set(f"{KEY}/{self.rank}", json.dumps(self._sign(beat)))
                for other, key in keys.items():
                    if self.store.check([key]):
                        self._hear(self._peers[other], json.loads(self.store.get(key)))
            except RuntimeError:  # of the connection: that it stays away is seen by `_watch`
                continue
            self._answered = 0.0

    def _sign(self, beat: int) -> dict[str, Any]:
        return {
            "beat": beat,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "activity": self._activity,
            "step": self._step,
            "seconds": time.monotonic() - self._since,
        }

    def _hear(self, peer: Peer, said: Mapping[str, Any]) -> None:
        peer.done = bool(said.get("done"))
        if not peer.done and said["beat"] != peer.beat:
            peer.beat, peer.last, peer.silent = said["beat"], said, 0.0

    def _watch(self) -> None:
        """Count how long each process has been silent. A pause of this one counts for nobody."""
        before = time.monotonic()
        while not self._stopped.wait(self._period):
            now = time.monotonic()
            passed, before = min(now - before, 2 * self._period), now
            self._answered += passed
            for peer in self._peers.values():
                peer.silent += passed
            hung = self.describe_hung()
            if hung is not None:
                self._end(hung)
                return
            self._note_standstill()

    # --- what it says -----------------------------------------------------------------------------

    def describe_hung(self) -> str | None:
        """Which processes have given no sign for too long; None where all have."""
        limit = 60 * self.minutes
        if self._answered > limit:  # nothing was heard of anyone
            return self._message(
                "the process that holds the store of this run (the launcher on the first machine, "
                f"or rank 0) has not answered for {_minutes(self._answered)}"
            )
        silent = {
            rank: peer
            for rank, peer in self._peers.items()
            if peer.silent > limit and not peer.done
        }
        if not silent:
            return None
        return self._message("; ".join(_describe(rank, peer) for rank, peer in silent.items()))

    def _message(self, who: str) -> str:
        return (
            f"error: {who}. It was stopped or killed, or its machine or network failed; the others "
            f"have waited for it, and end. See what happened there, then {self._remedy}"
        )

    def _note_standstill(self) -> None:
        """Of processes that all live: after long, rank 0 says what each is doing, and waits on."""
        others = [peer for peer in self._peers.values() if not peer.done]
        if self.rank != 0 or any(peer.silent > 3 * self._period for peer in others):
            return
        still = [float(peer.last.get("seconds", 0.0)) for peer in others]
        shortest = min([time.monotonic() - self._since, *still])
        if shortest < self._noted_after:
            if shortest < 60 * self.minutes:  # something has changed
                self._noted_after = 60 * self.minutes
            return
        self._noted_after *= 2
        signs = {0: self._sign(0)} | {rank: peer.last for rank, peer in self._peers.items()}
        each = [
            f"rank {rank} is at {said['activity']} after step {said['step']:,}"
            for rank, said in [*signs.items()][:NAMED]
            if said
        ]
        console.print_error(
            f"note: nothing has changed for {_minutes(shortest)}, and all processes answer: "
            f"{'; '.join(each)}. The run goes on waiting"
        )

    def _print_and_exit(self, message: str) -> None:
        """Say it once for all processes, and end this one, whose main thread waits for ever."""
        if self.is_first_to_report():
            console.print_error(message)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_CODE)

    def is_first_to_report(self) -> bool:
        """Whether no other process of the run has reported an error, as far as can be known."""
        number = _within_seconds(lambda: self.store.add(ERRORS, 1))
        return number in (None, 1)

    def describe_gone(self) -> str | None:
        """Which processes of this machine are not there any more; None where all are."""
        gone = [
            f"rank {rank}{_place(peer)}{_last(peer)}"
            for rank, peer in self._peers.items()
            if not peer.done
            and peer.last.get("host") == socket.gethostname()
            and not _is_there(peer.last["process"])
        ]
        return "; ".join(gone) or None


def _within_seconds(call: Callable[[], Result]) -> Result | None:
    """The result of a call to the store; None where that is gone, or does not answer in time."""
    results: list[Result] = []

    def ask() -> None:
        with suppress(RuntimeError):
            results.append(call())

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(STORE_SECONDS)
    return results[0] if results else None


def _is_there(process: int) -> bool:
    """Whether a process of this machine lives; one that was killed stays a while as a zombie."""
    try:
        os.kill(process, 0)
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except ProcessLookupError:
        return False
    except OSError:  # another user's, or a system without /proc
        return True
    return status.rpartition(")")[2].split()[0] not in "ZX"


def _describe(rank: int, peer: Peer) -> str:
    since = datetime.now() - timedelta(seconds=peer.silent)
    return (
        f"rank {rank}{_place(peer)} has given no sign of life for {_minutes(peer.silent)}, since "
        f"{since:%H:%M:%S}{_last(peer)}"
    )


def _place(peer: Peer) -> str:
    said = peer.last
    return f" (process {said['process']} on {said['host']})" if said else ""


def _last(peer: Peer) -> str:
    said = peer.last
    return f", last at {said['activity']} after step {said['step']:,}" if said else ""


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


# --- the one of this process ----------------------------------------------------------------------

_current: Heartbeat | None = None


def start(minutes: float | None, remedy: str) -> None:
    """Give and watch signs of life, where this process is one of several. All call this.

    Args:
        minutes: None: no process is ever given up.
        remedy: what to do after the others have ended.
    """
    global _current
    if _current is not None and _current.minutes == minutes:
        return  # another run of the same processes
    stop()
    if minutes is None or not dist.is_initialized() or dist.get_world_size() == 1:
        return
    store = _connect(dist.distributed_c10d._get_default_store())
    if store is None:
        return
    _current = Heartbeat(store, dist.get_rank(), dist.get_world_size(), minutes, remedy)


def note(activity: str, step: int | None = None) -> None:
    """Say what this process is doing now, and how many steps are done."""
    if _current is not None:
        _current.note(activity, step)


def stop() -> None:
    """This process has ended well, or begins anew."""
    global _current
    if _current is not None:
        _current.stop()
        _current = None


def current() -> Heartbeat | None:
    """The heartbeat of this process; None where it is alone."""
    return _current


def _connect(store: "Store") -> "Store | None":
    """A connection of its own: calls of one connection wait for each other, some for ever.

    None where the processes met otherwise than over TCP, as no launcher has them do.
    """
    from torch._C._distributed_c10d import PrefixStore, TCPStore  # not in every build of torch

    while isinstance(store, PrefixStore):
        store = store.underlying_store
    if not isinstance(store, TCPStore):
        return None
    return TCPStore(store.host, store.port, is_master=False, wait_for_workers=False)
