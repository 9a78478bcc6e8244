"""Requests to the demo → those that its own page makes; all others are refused before Gradio.

Beside what `http_guard.py` checks: Gradio's routes for files, uploads, addresses to fetch and edits
of its own code serve no part of this page.
"""

import re
from typing import Any

from finetune.inference import http_guard
from finetune.inference.http_guard import UNFRAMED, Message, Receive, Scope, Send

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
        body = await http_guard.read_body(receive, self.most_bytes)
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


def _refusal(scope: Scope, most_bytes: int) -> http_guard.Refusal | None:
    """The status and the reason for which a request is refused; None for one of the page's own."""
    headers = http_guard.read_headers(scope)
    names = "this server is reached as http://127.0.0.1 on this machine alone"
    refusal = http_guard.refuse_host(headers, http_guard.LOOPBACK_HOST.fullmatch, names)
    if refusal is None:
        refusal = http_guard.refuse_origin(headers)
    method, path = scope["method"], scope["path"]
    if refusal is None and path != "/":  # which a link of another site may open
        refusal = http_guard.refuse_site(headers)
    if refusal is not None:
        return refusal
    if method not in (*READING, "POST"):
        return 405, "expected GET, HEAD or POST"
    if not (READ if method in READING else SENT).fullmatch(path):
        return 404, "not a part of this page"
    return http_guard.refuse_length(headers, most_bytes)


async def _answer(send: Send, status: int, reason: str) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"connection", b"close"),  # what is left of the body is not read
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})
