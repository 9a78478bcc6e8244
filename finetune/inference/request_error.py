"""A request that is refused: what its client is told."""

from finetune.inference.server_guard import error_body


class RequestError(Exception):
    """A request that is refused: its status, kind and reason."""

    def __init__(
        self, status: int, reason: str, kind: str | None = None, retry_after: int | None = None
    ) -> None:
        self.status, self.retry_after = status, retry_after
        self.body = error_body(status, reason) | ({"error_type": kind} if kind else {})
        super().__init__(reason)
