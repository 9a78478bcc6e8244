"""Requests of many clients → batches by token budget, with a bounded wait and a bounded queue.

    batcher = RequestBatcher(classifier, QueueLimits())
    future = batcher.submit(records)      # raises QueueFullError where too much waits already
    future.result().logits                # (valid rows, classes); None where no row is valid
    batcher.close()                       # finishes what it has

One thread tokenizes, all that waits in one call, so that the budget is of real tokens; another
takes as many requests, in their order, as fit into the budget, and computes them in one call of the
engine. A batch starts when it is full, or when its oldest request has waited for `wait`. A request
that is cancelled while it waits leaves the queue at once, with its memory. Where a call fails, for
tokens or for logits, each of its requests is tried alone.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from finetune.inference.classifier import Classifier
from finetune.inference.engine import Logits
from finetune.inference.records import Record
from finetune.tokenization import token_table
from finetune.tokenization.token_table import TokenTable

LONGEST_RETRY = 60  # seconds that a client is told to wait
SMOOTHING = 0.2  # weight of the last batch in the measured rate
ENCODED_CHARACTERS = 100_000  # of requests that are tokenized together: nobody waits for long


@dataclass(frozen=True)
class QueueLimits:
    """What is held and computed at once.

    Attributes:
        rows: that wait or are computed; a request beyond is refused, unless it is alone.
        characters: the same of their texts, which bounds memory.
        tokens: of a batch; a request with more is a batch of its own. None: as many as the engine
            computes at once.
        wait: seconds that the oldest request of a batch waits for others.
    """

    rows: int = 2048
    characters: int = 32_000_000
    tokens: int | None = None
    wait: float = 0.005


@dataclass(frozen=True)
class Computed:
    """What became of a request's rows.

    Attributes:
        table: the tokens of the rows without an error.
        outputs: the engine's, of these; None: there is none. (valid rows, classes + hidden)
        classes: the columns of logits in it.
    """

    table: TokenTable
    outputs: Logits | None
    classes: int = 0

    @property
    def logits(self) -> Logits | None:
        """Of these rows. (valid rows, classes)"""
        return None if self.outputs is None else self.outputs[:, : self.classes]


@dataclass(frozen=True)
class Batch:
    """What was computed at once, for whoever counts it."""

    requests: int
    rows: int
    tokens: int
    seconds: float


class QueueFullError(Exception):
    """Too much waits already. `retry_after`: seconds until there is probably room."""

    def __init__(self, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(f"the queue is full; try again in {retry_after} s")


class ClosingError(Exception):
    """The server stops: it finishes what it has, and takes no more."""


@dataclass(eq=False)
class _Request:
    rows: Sequence[Record]
    characters: int
    future: "Future[Computed]"
    table: TokenTable | None = None
    tokens: int = 0
    since: float = 0.0


class RequestBatcher:
    """Computes the requests of many threads.

    Args:
        observe: is told of each batch, by the thread that computed it.
        deliver: is given what answers the requests of a batch, and calls it, perhaps in another
            thread and later.
    """

    def __init__(
        self,
        classifier: Classifier,
        limits: QueueLimits,
        observe: Callable[[Batch], None] = lambda batch: None,
        deliver: Callable[[Callable[[], None]], None] = lambda answer: answer(),
    ) -> None:
        self._classifier, self._limits, self._observe = classifier, limits, observe
        self._deliver = deliver
        engine = classifier.engine
        self._budget = limits.tokens or engine.budget * engine.workers
        self._changed = threading.Condition()
        self._arrived: deque[_Request] = deque()
        self._queue: deque[_Request] = deque()  # of tokens
        self._queued_tokens = 0
        self._held_rows = self._held_characters = 0
        self._rate = 0.0  # rows a second
        self._closing = self._is_encoding = self._is_encoded = False
        self._encoder = ThreadPoolExecutor(1, "tokenize")
        self._computer = threading.Thread(target=self._run, name="compute", daemon=True)
        self._computer.start()

    @property
    def held_rows(self) -> int:
        """Rows that wait or are computed."""
        return self._held_rows

    def submit(self, rows: Sequence[Record]) -> "Future[Computed]":
        """Have rows computed. Cancelling the future removes those that are not yet.

        Raises:
            QueueFullError: where too much waits.
            ClosingError: after `close`.
        """
        request = _Request(rows, sum(len(text) for row in rows for text in row.texts), Future())
        with self._changed:
            if self._closing:
                raise ClosingError
            all_rows = self._held_rows + len(rows)
            characters = self._held_characters + request.characters
            is_full = all_rows > self._limits.rows or characters > self._limits.characters
            if self._held_rows and is_full:
                raise QueueFullError(self._estimate_wait())
            self._held_rows, self._held_characters = all_rows, characters
            request.future.add_done_callback(lambda future: self._release(request))
            self._arrived.append(request)
            if not self._is_encoding:
                self._is_encoding = True
                self._encoder.submit(self._encode_arrived)
        return request.future

    def close(self) -> None:
        """Take no more requests, and return when all that were taken are done."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._encoder.shutdown()
        with self._changed:
            self._is_encoded = True
            self._changed.notify_all()
        self._computer.join()

    def _estimate_wait(self) -> int:
        """Whole seconds until half of what waits is computed, at the rate so far."""
        if not self._rate:
            return 1
        return max(1, min(LONGEST_RETRY, math.ceil(self._held_rows / 2 / self._rate)))

    def _release(self, request: _Request) -> None:
        """Forget a request that is done or was cancelled, wherever it is."""
        with self._changed:
            self._held_rows -= len(request.rows)
            self._held_characters -= request.characters
            if request in self._queue:
                self._queue.remove(request)
                self._queued_tokens -= request.tokens
                self._changed.notify_all()
            request.rows, request.table = (), None

    def _encode_arrived(self) -> None:
        """Tokenize and queue requests until none is left."""
        while requests := self._take_arrived():
            self._encode(requests)

    def _take_arrived(self) -> list[_Request]:
        """The oldest that are not tokenized, as many as are tokenized together."""
        with self._changed:
            taken: list[_Request] = []
            characters = 0
            while self._arrived:
                characters += self._arrived[0].characters
                if taken and characters > ENCODED_CHARACTERS:
                    break
                taken.append(self._arrived.popleft())
            self._is_encoding = bool(taken)
            return taken

    def _encode(self, requests: Sequence[_Request]) -> None:
        # The rows before the question: a request that is cancelled loses them.
        known = [(one, one.rows) for one in requests]
        waiting = [(one, rows) for one, rows in known if not one.future.cancelled()]
        if not waiting:
            return
        try:
            table = self._classifier.encode([row for _, rows in waiting for row in rows])
        except BaseException as error:  # a panic of the tokenizer's library is no `Exception`
            if len(requests) > 1:
                for one in requests:
                    self._encode([one])
            elif requests[0].future.set_running_or_notify_cancel():
                known_kind = isinstance(error, Exception)
                requests[0].future.set_exception(
                    error if known_kind else RuntimeError(type(error).__name__)
                )
            return
        end = 0
        for request, rows in waiting:
            begin, end = end, end + sum(row.error is None for row in rows)
            self._queue_tokens(request, table.between(begin, end))

    def _queue_tokens(self, request: _Request, table: TokenTable) -> None:
        if not len(table):
            if request.future.set_running_or_notify_cancel():
                request.future.set_result(Computed(table, None))
            return
        with self._changed:
            if request.future.cancelled():
                return
            request.table, request.tokens = table, int(table.lengths.sum())
            request.since = time.monotonic()
            self._queue.append(request)
            self._queued_tokens += request.tokens
            self._changed.notify_all()

    def _run(self) -> None:
        while requests := self._next_batch():
            running = [one for one in requests if one.future.set_running_or_notify_cancel()]
            if running:
                self._compute(running)

    def _next_batch(self) -> list[_Request]:
        """The oldest requests, as many as fit into the budget; none: all is done."""
        with self._changed:
            while not self._queue or not self._is_due():
                if not self._queue and self._is_encoded:
                    return []
                self._changed.wait(self._remaining_wait() if self._queue else None)
            batch = [self._queue.popleft()]
            tokens = batch[0].tokens
            while self._queue and tokens + self._queue[0].tokens <= self._budget:
                tokens += self._queue[0].tokens
                batch.append(self._queue.popleft())
            self._queued_tokens -= tokens
            return batch

    def _is_due(self) -> bool:
        full = self._queued_tokens >= self._budget
        return full or self._closing or self._remaining_wait() <= 0

    def _remaining_wait(self) -> float:
        return self._queue[0].since + self._limits.wait - time.monotonic()

    def _compute(self, requests: Sequence[_Request]) -> None:
        began = time.perf_counter()
        tables = [one.table for one in requests if one.table is not None]
        try:
            outputs = self._classifier.compute(token_table.concatenate(tables))
        except Exception as error:
            if len(requests) == 1:
                self._deliver(partial(requests[0].future.set_exception, error))
                return
            for request in requests:
                self._compute([request])
            return
        seconds, classes = time.perf_counter() - began, len(self._classifier.labels)
        rate = len(outputs) / max(seconds, 1e-9)
        self._rate = rate if not self._rate else self._rate + SMOOTHING * (rate - self._rate)
        tokens = sum(one.tokens for one in requests)
        self._observe(Batch(len(requests), len(outputs), tokens, seconds))
        self._deliver(partial(_answer, requests, tables, outputs, classes))


def _answer(
    requests: Sequence[_Request], tables: Sequence[TokenTable], outputs: Logits, classes: int
) -> None:
    """Give each request its part of the outputs."""
    start = 0
    for request, table in zip(requests, tables, strict=True):
        request.future.set_result(Computed(table, outputs[start : start + len(table)], classes))
        start += len(table)
