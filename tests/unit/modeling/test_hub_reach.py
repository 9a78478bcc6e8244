"""A Hub that cannot be reached is found out at once; one that answers is never taken for that."""

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from finetune.config.schema import Model
from finetune.modeling import pretrained
from finetune.modeling.hub_reach import is_out_of_reach
from finetune.runtime.errors import InputError

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@pytest.fixture(autouse=True)
def online(monkeypatch):
    for name in (*OFFLINE, "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def closed(monkeypatch):
    """An endpoint that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")


@pytest.mark.parametrize("status", [200, 302, 404, 503])
def test_any_answer_is_an_answer(monkeypatch, status):
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *given):
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert not is_out_of_reach()
        server.shutdown()


@pytest.mark.parametrize("endpoint", ["", "file:///etc/hosts", "no address", "http://[::1"])
def test_what_is_no_address_is_left_to_the_client(monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint or "http://127.0.0.1:1")
    assert is_out_of_reach() == (not endpoint)


@pytest.mark.parametrize("name", OFFLINE)
def test_offline_mode_asks_nobody(monkeypatch, closed, name):
    monkeypatch.setenv(name, "1")
    assert not is_out_of_reach()


def test_the_message_does_not_wait_for_the_client(closed, monkeypatch):
    monkeypatch.setattr(time, "sleep", None)  # which it calls between two tries
    with pytest.raises(InputError, match="no way to the Hub; name a folder"):
        pretrained.load_config("org/none-of-this-name", Model())
