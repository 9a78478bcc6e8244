"""A classifier → the application that answers over HTTP: its routes and its errors.

app = build_app(classifier, ServerLimits(), "news")       # ASGI, with its guard around it
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from finetune import __version__
from finetune.inference.classifier import Classifier
from finetune.inference.classifier_service import ClassifierService, ServerLimits
from finetune.inference.request_error import RequestError
from finetune.inference.server_guard import FAILED, GuardOptions, ServerGuard, error_body
from finetune.inference.server_models import (
    ClassifyRequest,
    ClassifyResponse,
    ErrorResponse,
    Info,
    LabelScore,
    PredictRequest,
)
from finetune.inference.server_shortcut import Endpoint, Shortcut
from finetune.inference.server_shortcut import refuse as refuse_request
from finetune.reporting import html_report

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "the body is not JSON"},
    401: {"model": ErrorResponse, "description": "the key is missing or wrong"},
    413: {"model": ErrorResponse, "description": "too many rows, too long a text or body"},
    422: {"model": ErrorResponse, "description": "the request or its only document is not right"},
    424: {"model": ErrorResponse, "description": "the model could not compute it"},
    429: {"model": ErrorResponse, "description": "the queue is full; Retry-After says how long"},
    503: {"model": ErrorResponse, "description": "the server stops"},
}


# What the page shows of each path: the type of its request, and one.
EXAMPLES = {
    "/predict": ("PredictRequest", '{"inputs": [["One text."], ["Another."]]}'),
    "/v1/classify": ("ClassifyRequest", '{"inputs": ["One text."], "probabilities": true}'),
}
# What is said of a body that lacks what each request has: the field that lacks and pydantic's word.
SHAPES = {
    ("inputs", "missing"): 'this key is missing; send {"inputs": "a text"}',
    ("the body", "missing"): 'it is empty; send {"inputs": "a text"}',
    ("the body", "model_attributes_type"): 'expected an object; send {"inputs": "a text"}',
}
ANSWERS = ("LabelScore", "Classified", "TellingWord", "ErrorResponse", "Info")


def build_app(
    classifier: Classifier,
    limits: ServerLimits,
    name: str,
    guard: GuardOptions | None = None,
) -> ServerGuard:
    """The application of ASGI with its guard; its lifespan's end finishes what was taken.

    Args:
        name: of the model, for clients.
    """
    guard = guard or GuardOptions()
    service = ClassifierService(classifier, limits)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="finetune serve",
        version=__version__,
        summary="A document classifier over HTTP",
        docs_url=None,  # FastAPI's page loads its scripts from another host
        redoc_url=None,
        lifespan=lifespan,
    )
    _add_errors(app)
    _add_routes(app, service, service.describe(name, guard.most_bytes))
    ordinary = Shortcut(
        app,
        {
            "/predict": Endpoint(PredictRequest, service.predict),
            "/v1/classify": Endpoint(ClassifyRequest, service.classify),
        },
    )
    return ServerGuard(ordinary, guard, service.metrics.count_request)


def _add_routes(app: FastAPI, service: ClassifierService, info: dict[str, Any]) -> None:
    secured = [Depends(HTTPBearer(auto_error=False))]  # for the description: the guard checks it
    template = html_report.template_environment().get_template("api.html")

    @app.post("/predict", responses=ERRORS, dependencies=secured,
              response_model=list[LabelScore] | list[list[LabelScore]])  # fmt: skip
    async def predict(request: PredictRequest) -> Response:
        """The score of every label, in the shapes of text-embeddings-inference."""
        return JSONResponse(await service.predict(request))

    @app.post(
        "/v1/classify", responses=ERRORS, dependencies=secured, response_model=ClassifyResponse
    )
    async def classify(request: ClassifyRequest) -> Response:
        """What the model predicts of each document: thresholds, abstention and windows included."""
        return JSONResponse(await service.classify(request))

    @app.get("/info", dependencies=secured, response_model=Info)
    async def describe() -> Response:
        """The model, its labels, how it reads documents, and the limits of the server."""
        return JSONResponse(info)

    @app.get("/health")
    async def health() -> Response:
        """200 while requests are answered."""
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", dependencies=secured)
    async def metrics() -> Response:
        """Counts and durations, as Prometheus reads them."""
        content, kind = service.metrics.render()
        return Response(content, media_type=kind)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        address = str(request.base_url).rstrip("/")
        return HTMLResponse(
            template.render(api=app.openapi(), requests=EXAMPLES, answers=ANSWERS, address=address)
        )


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestError)
    async def refuse(request: Request, error: RequestError) -> Response:
        return refuse_request(error)

    @app.exception_handler(RequestValidationError)
    async def refuse_shape(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return JSONResponse(error_body(400, "the body is not valid JSON"), 400)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            reason = f"expected Content-Type: application/json, got {kind or 'none'}"
            return JSONResponse(error_body(415, reason), 415)
        place = ".".join(map(str, first["loc"][1:])) or first.get("ctx", {}).get("key", "the body")
        what = SHAPES.get((place, first["type"]), first["msg"].lower())
        return JSONResponse(error_body(422, f"{place}: {what}"), 422)

    @app.exception_handler(Exception)  # the guard prints where it was
    async def refuse_unforeseen(request: Request, error: Exception) -> Response:
        return JSONResponse(error_body(500, FAILED), 500)

    @app.exception_handler(HTTPException)
    async def refuse_route(request: Request, error: HTTPException) -> Response:
        reason = {
            400: "the body is not valid JSON",
            404: "no such path; / lists them",
            405: "this path does not take this method; / lists them",
        }.get(error.status_code, str(error.detail))
        return JSONResponse(error_body(error.status_code, reason), error.status_code, error.headers)
