"""`client`: retries, and errors that say what to do and never the token."""

import importlib

import pytest
from huggingface_hub import constants, get_session
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars

from finetune.hub.client import HubErrors, connect, find_response, retry
from finetune.hub.transport import HTTP, IS_REQUESTS
from finetune.runtime.errors import InputError
from finetune.runtime.process_state import preserved_process

TOKEN = "hf_" + "a" * 30


def http_error(status, message="", **headers):
    request = HTTP.Request("GET", "http://hub/api")
    if IS_REQUESTS:
        response = HTTP.Response()
        response.status_code, response.request = status, request
        response.headers.update(headers)
    else:
        response = HTTP.Response(status, headers=headers, request=request)
    return HfHubHTTPError("failed", response=response, server_message=message)


def unreached():
    return HTTP.ConnectionError("down") if IS_REQUESTS else HTTP.ConnectError("down")


@pytest.fixture
def errors(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return HubErrors("ann/model", remedy="push later", token=TOKEN)


def failing(*failures):
    """A call that fails so, and then returns 7; and the waits between."""
    left, waits = list(failures), []

    def call():
        if left:
            raise left.pop(0)
        return 7

    return call, waits


def test_transient_errors_are_retried_with_longer_waits(errors, capsys):
    call, waits = failing(http_error(503), unreached(), http_error(429))
    assert retry(call, 5, waits.append, errors) == 7
    assert waits == [1, 2, 4]
    assert "the Hub: 503; trying again in 1 s" in capsys.readouterr().out


def test_the_hub_s_wait_is_kept(errors):
    call, waits = failing(http_error(429, **{"Retry-After": "30"}))
    assert retry(call, 2, waits.append, errors) == 7
    assert waits == [30]


def test_the_rate_limit_s_end_is_kept(errors):
    limits = {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
    left = {"RateLimit": '"api";r=3;t=55'}
    call, waits = failing(http_error(429, **limits), http_error(429, **left))
    assert retry(call, 3, waits.append, errors) == 7
    assert waits == [55, 2]


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (http_error(404, "no such repo"), "answered 404: no such repo; push later"),
        (http_error(401), "refused the token in HF_TOKEN (401); make a new one"),
        (http_error(403, f"bad {TOKEN}"), "the token in HF_TOKEN may not write there (403: bad …)"),
        (ValueError("odd"), "unexpected answer from the Hub at"),
    ],
)
def test_other_errors_are_explained_at_once(errors, failure, message):
    call, waits = failing(failure)
    with pytest.raises(InputError) as caught:
        retry(call, 5, waits.append, errors)
    assert waits == []
    assert message in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_after_the_last_try_it_says_how_many(errors):
    call, waits = failing(*[unreached()] * 9)
    with pytest.raises(InputError, match=r"^ann/model: cannot reach the Hub at .*down, 3 times\)"):
        retry(call, 3, waits.append, errors)
    assert waits == [1, 2]


def test_a_caller_s_process_has_its_client_back(errors, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    enable_progress_bars()
    http = importlib.import_module("huggingface_hub.utils._http")
    http.configure_http_backend() if IS_REQUESTS else http.close_session()  # what others left

    def client():
        limits = (
            http._GLOBAL_BACKEND_FACTORY if IS_REQUESTS else [*get_session().event_hooks["request"]]
        )
        return limits, constants.HF_HUB_DISABLE_TELEMETRY, are_progress_bars_disabled()

    before = client()
    with preserved_process():
        connect(errors)
        retry(lambda: 7, 1, lambda _: None, errors)
        within = client()
    assert within[0] != before[0]
    assert within[1:] == (True, True)
    assert client() == before


def test_the_response_behind_an_error():
    cause = http_error(500)
    error = RuntimeError("upload failed")
    error.__cause__ = cause
    assert find_response(error) is cause.response
    assert find_response(ValueError()) is None


def test_whose_token_it_is(errors):
    errors.user = {
        "name": "ann", "orgs": [{"name": "lab"}], "auth": {"accessToken": {"role": "read"}},
    }  # fmt: skip
    assert (
        "it is ann's, its role read: take one with write access to ann/, or a repository in "
        in (str(errors.translate(http_error(403), 1)))
    )
