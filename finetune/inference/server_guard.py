"""Requests to the server → those that its application answers; all others are refused before it.

Checked in this order: Host and Origin (`http_guard.py`), the API key, the length of the body, how
long it takes to arrive, and how many bytes all bodies have together. The guard also counts every
answer, stops the work for a client that has gone, and answers 500 where the application fails,
saying where in the code it did: a message of Python's may quote a text, so it is neither sent nor
printed.
"""

import asyncio
import hmac
import ipaddress
import json
import re
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from finetune.inference import http_guard
from finetune.inference.http_guard import UNFRAMED, Headers, Message, Receive, Refusal, Scope, Send
from finetune.runtime.console import print_line

OPEN_PATHS = ("/", "/health", "/openapi.json")  # without a key: they say nothing of the model
FAILED = "the server failed; its log says where"
GONE = 499  # what is counted where the client has gone; nobody reads it
BODY_SECONDS = 30.0
DISCARDED_BYTES = 64_000_000  # of a body that is refused, so that its sender reads why
ERROR_TYPES = {401: "unauthorized", 403: "forbidden", 413: "validation", 429: "overloaded",
               424: "backend", 500: "backend", 503: "unhealthy"}  # fmt: skip
ADDRESS = re.compile(r"\[(?P<six>[0-9a-fA-F:.]+)\](?::\d{1,5})?|(?P<four>[\d.]+)(?::\d{1,5})?")


@dataclass(frozen=True)
class GuardOptions:
    """What the guard lets through.

    Attributes:
        hosts: names beside loopback's that a Host header may have, in lower case, without a port.
        any_address: whether it may also be any IP address: DNS rebinding needs a name.
        key: that requests must bring; None: none.
        most_bytes: that a body may have.
        body_seconds: in which it must arrive.
        held_bytes: of all bodies that arrive or wait for their answer; a body alone may have more.
    """

    hosts: Collection[str] = ()
    any_address: bool = False
    key: str | None = field(default=None, repr=False)
    most_bytes: int = 2_000_000
    body_seconds: float = BODY_SECONDS
    held_bytes: int = 64_000_000


def error_body(status: int, reason: str) -> dict[str, str]:
    """An error as text-embeddings-inference writes it: what is wrong, and of which kind."""
    return {"error": reason, "error_type": ERROR_TYPES.get(status, "validation")}


class ServerGuard:
    """Middleware of ASGI around the whole application.

    Attributes:
        is_stopping: whether clients are told to close their connection.

    Args:
        count: is called with path, status and seconds of each answer.
    """

    def __init__(
        self, app: Any, options: GuardOptions, count: Callable[[str, int, float], None]
    ) -> None:
        self.app, self.options, self._count = app, options, count
        self.is_stopping = False
        self.held = 0  # bytes of bodies, of all requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no websockets
            await send({"type": "websocket.close", "code": 1008})
            return
        began, answer = time.perf_counter(), _Answer(send, lambda: self.is_stopping)
        share = _Share(self)
        try:
            await self._respond(scope, receive, answer, share)
        finally:
            share.release()
            self._count(scope["path"], answer.status, time.perf_counter() - began)

    async def _respond(
        self, scope: Scope, receive: Receive, answer: "_Answer", share: "_Share"
    ) -> None:
        headers, body = http_guard.read_headers(scope), None
        refusal = self._refuse(scope, headers)
        try:
            async with asyncio.timeout(self.options.body_seconds):
                if refusal is None:
                    body = await http_guard.read_body(
                        receive, self.options.most_bytes, share.keep, DISCARDED_BYTES
                    )
                elif "expect" not in headers:  # who expects 100 sends nothing yet
                    await http_guard.discard_body(receive, DISCARDED_BYTES)
        except TimeoutError:
            share.release()
            refusal = refusal or (408, f"the body took over {self.options.body_seconds:g} s")
        if refusal is None and share.is_refused:
            refusal = 429, "the server has no memory for this request at the moment; try again"
        if refusal is None and body is None:
            refusal = 413, _too_long(self.options.most_bytes)
        if refusal is not None:
            await answer.refuse(*refusal)
        elif body is not None:
            await self._run(scope, body, receive, answer)

    async def _run(self, scope: Scope, body: bytes, receive: Receive, answer: "_Answer") -> None:
        """The application's answer, unless the client goes before it."""
        given = [{"type": "http.request", "body": body, "more_body": False}]
        gone = asyncio.ensure_future(_wait_for_end(receive))

        async def replay() -> Message:
            if given:
                return given.pop()
            await asyncio.shield(gone)
            return {"type": "http.disconnect"}

        work = asyncio.ensure_future(self.app(scope, replay, answer.send))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and answer.is_started:
                await asyncio.wait((work,))
            if work.done():
                await work
        except Exception as error:
            print_line(f"error: {_describe(error)}", even_if_quiet=True)
            if not answer.is_started:
                await answer.refuse(500, FAILED)
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    def _refuse(self, scope: Scope, headers: Headers) -> Refusal | None:
        options = self.options
        names = "expected a Host header that names this server; --allow-host adds a name"
        return (
            http_guard.refuse_host(headers, self._is_own_host, names)
            or http_guard.refuse_origin(headers, ("http", "https"))
            or http_guard.refuse_site(headers)
            or (None if scope["path"] in OPEN_PATHS else _refuse_key(headers, options.key))
            or (http_guard.refuse_length(headers, options.most_bytes) and
                (413, _too_long(options.most_bytes)))
        )  # fmt: skip

    def _is_own_host(self, host: str) -> bool:
        if http_guard.LOOPBACK_HOST.fullmatch(host):
            return True
        if re.sub(r":\d{1,5}$", "", host).lower() in self.options.hosts:
            return True
        found = ADDRESS.fullmatch(host)
        return self.options.any_address and found is not None and _is_address(found)


class _Share:
    """The bytes of one request among those of all that are held.

    Attributes:
        is_refused: whether there were too many.
    """

    def __init__(self, guard: ServerGuard) -> None:
        self._guard, self._count, self.is_refused = guard, 0, False

    def keep(self, count: int) -> bool:
        """Hold so many more bytes, if they fit, or nobody else holds any; else hold none."""
        guard = self._guard
        is_full = guard.held + count > guard.options.held_bytes and guard.held > self._count
        self.is_refused = count > 0 and is_full
        if self.is_refused:
            self.release()
            return False
        guard.held += count
        self._count += count
        return True

    def release(self) -> None:
        """Hold none."""
        self._guard.held -= self._count
        self._count = 0


class _Answer:
    """What is sent to the client, with headers that every answer has.

    Attributes:
        status: that was sent; until then that of a client which has gone.
    """

    def __init__(self, send: Send, closes: Callable[[], bool]) -> None:
        self._send, self._closes, self.status = send, closes, GONE

    @property
    def is_started(self) -> bool:
        return self.status != GONE

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            headers = [*message.get("headers", ()), *UNFRAMED, (b"cache-control", b"no-store"),
                       (b"x-content-type-options", b"nosniff")]  # fmt: skip
            if self._closes():
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)

    async def refuse(self, status: int, reason: str) -> None:
        body = json.dumps(error_body(status, reason)).encode()
        headers: list[tuple[bytes, bytes]] = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),  # what may be left of the body is not read
        ]
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            headers.append((b"retry-after", b"1"))
        if status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b"Bearer"))
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


async def _wait_for_end(receive: Receive) -> None:
    """Return when the client has gone, or has its answer."""
    while (await receive())["type"] == "http.request":
        pass


def _refuse_key(headers: Headers, key: str | None) -> Refusal | None:
    if key is None:
        return None
    given = headers.get("authorization", [])
    scheme, _, value = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    is_same = hmac.compare_digest(value.strip().encode("latin-1"), key.encode("utf-8"))
    if is_same and scheme.lower() == "bearer":
        return None
    return 401, "expected the header Authorization: Bearer KEY with the key of this server"


def _too_long(most_bytes: int) -> str:
    return f"expected a body of at most {most_bytes:,} bytes; send fewer or shorter texts"


def _is_address(found: re.Match[str]) -> bool:
    try:
        ipaddress.ip_address(found["six"] or found["four"])
    except ValueError:
        return False
    return True


def _describe(error: BaseException) -> str:
    """Which error it was, and where: nothing that it says, which may quote a text."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"a request failed: {type(error).__name__}{where}"
