"""A connection to the server: its client has a time limit for whatever is its turn to do.

uvicorn limits only how long a connection stays open after an answer. Here a client also has to
send the header of a request, and to read its answer, in time. `server_guard.py` limits the body.
What is no HTTP is refused with the status that the parser suggests, such as 431 for a header that
is too long. A connection beyond the limit is refused before it sends anything.
"""

import asyncio
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from finetune.inference.server_guard import error_body

REFUSED = 64  # connections beyond the limit that are told why; more are closed
OTHER_FILES = 128  # that the process has open beside its connections


@dataclass(frozen=True)
class ConnectionLimits:
    """What a connection may take.

    Attributes:
        count: of connections that are open; further ones are refused.
        header_seconds: from the first byte of a request to the end of its header; of a new
            connection from its beginning.
        read_seconds: in which the client reads an answer, besides those for its size.
        read_rate: bytes a second that a client has to read at least.
        unread_bytes: of the answers of all connections that wait to be read; beyond, those that
            have waited longest are dropped, but for the last.
        refused_seconds: in which the client of a refused connection reads why.
    """

    count: int = 1024
    header_seconds: float = 30.0
    read_seconds: float = 30.0
    read_rate: int = 10_000
    unread_bytes: int = 256_000_000
    refused_seconds: float = 2.0


def close_unread(connections: Iterable["TimedConnection"]) -> None:
    """Close those whose clients have read for longest, until the others' answers fit in memory."""
    sizes = {one: one.transport.get_write_buffer_size() for one in connections}
    reading = sorted((one for one in sizes if sizes[one]), key=lambda one: one.since)
    unread = sum(sizes.values())
    for one in reading[:-1]:
        if unread <= one.limits.unread_bytes:
            return
        one.transport.abort()
        unread -= sizes[one]


def count_connections() -> int:
    """How many connections may be open: fewer where the process may open few files."""
    try:
        import resource
    except ImportError:  # Windows
        return ConnectionLimits.count
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return ConnectionLimits.count
    return max(1, min(ConnectionLimits.count, most - OTHER_FILES))


class TimedConnection(H11Protocol):
    """uvicorn's connection with these limits; `check_time` is to be called every now and then.

    Attributes:
        since: when the client's turn began.
    """

    limits = ConnectionLimits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; refuse it where too many are open."""
        super().connection_made(transport)
        self._is_refused = False
        self._turn: tuple[str, Any] = ("header", None)
        self.since, self._unread = self.loop.time(), 0  # of the turn, and bytes when it began
        if len(self.connections) > self.limits.count + REFUSED:
            self._is_refused = True
            self.transport.abort()
        elif len(self.connections) > self.limits.count:
            reason = f"more than {self.limits.count:,} connections are open; try again"
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, reason)

    def data_received(self, data: bytes) -> None:
        """Parse it; of a refused connection, drop it: a close would take the reason away."""
        if not self._is_refused:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; uvicorn calls it where its parser raises."""
        error = sys.exc_info()[1]
        status = HTTPStatus(getattr(error, "error_status_hint", HTTPStatus.BAD_REQUEST))
        reason = "expected a request in HTTP/1.1"
        if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            reason = "the header is too long"
        self._refuse(status, reason)

    def shutdown(self) -> None:
        """Close it where it is idle, else after its answer; uvicorn calls it when it stops."""
        if self._is_refused:
            self.transport.abort()
        else:
            super().shutdown()

    def check_time(self, now: float) -> None:
        """Close the connection where its client has had its time."""
        turn = self._find_turn()
        if turn != self._turn:
            self._turn, self.since = turn, now
            self._unread = self.transport.get_write_buffer_size()
        elif now < self.since + self._find_seconds(turn[0]):
            return
        elif turn[0] == "header" and self.conn.trailing_data[0]:
            seconds = self.limits.header_seconds
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the header took over {seconds:g} s")
        else:
            self.transport.abort()

    def _find_turn(self) -> tuple[str, Any]:
        """What the client has to do now, and for which request of it."""
        is_answered = self.cycle is None or self.cycle.response_complete
        if self._is_refused:
            return "refused", None
        if self.transport.get_write_buffer_size():
            return "read", self.cycle
        if is_answered and (self.cycle is None or self.conn.trailing_data[0]):
            return "header", self.cycle
        return "nothing", self.cycle  # it waits for an answer, or has no request at the moment

    def _find_seconds(self, turn: str) -> float:
        limits = self.limits
        seconds = {
            "header": limits.header_seconds,
            "read": limits.read_seconds + self._unread / limits.read_rate,
            "refused": limits.refused_seconds,
        }
        return seconds.get(turn, float("inf"))

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        """Answer, and close when the client has read it."""
        self._is_refused = True
        self._unset_keepalive_if_required()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # it answers no more
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()  # in the midst of another answer
            return
        body = json.dumps(error_body(status, reason)).encode()
        head = (
            f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.write_eof()
