"""The ordinary request → its answer, without the layers that FastAPI goes through for each.

    app = Shortcut(fastapi_app, {"/predict": Endpoint(PredictRequest, service.predict)})

FastAPI describes the paths, and answers whatever is not ordinary: another method, content type or
query, and a body that is not right, which it refuses with its reason. On a fast model its layers
cost a third as much as computing the document.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError

from finetune.inference.http_guard import Message, Receive, Scope, Send
from finetune.inference.request_error import RequestError

CONTENT_TYPE, JSON = b"content-type", b"application/json"


@dataclass(frozen=True)
class Endpoint:
    """What a path takes, and what answers it."""

    request: type[BaseModel]
    answer: Callable[[Any], Awaitable[Any]]


class Shortcut:
    """ASGI around an application whose requests arrive with their whole body, as of the guard."""

    def __init__(self, app: Any, endpoints: Mapping[str, Endpoint]) -> None:
        self.app, self._endpoints = app, endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._find_endpoint(scope)
        if endpoint is None:
            await self.app(scope, receive, send)
            return
        given = [await receive()]
        try:
            request = endpoint.request.model_validate(json.loads(given[0]["body"]))
        except (ValueError, RecursionError, ValidationError):  # FastAPI says what is wrong

            async def replay() -> Message:
                return given.pop() if given else await receive()

            await self.app(scope, replay, send)
            return
        try:
            response = JSONResponse(await endpoint.answer(request))
        except RequestError as error:
            response = refuse(error)
        await response(scope, receive, send)

    def _find_endpoint(self, scope: Scope) -> Endpoint | None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["query_string"]:
            return None
        kinds = [value for name, value in scope["headers"] if name == CONTENT_TYPE]
        return self._endpoints.get(scope["path"]) if kinds == [JSON] else None


def refuse(error: RequestError) -> JSONResponse:
    """The answer that says why there is none."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return JSONResponse(error.body, error.status, headers)
