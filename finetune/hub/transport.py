"""The HTTP library under the Hub's client, whose releases have three: which one is here, what it
raises where no server answers, and how to keep it from waiting for ever.

    isinstance(error, UNREACHED)
    describe(error)        # "ConnectError: [Errno 111] Connection refused"
    limit_waiting()        # before each call of the client
"""

import importlib
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError

from finetune.runtime.process_state import call_at_end

# huggingface_hub 2 has httpx2, 1 httpx, and 0.36, which transformers 4 needs, requests. The
# client's own error extends the library's.
HTTP: Any = importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
IS_REQUESTS = HTTP.__name__ == "requests"  # can go with huggingface_hub 0.36

# No server answered, or the connection broke.
UNREACHED: tuple[type[Exception], ...] = (
    ConnectionError,
    TimeoutError,
    *(
        (HTTP.ConnectionError, HTTP.Timeout, HTTP.exceptions.ChunkedEncodingError)
        if IS_REQUESTS
        else (HTTP.TransportError,)
    ),
)
# Seconds. The client itself waits for ever; an answer may take long after a large upload.
TIMEOUT = {"connect": 10.0, "read": 120.0, "write": 60.0, "pool": 60.0}


def describe(error: BaseException) -> str:
    """The kind and the message of an error, without what `requests` wraps around it."""
    inner, kind = error, type(error).__name__
    if IS_REQUESTS and isinstance(error, HTTP.RequestException) and error.args:
        first = error.args[0]  # urllib3's; the second is a request's id
        inner = getattr(first, "reason", first)
    # urllib3 begins with the pool's address.
    return f"{kind}: {re.sub(r'^HTTPS?Connection.*?[)>]: ', '', str(inner))}"


def limit_waiting() -> None:
    """Where the client asks to wait for ever, wait TIMEOUT. Again after it made a new session.

    A process that is the caller's has its own sessions back at the run's end.
    """
    if IS_REQUESTS:
        http = importlib.import_module("huggingface_hub.utils._http")
        make = http._GLOBAL_BACKEND_FACTORY
        if not isinstance(make, LimitedSessions):
            http.configure_http_backend(LimitedSessions(make))
            call_at_end(partial(http.configure_http_backend, make))
        return
    hooks = get_session().event_hooks["request"]
    if _limit_request not in hooks:  # a session made anew after a lost connection has none
        hooks.append(_limit_request)
        call_at_end(partial(hooks.remove, _limit_request))


def _limit_request(request: Any) -> None:
    if not any((request.extensions.get("timeout") or {}).values()):
        request.extensions["timeout"] = dict(TIMEOUT)


class LimitedSessions:
    """Makes the sessions of `requests`, one a thread, which know no hook that could set TIMEOUT."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    def __call__(self) -> Any:
        session = self.make()
        session.send = partial(self._send, session.send)
        return session

    @staticmethod
    def _send(send: Callable[..., Any], request: Any, **options: Any) -> Any:
        options["timeout"] = options.get("timeout") or (TIMEOUT["connect"], TIMEOUT["read"])
        return send(request, **options)
