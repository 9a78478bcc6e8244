"""Requests that ask which words spoke for an answer → their explanations, one request at a time.

An explanation takes some 25 times as long as its prediction. So a request may ask for few, and few
requests may wait; predictions are computed meanwhile. What nobody waits for any more is given up.
"""

import asyncio
import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from finetune.inference.classifier import Classifier
from finetune.inference.explanation import add_explanations, check_explainable
from finetune.inference.records import Record
from finetune.inference.request_batcher import Computed
from finetune.inference.request_error import RequestError
from finetune.runtime.errors import InputError
from finetune.runtime.wording import count_of

MOST_ROWS, MOST_TOKENS = 16, 8192  # of a request
MOST_REQUESTS = 4  # that wait or are explained
RETRY = 5  # seconds


class ExplanationQueue:
    """Explains predictions that were computed."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._explainer = ThreadPoolExecutor(1, "explain")
        self._room = threading.Semaphore(MOST_REQUESTS)

    def close(self) -> None:
        """Finish what was taken, and take no more."""
        self._explainer.shutdown()

    def check(self, records: Sequence[Record]) -> None:
        """
        Raises:
            RequestError: where the engine explains nothing, or for too many rows.
        """
        try:
            check_explainable(self._classifier, "explain")
        except InputError as error:
            raise RequestError(422, str(error)) from None
        if len(records) > MOST_ROWS:
            raise RequestError(
                413,
                f"explain: expected at most {count_of(MOST_ROWS, 'row')}, got {len(records):,}; "
                "send them in several requests",
            )

    async def explain(
        self,
        records: Sequence[Record],
        found: Computed,
        decided: Sequence[dict[str, Any]],
        count: int,
    ) -> list[dict[str, Any]]:
        """The predictions with their explanations.

        Args:
            found: what was computed of the records.
            decided: the prediction of each.
            count: words of each label.

        Raises:
            RequestError: for too many tokens, where too many requests wait, or out of memory.
        """
        tokens = int(found.table.lengths.sum())
        if tokens > MOST_TOKENS:
            raise RequestError(
                413,
                f"explain: expected at most {MOST_TOKENS:,} tokens in all rows together, got "
                f"{tokens:,}; send them in several requests, or shorter ones",
            )
        if not self._room.acquire(blocking=False):
            raise RequestError(
                429,
                f"explain: {MOST_REQUESTS} requests wait already; try again in {RETRY} s",
                retry_after=RETRY,
            )

        is_given_up = threading.Event()

        def add() -> list[dict[str, Any]]:
            explained: list[dict[str, Any]] = []
            rows = iter(range(len(found.table)))
            for record, one in zip(records, decided, strict=True):
                if is_given_up.is_set():  # between two documents: nothing stops one
                    break
                row = np.array([*itertools.islice(rows, record.error is None)], dtype=np.int64)
                logits = None if found.logits is None else found.logits[row]
                known = (self._classifier, [record], found.table.take(row), logits, [one])
                explained += add_explanations(*known, count)
            return explained

        try:
            future = self._explainer.submit(add)
        except RuntimeError:  # closed
            self._room.release()
            raise RequestError(503, "the server stops; ask another", "unhealthy") from None
        future.add_done_callback(lambda _: self._room.release())
        try:
            return await asyncio.wrap_future(future)
        except InputError as error:
            raise RequestError(424, str(error)) from None
        finally:
            is_given_up.set()
