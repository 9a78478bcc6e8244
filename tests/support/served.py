"""A tiny classifier that was not trained, and the real server of it on a port of loopback."""

import contextlib
import http.client
import json
import socket
import threading
import time
from dataclasses import dataclass

import torch

from finetune.config import schema
from finetune.inference import server
from finetune.modeling import build, pretrained, saved_model
from finetune.modeling import head as head_module
from tests.support.tiny import tiny_encoder

LABELS = ("sports", "money", "tech")
PATIENCE = 120  # seconds after which what should come never will


def write_classifier(folder):
    """A classifier of three labels that reads 32 tokens; its model folder is `folder / "model"`."""
    source = str(tiny_encoder(folder / "encoder"))
    choices = schema.Model(head="linear", head_init="normal", freeze="none")
    made = build.build_classifier(source, choices, LABELS, "sdpa", seed=0)
    tokenizer = pretrained.load_tokenizer(source, choices)
    tokenizer.model_max_length = 32
    with torch.no_grad():  # else all texts get nearly the same answer
        head_module.find_head(made).weight.mul_(40)
    saved_model.save_classifier(made, tokenizer, folder / "model")


def read_as(model, folder, **document):
    """A copy of a model folder that reads documents in another way."""
    import shutil

    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["document"] = {"max_length": 32} | document
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Served:
    """A server that runs in a thread."""

    server: server.SignalledServer
    port: int
    thread: threading.Thread
    key: str | None = None

    def ask(self, method, path, body=None, headers=None):
        """An answer on a connection of its own; `body`: bytes, or what JSON is made of."""
        sent = {} if body is None else {"Content-Type": "application/json"}
        if self.key is not None:
            sent["Authorization"] = f"Bearer {self.key}"
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, content, sent | (headers or {}))
            got = connection.getresponse()
            named = {name.lower(): value for name, value in got.getheaders()}
            return Answer(got.status, named, got.read())

    def post(self, path, body, headers=None):
        return self.ask("POST", path, body, headers)

    def ask_raw(self, content):
        """The status of a request as its bytes; None: the server closes without a word."""
        answer = self.ask_whole(content)
        return int(answer.split()[1]) if answer else None

    def ask_whole(self, content):
        """All that is answered to a request as its bytes, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(content)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while part := connection.recv(1 << 16):
                    answer += part
        return answer

    def metric(self, line):
        """The number behind a line of /metrics that begins so; 0 where there is none."""
        for one in self.ask("GET", "/metrics").body.decode().splitlines():
            if one.startswith(f"{line} "):
                return float(one.rpartition(" ")[2])
        return 0.0


@contextlib.contextmanager
def serving(classifier, key=None, **options):
    """The server of a classifier, until the block ends."""
    listener = server.open_socket("127.0.0.1", 0)
    made = server.make_server(classifier, server.ServerOptions("tiny", **options), key)
    thread = threading.Thread(target=made.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_for(lambda: made.started)
        yield Served(made, listener.getsockname()[1], thread, key)
    finally:
        made.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


def wait_for(is_true):
    """Return when something is true."""
    until = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < until
        time.sleep(0.005)


def is_refused(port):
    """Whether nothing listens on a port of loopback any more."""
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)):
        return False
    return True


class Gate:
    """Holds an engine before it computes, and counts what it is asked.

    Attributes:
        calls: the rows of each computation.
    """

    def __init__(self, classifier, monkeypatch):
        self.calls, self._open, self._reached = [], threading.Event(), threading.Event()
        whole = classifier.engine.logits

        def logits(table):
            self.calls.append(len(table))
            self._reached.set()
            assert self._open.wait(PATIENCE)
            return whole(table)

        monkeypatch.setattr(classifier.engine, "logits", logits)

    def wait(self):
        """Return when something is about to be computed."""
        assert self._reached.wait(PATIENCE)

    def open(self):
        self._open.set()
