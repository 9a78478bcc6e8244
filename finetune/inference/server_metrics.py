"""What the server counts, as Prometheus reads it: requests, rows, tokens, batches, the queue.

    metrics = ServerMetrics(held_rows=lambda: batcher.held_rows)
    metrics.count_request("/predict", 200, seconds)
    metrics.render()                      # (bytes, content type)

No metric has a text, a label of the model or an address of a client in it.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from finetune.inference.request_batcher import Batch

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
PATHS = ("/", "/health", "/info", "/metrics", "/openapi.json", "/predict", "/v1/classify")


class ServerMetrics:
    """The metrics of one server, in a registry of their own.

    Args:
        held_rows: gives the rows that wait or are computed.
    """

    def __init__(self, held_rows: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "finetune_requests",
            "Requests by path and status",
            ("path", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "finetune_request_seconds", "Seconds from a request to its answer", ("path",),
            registry=registry, buckets=SECONDS,
        )  # fmt: skip
        self._rows = Counter("finetune_rows", "Rows that were asked for", registry=registry)
        self._errors = Counter("finetune_row_errors", "Rows with an error", registry=registry)
        self._tokens = Counter("finetune_tokens", "Tokens that were computed", registry=registry)
        self._batch_rows = Histogram(
            "finetune_batch_rows", "Rows of a batch", registry=registry, buckets=COUNTS
        )
        self._batch_requests = Histogram(
            "finetune_batch_requests", "Requests of a batch", registry=registry, buckets=COUNTS
        )
        self._batch_tokens = Histogram(
            "finetune_batch_tokens", "Tokens of a batch", registry=registry, buckets=TOKENS
        )
        self._batch_seconds = Histogram(
            "finetune_batch_seconds", "Seconds of a batch", registry=registry, buckets=SECONDS
        )
        held = Gauge("finetune_held_rows", "Rows that wait or are computed", registry=registry)
        held.set_function(held_rows)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count an answer. Paths that the server does not have are one."""
        path = path if path in PATHS else "other"
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def count_rows(self, rows: int, errors: int) -> None:
        """Count the rows of a request, and those of them with an error."""
        self._rows.inc(rows)
        self._errors.inc(errors)

    def count_batch(self, batch: Batch) -> None:
        """Count what was computed at once."""
        self._tokens.inc(batch.tokens)
        self._batch_rows.observe(batch.rows)
        self._batch_requests.observe(batch.requests)
        self._batch_tokens.observe(batch.tokens)
        self._batch_seconds.observe(batch.seconds)

    def render(self) -> tuple[bytes, str]:
        """All of them, and the type of the text."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
