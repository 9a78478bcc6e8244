"""Requests to the demo → those that its own page makes; all others are refused before Gradio.

A server on loopback is still reached by every page that is open in a browser of the machine. A page
of another site may send it forms (cross-site requests), and read its answers where the site's own
name begins to mean 127.0.0.1 (DNS rebinding). Gradio's routes for files, uploads, addresses to
fetch and edits of its own code serve no part of this page.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Of loopback, at any port: a tunnel of ssh or an editor has its own. A page of another site is
# known by its name, and by an origin that is not the host.
HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?", re.IGNORECASE | re.ASCII)
UNFRAMED = [
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
]
READING = ("GET", "HEAD")
# What the page reads: itself and its parts, and the events of its session.
READ = re.compile(
    r"/(?:|config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|pwa_icon(?:/\d+)?"
    r"|(?:assets|static|svelte)/[^?]*"
    r"|gradio_api/(?:info|app_id|startup-events|theme\.css|queue/data|heartbeat/\w+))/?"
)
# And what it sends: a text to classify, the end of one, and of its session.
SENT = re.compile(r"/gradio_api/(?:queue/join|cancel|reset)/?")


class DemoGuard:
    """Middleware of ASGI: checks where a request goes, who sends it, what it asks, and its length.

    Args:
        app: what answers the requests that pass.
        most_bytes: that a body may have.
    """

    def __init__(self, app: Any, most_bytes: int) -> None:
        self.app, self.most_bytes = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page has no websocket
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = _refusal(scope, self.most_bytes)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        body = await self._read_body(receive)
        if body is None:
            await _answer(send, 413, f"more than {self.most_bytes:,} bytes")
            return
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return given.pop() if given else await receive()

        async def send_unframed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *UNFRAMED]}
            await send(message)

        await self.app(scope, replay, send_unframed)

    async def _read_body(self, receive: Receive) -> bytes | None:
        """The whole body; None as soon as it is too long, whatever length it declared."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":  # the sender has gone
                return bytes(body)
            body += message.get("body", b"")
            if len(body) > self.most_bytes:
                return None
            if not message.get("more_body", False):
                return bytes(body)


def _refusal(scope: Scope, most_bytes: int) -> tuple[int, str] | None:
    """The status and the reason for which a request is refused; None for one of the page's own."""
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    host = headers.get("host", [])
    if len(host) != 1 or not HOST.fullmatch(host[0]):
        return 421, "this server is reached as http://127.0.0.1 on this machine alone"
    if any(origin != f"http://{host[0]}" for origin in headers.get("origin", [])):
        return 403, "a page of another site may send nothing here"
    method, path = scope["method"], scope["path"]
    site = headers.get("sec-fetch-site", ["none"])
    if path != "/" and not {*site} <= {"none", "same-origin"}:
        return 403, "a page of another site may send nothing here"
    if method not in (*READING, "POST"):
        return 405, "expected GET, HEAD or POST"
    if not (READ if method in READING else SENT).fullmatch(path):
        return 404, "not a part of this page"
    length = headers.get("content-length", ["0"])[0]
    if length.isdecimal() and int(length[:20]) > most_bytes:
        return 413, f"more than {most_bytes:,} bytes"
    return None


async def _answer(send: Send, status: int, reason: str) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"connection", b"close"),  # what is left of the body is not read
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})
