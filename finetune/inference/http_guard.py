"""What every server of this package checks before a request reaches its application.

    refusal = refuse_foreign(headers, LOOPBACK_HOST.fullmatch)     # (status, reason) or None
    body = await read_body(receive, most_bytes)                    # None where it is too long

A server on loopback is still reached by every page that is open in a browser of the machine. A page
of another site may send it forms (cross-site requests), and read its answers where the site's own
name begins to mean 127.0.0.1 (DNS rebinding). So a request names the host by one of its own names,
and comes from no other site.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Mapping[str, list[str]]
Refusal = tuple[int, str]

# Of loopback, at any port: a tunnel of ssh or an editor has its own. A page of another site is
# known by its name, and by an origin that is not the host.
LOOPBACK_HOST = re.compile(
    r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?", re.IGNORECASE | re.ASCII
)
FOREIGN = "a page of another site may send nothing here"
UNFRAMED = [
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
]


def read_headers(scope: Scope) -> dict[str, list[str]]:
    """The headers of a request: name, in lower case → its values."""
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return headers


def refuse_host(headers: Headers, is_own: Callable[[str], object], names: str) -> Refusal | None:
    """The status and the reason for which a request is refused that names another host, or two.

    Args:
        is_own: whether a Host header names this server.
        names: how it is reached, for the reason.
    """
    host = headers.get("host", [])
    if len(host) != 1 or not is_own(host[0]):
        return 421, names
    return None


def refuse_origin(headers: Headers, schemes: tuple[str, ...] = ("http",)) -> Refusal | None:
    """The same for one that a page of another origin sends. It names one host."""
    own = {f"{scheme}://{headers['host'][0]}" for scheme in schemes}
    if any(origin not in own for origin in headers.get("origin", [])):
        return 403, FOREIGN
    return None


def refuse_site(headers: Headers) -> Refusal | None:
    """The same for one that a browser says a page of another site sends."""
    if not {*headers.get("sec-fetch-site", ["none"])} <= {"none", "same-origin"}:
        return 403, FOREIGN
    return None


def refuse_length(headers: Headers, most_bytes: int) -> Refusal | None:
    """The same for one that declares a longer body than is read."""
    length = headers.get("content-length", ["0"])[0]
    if length.isdecimal() and int(length[:20]) > most_bytes:
        return 413, f"more than {most_bytes:,} bytes"
    return None


async def read_body(
    receive: Receive,
    most_bytes: int,
    keep: Callable[[int], bool] = lambda count: True,
    discard: int = 0,
) -> bytes | None:
    """The whole body; None where it is too long, whatever length it declared.

    Args:
        keep: is asked about each part, by its bytes; where it says no, the body is None too.
        discard: bytes of such a body that are still read, as of `discard_body`.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":  # the sender has gone
            return bytes(body)
        part, is_last = message.get("body", b""), not message.get("more_body", False)
        if len(body) + len(part) > most_bytes or not keep(len(part)):
            del body
            if not is_last:
                await discard_body(receive, discard)
            return None
        body += part
        if is_last:
            return bytes(body)


async def discard_body(receive: Receive, most_bytes: int) -> None:
    """Read what is left of a body, and keep nothing; at most so much of it.

    A connection that is closed while its client still sends is reset, and the client never reads
    why it was refused.
    """
    seen = 0
    while seen < most_bytes:
        message = await receive()
        seen += len(message.get("body", b""))
        if not message.get("more_body", False):
            return
