"""Requests in the words of HTTP → documents, their logits, and answers; what is refused, and why.

    service = ClassifierService(classifier, ServerLimits())
    await service.classify(ClassifyRequest(inputs=["a text"]))    # {"predictions": [{…}]}

What is wrong with one document of a list is that document's `error` in `/v1/classify`; `/predict`
has no place for it, and refuses the request.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from finetune import __version__
from finetune.inference.classifier import Classifier
from finetune.inference.decision import DIGITS
from finetune.inference.documents import DocumentReader
from finetune.inference.explanation_queue import ExplanationQueue
from finetune.inference.loaded_classifier import NOT_FINITE
from finetune.inference.records import Record
from finetune.inference.request_batcher import (
    ClosingError,
    Computed,
    QueueFullError,
    QueueLimits,
    RequestBatcher,
)
from finetune.inference.request_error import RequestError
from finetune.inference.server_metrics import ServerMetrics
from finetune.inference.server_models import ClassifyRequest, Info, PredictRequest
from finetune.runtime.errors import InputError, shorten
from finetune.runtime.wording import count_of


@dataclass(frozen=True)
class ServerLimits:
    """What a request may ask for, and what waits at once.

    Attributes:
        rows: of a request.
        characters: of a text.
    """

    rows: int = 256
    characters: int = 200_000
    queue: QueueLimits = field(default_factory=QueueLimits)


class ClassifierService:
    """Reads the documents of requests, and has them computed.

    Attributes:
        metrics: what it counts.
    """

    def __init__(self, classifier: Classifier, limits: ServerLimits) -> None:
        self.classifier, self.limits = classifier, limits
        self.metrics = ServerMetrics(lambda: self._batcher.held_rows)
        self._loop: asyncio.AbstractEventLoop | None = None  # where requests wait
        self._batcher = RequestBatcher(
            classifier, limits.queue, self.metrics.count_batch, self._deliver
        )
        self._explanations = ExplanationQueue(classifier)

    def close(self) -> None:
        """Finish what was taken, and take no more."""
        self._batcher.close()
        self._explanations.close()

    def _deliver(self, answer: Callable[[], None]) -> None:
        """Answer the requests of a batch where they wait: to wake it for each would be slow."""
        if self._loop is None or self._loop.is_closed():
            answer()
        else:
            self._loop.call_soon_threadsafe(answer)

    def read(self, rows: Sequence[Any]) -> list[Record]:
        """The records of a request's rows, each with its error.

        Raises:
            RequestError: for no row, or too many.
        """
        if not rows:
            raise RequestError(422, "inputs: expected one document or more, got none")
        if len(rows) > self.limits.rows:
            raise RequestError(
                413,
                f"inputs: expected at most {count_of(self.limits.rows, 'row')}, got {len(rows):,}; "
                "send them in several requests",
            )
        reader = DocumentReader(self.classifier.reading, name="inputs", unit="row")
        read = (reader.read_one(number, row) for number, row in enumerate(rows, start=1))
        return [self._limit_length(number, row) for number, row in enumerate(read, start=1)]

    def _limit_length(self, number: int, record: Record) -> Record:
        longest = max(map(len, record.texts), default=0)
        if longest <= self.limits.characters:
            return record
        error = (
            f"inputs: row {number}: expected at most {self.limits.characters:,} characters in a "
            f"text, got {longest:,}"
        )
        return Record((), record.beside, error)

    async def compute(self, records: Sequence[Record]) -> Computed:
        """The logits of the records without an error.

        Raises:
            RequestError: where too much waits, the server stops, or the engine fails.
        """
        self._loop = asyncio.get_running_loop()
        self.metrics.count_rows(len(records), sum(row.error is not None for row in records))
        try:
            return await asyncio.wrap_future(self._batcher.submit(records))
        except QueueFullError as error:
            raise RequestError(429, str(error), retry_after=error.retry_after) from None
        except ClosingError:
            raise RequestError(503, "the server stops; ask another", "unhealthy") from None
        except InputError as error:  # of the engine: out of memory
            raise RequestError(424, str(error)) from None

    def refuse_wrong(self, records: Sequence[Record]) -> None:
        """
        Raises:
            RequestError: where one of the records has an error, with all of them.
        """
        errors = [row.error for row in records if row.error is not None]
        if errors:
            is_long = all("characters in a text" in error for error in errors)
            raise RequestError(413 if is_long else 422, shorten(errors))

    async def predict(self, request: PredictRequest) -> Any:
        """As text-embeddings-inference answers."""
        rows, is_batch = split_predict_inputs(request.inputs)
        if not is_batch:
            self._refuse_list_of_documents(rows[0])
        records = self.read(rows)
        self.refuse_wrong(records)
        found = await self.compute(records)
        assert found.logits is not None
        cut = np.flatnonzero(found.table.lost_tokens)
        if request.truncate is False and len(cut):
            row = int(cut[0])
            raise RequestError(
                422,
                f"inputs: row {row + 1} has {found.table.full[row]:,} tokens, and the model reads "
                f"{found.table.full[row] - found.table.lost_tokens[row]:,} of them; send a shorter "
                "text, or truncate: true",
                "tokenizer",
            )
        if not np.isfinite(found.logits).all():
            raise RequestError(424, NOT_FINITE)
        scores: Any = found.logits
        if not request.raw_scores:
            scores = self.classifier.rules.probabilities(found.logits).round(DIGITS)
        ranked = [self._rank(row) for row in scores.tolist()]
        return ranked if is_batch else ranked[0]

    def _refuse_list_of_documents(self, row: Any) -> None:
        """
        Raises:
            RequestError: for a list of texts that are no single document's.
        """
        columns = count_of(len(self.classifier.columns), "column")
        if isinstance(row, list) and len(row) != len(self.classifier.columns):
            raise RequestError(
                422,
                f"inputs: a list of texts is one document, with a text for each column: the model "
                f'reads {columns}, got {count_of(len(row), "text")}; send a batch as [["one"], '
                '["two"]], or a list of documents to /v1/classify',
            )

    def _rank(self, scores: Sequence[float]) -> list[dict[str, Any]]:
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        return [{"score": scores[i], "label": self.classifier.labels[i]} for i in order]

    def _refuse_labels_of_numbers(self, request: ClassifyRequest) -> None:
        """
        Raises:
            RequestError: where a model of numbers is asked for what only labels have.
        """
        rules = self.classifier.rules
        try:
            if request.probabilities:
                rules.refuse_number("probabilities", "has none")
            if request.explain:
                rules.refuse_number("explain", "explains none yet")
        except InputError as error:
            raise RequestError(422, str(error)) from None

    async def classify(self, request: ClassifyRequest) -> dict[str, Any]:
        """A prediction for each document, as the model decides."""
        self._refuse_labels_of_numbers(request)
        is_list = isinstance(request.inputs, list)
        records = self.read(request.inputs if is_list else [request.inputs])
        if not is_list:
            self.refuse_wrong(records)
        if request.explain:
            self._explanations.check(records)
        found = await self.compute(records)
        decided = self.classifier.decide(records, found.outputs, request.probabilities)
        if request.explain:
            decided = iter(
                await self._explanations.explain(records, found, [*decided], request.explain)
            )
        table = found.table
        windows = np.ones(len(table), int) if table.first is None else np.diff(table.first)
        read = table.full - table.lost_tokens
        seen = zip(table.full.tolist(), read.tolist(), windows.tolist(), strict=True)
        return {
            "predictions": [
                one
                if record.error is not None
                else one | dict(zip(("tokens", "tokens_read", "windows"), next(seen), strict=True))
                for record, one in zip(records, decided, strict=True)
            ]
        }

    def describe(self, name: str, most_bytes: int) -> dict[str, Any]:
        """The model, and the limits."""
        rules, reading = self.classifier.rules, self.classifier.reading
        names = {str(index): label for index, label in enumerate(rules.labels)}
        by_label = {label: int(index) for index, label in names.items()}
        thresholds = rules.thresholds
        return Info(
            model_id=name,
            model_type={"classifier": {"id2label": names, "label2id": by_label}},
            multi_label=rules.multi_label,
            columns=list(self.classifier.columns),
            max_input_length=reading.max_length,
            truncation=reading.truncation,
            max_windows=reading.max_windows,
            thresholds=None
            if thresholds is None
            else dict(zip(rules.labels, thresholds, strict=True)),
            abstain_below=rules.abstain_below,
            max_client_batch_size=self.limits.rows,
            max_characters=self.limits.characters,
            max_body_bytes=most_bytes,
            engine=self.classifier.engine_name,
            version=__version__,
        ).model_dump()


def split_predict_inputs(inputs: Any) -> tuple[list[Any], bool]:
    """The rows of `/predict`, and whether they are a batch.

    Raises:
        RequestError: for what has neither of the shapes.
    """
    if isinstance(inputs, str):
        return [inputs], False
    if isinstance(inputs, list) and inputs:
        if all(isinstance(one, str) for one in inputs):
            return [inputs], False  # one row: a text for each column, as a pair
        if all(isinstance(one, list) for one in inputs):
            return inputs, True
    raise RequestError(
        422,
        'inputs: expected a text, a pair ["one", "two"], or a batch [["one"], ["two"]]',
    )


def model_name(source: str) -> str:
    """What clients are told of where the model is: a Hub id, or the last name of a path."""
    path = Path(source)
    if not path.exists():
        return source
    found = path.resolve()
    return found.parent.name if found.name == "model" else found.name
