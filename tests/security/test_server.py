"""`finetune serve`: whatever a real server is sent gets its status, and breaks nothing."""

import contextlib
import dataclasses
import http.client
import json
import re
import socket
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from finetune.inference import server, server_connections
from finetune.inference.classifier import Classifier
from finetune.inference.classifier_service import ServerLimits
from finetune.inference.request_batcher import QueueLimits
from finetune.inference.server_connections import ConnectionLimits
from finetune.runtime.errors import InputError
from tests.support.served import (
    PATIENCE,
    Gate,
    is_refused,
    serving,
    wait_for,
    write_classifier,
)

KEY = "a-key-of-twenty-five-char"
LIMITS = ServerLimits(rows=4, characters=1000, queue=QueueLimits(rows=4))


@pytest.fixture(scope="module")
def classifier(shared):
    return Classifier(shared("served", write_classifier) / "model", precision="fp32", threads=1)


@pytest.fixture(scope="module")
def served(classifier):
    with serving(classifier, limits=LIMITS, most_bytes=20_000) as one:
        yield one


def is_alive(served):
    return served.post("/v1/classify", {"inputs": "the match"}).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"", 422),
        (b"null", 422),
        (b"[]", 422),
        (b'"a"', 422),
        (b"\xff\xfe{}", 400),
        (b"[" * 9000, 400),
        (b'{"inputs": ' + b"9" * 9000 + b"}", 400),
        ({}, 422),
        ({"inputs": None}, 422),
        ({"inputs": 3}, 422),
        ({"inputs": []}, 422),
        ({"inputs": [[]]}, 422),
        ({"inputs": [["a", "b"]]}, 422),
        ({"inputs": ""}, 422),
        ({"inputs": "\ud800"}, 422),
        ({"inputs": float("nan")}, 422),
        ({"inputs": {"text": 3}}, 422),
        ({"inputs": "a", "probabilities": "yes", "raw_scores": "yes"}, 422),
        ({"inputs": "x" * 1001}, 413),
        ({"inputs": [["a"]] * 5}, 413),
        ({"inputs": "x" * 20_000}, 413),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_wrong_gets_its_status(served, body, status):
    for path in ("/predict", "/v1/classify"):
        answer = served.post(path, body)
        is_list = isinstance(body, dict) and isinstance(body.get("inputs"), list)
        if path == "/v1/classify" and is_list and 0 < len(body["inputs"]) < 5:
            assert answer.status == 200  # a row of a list has its own error
            assert all("error" in one for one in answer.json["predictions"])
            continue
        assert answer.status == status
        assert {*answer.json} == {"error", "error_type"}
    assert is_alive(served)


def test_one_bad_row_costs_no_other(served):
    rows = ["the match", None, "x" * 1001, {"text": "the match"}]
    found = served.post("/v1/classify", {"inputs": rows}).json["predictions"]
    assert (
        found[0]
        == found[3]
        == served.post("/v1/classify", {"inputs": rows[:1]}).json["predictions"][0]
    )
    assert [one.get("error") for one in found] == [
        None,
        "inputs: row 2: expected text, got None",
        "inputs: row 3: expected at most 1,000 characters in a text, got 1,001",
        None,
    ]


def test_a_megabyte_is_refused_and_its_sender_reads_why(served):
    for headers in ({}, {"Transfer-Encoding": "chunked"}):
        body = json.dumps({"inputs": "x" * 1_000_000}).encode()
        if headers:
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        answer = served.post("/predict", body, headers)
        assert answer.status == 413
        assert answer.json["error"] == (
            "expected a body of at most 20,000 bytes; send fewer or shorter texts"
        )
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
    last = b"%x\r\n%b\r\n0\r\n\r\n" % (20_001, b"x" * 20_001)  # too long in its last part
    assert served.ask_raw(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + last) == 413
    head += "Expect: 100-continue\r\n"
    assert served.ask_raw(f"{head}Content-Length: 99999999\r\n\r\n".encode()) == 413
    assert is_alive(served)


def test_other_paths_methods_types_and_garbage(served):
    assert served.ask("GET", "/nothing").status == 404
    assert served.ask("GET", "/../../etc/passwd").status == 404
    assert served.ask("GET", "/docs").status == 404
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        assert served.ask(method, "/predict").status == 405
    assert served.post("/predict", b'{"inputs": "a"}', {"Content-Type": "text/plain"}).status == 415
    assert served.ask_raw(b"\x00\x01\x02\r\n\r\n") == 400
    assert is_alive(served)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "127.0.0.1:x", "10.0.0.1",
     "[::2]:{port}", "me@127.0.0.1", ""],
)  # fmt: skip
def test_another_host_is_refused(served, host):
    host = host.format(port=served.port)
    for path in ("/", "/health", "/metrics", "/info"):
        assert served.ask("GET", path, headers={"Host": host}).status == 421
    assert served.post("/predict", {"inputs": "a"}, {"Host": host}).status == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_pages_of_other_sites_send_and_read_nothing(served, headers):
    answer = served.post("/predict", {"inputs": "a"}, headers)
    assert answer.status == 403
    assert served.ask("OPTIONS", "/predict", headers=headers).status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]
    own = {"Origin": f"http://127.0.0.1:{served.port}", "Sec-Fetch-Site": "same-origin"}
    assert served.post("/predict", {"inputs": "a"}, own).status == 200


def test_names_that_were_allowed(classifier):
    with serving(classifier, allowed_hosts=("api.example",)) as one:
        assert one.ask("GET", "/health", headers={"Host": "API.example:443"}).status == 200
        assert one.ask("GET", "/health", headers={"Host": "10.0.0.1"}).status == 421
    guard = server.make_server(classifier, server.ServerOptions("x", "0.0.0.0")).config.app
    own = [host for host in ("10.0.0.1:80", "[fe80::1]", "999.0.0.1", "x.example", "localhost:1")
           if guard._is_own_host(host)]  # fmt: skip
    assert own == ["10.0.0.1:80", "[fe80::1]", "localhost:1"]


def test_it_listens_on_loopback_alone():
    assert server.ServerOptions("x").host == "127.0.0.1"
    assert [server.is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0")] == [
        True, True, True, False,
    ]  # fmt: skip


def test_a_key_is_asked_for_and_never_told(classifier, monkeypatch, capfd):
    with serving(classifier, KEY) as one:
        assert one.post("/predict", {"inputs": "a"}).status == 200
        assert one.ask("GET", "/metrics").status == 200
        for wrong in ("", "Bearer", f"Bearer {KEY}x", f"Basic {KEY}", KEY, "Bearer \xe9"):
            for path in ("/predict", "/v1/classify", "/nothing"):
                answer = one.post(path, {"inputs": "a"}, {"Authorization": wrong})
                assert answer.status == 401
                assert answer.headers["www-authenticate"] == "Bearer"
            assert one.ask("GET", "/info", headers={"Authorization": wrong}).status == 401
            assert one.ask("GET", "/metrics", headers={"Authorization": wrong}).status == 401
            assert one.ask("GET", "/health", headers={"Authorization": wrong}).status == 200
    assert KEY not in repr(one.server.config.app.options)
    assert KEY not in "".join(capfd.readouterr())
    for bad in ("", "short", "with a space in the middle of it", "\xe9" * 20):
        monkeypatch.setenv(server.KEY, bad)
        with pytest.raises(InputError, match="FINETUNE_API_KEY: expected 16 or more printable"):
            server.read_key()
    monkeypatch.setenv(server.KEY, KEY)
    assert server.read_key() == KEY


def test_a_full_queue_says_when_to_come_again(classifier, served, monkeypatch):
    gate, answers = Gate(classifier, monkeypatch), []
    asked = threading.Thread(
        target=lambda: answers.append(served.post("/v1/classify", {"inputs": ["a"] * 3}))
    )
    asked.start()
    gate.wait()
    refused = served.post("/v1/classify", {"inputs": ["a"] * 2})
    assert refused.status == 429
    assert refused.json["error_type"] == "overloaded"
    assert int(refused.headers["retry-after"]) >= 1
    gate.open()
    asked.join()
    assert answers[0].status == 200
    assert is_alive(served)


def test_a_client_that_goes_costs_no_computation(classifier, served, monkeypatch):
    gone = served.metric('finetune_requests_total{path="/v1/classify",status="499"}')
    gate, answers = Gate(classifier, monkeypatch), []
    asked = threading.Thread(
        target=lambda: answers.append(served.post("/v1/classify", {"inputs": "a"}))
    )
    asked.start()
    gate.wait()
    body = b'{"inputs": ["a", "b", "c"]}'
    head = f"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(head.encode() + body)
        wait_for(lambda: served.metric("finetune_held_rows") == 4)
    wait_for(lambda: served.metric("finetune_held_rows") == 1)
    counted = 'finetune_requests_total{path="/v1/classify",status="499"}'
    assert served.metric(counted) == gone + 1
    gate.open()
    asked.join()
    assert answers[0].status == 200
    assert is_alive(served)
    assert gate.calls == [1, 1]


def test_a_body_that_does_not_arrive(classifier):
    with serving(classifier) as one:
        one.server.config.app.options = server.GuardOptions(body_seconds=0.05)
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{one.port}\r\nContent-Length: 9\r\n\r\n"
        assert one.ask_raw(head.encode()) == 408
        one.server.config.app.options = server.GuardOptions()
        assert is_alive(one)


def test_many_unknown_keys_are_one_error(served):
    """To name each of them would take seconds, in which nobody else is answered."""
    answer = served.post("/v1/classify", {"inputs": "a"} | {f"{n}": 0 for n in range(1500)})
    assert answer.status == 422
    assert json.loads(answer.body)["error"] == (
        "0: no such key; the keys are: inputs, probabilities, explain"
    )


def test_no_text_is_printed_whatever_fails(classifier, served, monkeypatch, capfd):
    secret = "the minister and the robot"

    def fail(*arguments, **more):
        raise ValueError(f"cannot do {secret}")

    for name in ("decide", "encode"):
        with monkeypatch.context() as patch:
            patch.setattr(classifier, name, fail)
            answer = served.post("/v1/classify", {"inputs": secret})
            assert answer.status == 500
            assert json.loads(answer.body)["error"] == "the server failed; its log says where"
            assert "minister" not in answer.body.decode()
    served.post("/v1/classify", {"inputs": [secret, 3, secret * 100]})
    served.ask("GET", f"/{secret.replace(' ', '')}?text={secret.replace(' ', '+')}")
    said = "".join(capfd.readouterr())
    assert "minister" not in said
    assert said.count("a request failed: ValueError in test_server.py, line ") == 2
    assert "minister" not in served.ask("GET", "/metrics").body.decode()
    assert is_alive(served)


def test_the_page_asks_no_network(served):
    page = served.ask("GET", "/").body.decode()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert "default-src 'none'" in page
    assert served.ask("GET", "/").headers["x-frame-options"] == "DENY"


def test_a_stop_finishes_what_was_taken_and_refuses_what_is_new(classifier, monkeypatch):
    gate, answers = Gate(classifier, monkeypatch), []
    with serving(classifier) as one:

        def ask():
            answers.append(one.post("/v1/classify", {"inputs": ["the match"] * 3}).status)

        asked = [threading.Thread(target=ask) for _ in range(8)]
        for thread in asked:
            thread.start()
        gate.wait()
        wait_for(lambda: one.metric("finetune_held_rows") == 24)
        one.server.handle_exit(15, None)
        wait_for(lambda: is_refused(one.port))
        gate.open()
        for thread in asked:
            thread.join()
    assert answers == [200] * 8
    assert not one.server.force_exit


def test_a_request_on_its_way_when_the_server_stops_is_answered(classifier):
    """On a connection that seemed idle; the client is told to close it."""
    with serving(classifier) as one:
        connection = http.client.HTTPConnection("127.0.0.1", one.port, timeout=120)
        for is_stopping in (False, True):
            one.server.config.app.is_stopping = is_stopping
            connection.request("GET", "/health")
            answer = connection.getresponse()
            assert answer.status == 200
            assert (answer.headers["connection"] == "close") == is_stopping
            answer.read()
        assert connection.sock is None


@contextlib.contextmanager
def connected(served, content=b""):
    """A connection on which so much was sent, when the server has read it."""
    before = set(served.server.server_state.connections)
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as connection:
        connection.sendall(content)
        wait_for(lambda: new_connections(served, before))
        (found,) = new_connections(served, before)
        wait_for(lambda: found.conn.trailing_data[0] == content)
        yield connection


def new_connections(served, before):
    return set(served.server.server_state.connections) - before


@dataclasses.dataclass(eq=False)
class Waiting:
    """Stands for a connection with an answer that its client has to read."""

    since: float
    transport: object
    limits: ConnectionLimits


def impatient(served, monkeypatch):
    """Give clients no time at all."""
    limits = ConnectionLimits(header_seconds=0, read_seconds=0, read_rate=10**9)
    monkeypatch.setattr(served.server.config.http_protocol_class, "limits", limits)


def test_a_header_that_does_not_arrive(served, monkeypatch):
    for content, answer in ((b"", b""), (b"POST /predict HTTP/1.1\r\nHost: 127", b"HTTP/1.1 408 ")):
        with connected(served, content) as connection, monkeypatch.context() as patch:
            impatient(served, patch)
            assert connection.recv(1 << 16)[: len(b"HTTP/1.1 408 ")] == answer
    assert is_alive(served)


def test_a_header_of_a_second_request_that_does_not_arrive(served, monkeypatch):
    with connected(served) as connection:
        ask = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode()
        connection.sendall(ask)
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /health HT")
        with monkeypatch.context() as patch:
            impatient(served, patch)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408 ")
    assert is_alive(served)


def test_a_client_that_reads_no_answer(served, monkeypatch):
    ask = f"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n".encode()
    wait_for(lambda: not served.server.server_state.connections)
    with connected(served) as connection:
        (there,) = served.server.server_state.connections
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the smallest there is
        its = there.transport.get_extra_info("socket")
        its.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        for _ in range(20):  # more than both sides' buffers hold
            connection.sendall(ask)
        wait_for(there.transport.get_write_buffer_size)
        with monkeypatch.context() as patch:
            impatient(served, patch)
            wait_for(lambda: not served.server.server_state.connections)
    assert is_alive(served)


def test_unread_answers_have_a_budget_together():
    """The one that has waited longest goes first; the last may have more."""

    def connection(since, size):
        transport = SimpleNamespace(
            get_write_buffer_size=lambda: size, abort=lambda: gone.append(since)
        )
        return Waiting(since, transport, ConnectionLimits(unread_bytes=100))

    gone = []
    for sizes, expected in (
        ((60, 50, 0), [0]),
        ((0, 60, 40), []),
        ((90, 90, 90), [0, 1]),
        ((0, 200, 0), []),
        ((), []),
    ):
        gone.clear()
        these = [connection(since, size) for since, size in enumerate(sizes)]
        server_connections.close_unread(reversed(these))
        assert gone == expected


def test_what_is_no_http_gets_the_status_that_fits(served):
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
    for content, status in (
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (f"{head}Content-Length: x\r\n\r\n".encode(), 400),
        (f"{head}Content-Length: 3\r\nContent-Length: 4\r\n\r\n".encode(), 400),
        (f"{head}Transfer-Encoding: gzip\r\n\r\n".encode(), 501),
        (f"{head}X: ".encode() + b"x" * 1_000_000, 431),
        (f"{head}Transfer-Encoding: chunked\r\n\r\nzzz\r\n".encode(), 400),
    ):
        answer = served.ask_whole(content)
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert {*json.loads(answer.partition(b"\r\n\r\n")[2])} == {"error", "error_type"}
    assert is_alive(served)


def test_more_connections_than_may_be_open(served, monkeypatch):
    wait_for(lambda: not served.server.server_state.connections)
    monkeypatch.setattr(
        served.server.config.http_protocol_class, "limits", ConnectionLimits(count=1)
    )
    with connected(served):
        answer = served.ask("GET", "/health")
    assert answer.status == 503
    assert answer.json["error"] == "more than 1 connections are open; try again"
    wait_for(lambda: not served.server.server_state.connections)
    monkeypatch.setattr(server_connections, "REFUSED", 0)
    with connected(served):
        assert served.ask_raw(b"") is None
    wait_for(lambda: not served.server.server_state.connections)
    assert is_alive(served)


def test_bodies_have_a_budget_together(classifier):
    with serving(classifier) as one:
        one.server.config.app.options = server.GuardOptions(held_bytes=1000)
        head = f"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1:{one.port}\r\n"
        head += "Content-Type: application/json\r\nContent-Length: 2000\r\n\r\n"
        body = json.dumps({"inputs": "the match"}).encode().ljust(2000)
        with socket.create_connection(("127.0.0.1", one.port), timeout=PATIENCE) as connection:
            connection.sendall(head.encode() + body[:1900])  # alone, it may have more
            wait_for(lambda: one.server.config.app.held == 1900)
            refused = one.post("/v1/classify", {"inputs": "the match"})
            assert refused.status == 429
            assert refused.headers["retry-after"] == "1"
            assert refused.json["error_type"] == "overloaded"
            assert one.ask("GET", "/health").status == 200
            connection.sendall(body[1900:])
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        wait_for(lambda: not one.server.config.app.held)
        assert is_alive(one)


def test_a_second_signal_waits_for_no_connection(classifier):
    with serving(classifier) as one:
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{one.port}\r\nContent-Length: 9\r\n\r\n"
        with socket.create_connection(("127.0.0.1", one.port), timeout=PATIENCE) as connection:
            connection.sendall(head.encode())
            wait_for(lambda: one.server.server_state.tasks)
            one.server.handle_exit(15, None)
            wait_for(lambda: is_refused(one.port))
            one.server.handle_exit(15, None)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        one.thread.join(PATIENCE)
        assert not one.thread.is_alive()
        assert one.server.force_exit


def test_a_second_signal_waits_for_nothing_that_is_computed(classifier, monkeypatch):
    """Nor after its client has gone, when nobody waits for it any more."""
    gate, left = Gate(classifier, monkeypatch), threading.Event()
    with serving(classifier) as one:
        one.server.leave = left.set
        body = b'{"inputs": "a"}'
        head = f"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1:{one.port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", one.port), timeout=PATIENCE) as connection:
            connection.sendall(head.encode() + body)
            gate.wait()
        try:
            wait_for(lambda: not one.server.server_state.connections)
            one.server.handle_exit(15, None)
            wait_for(lambda: is_refused(one.port))
            one.server.handle_exit(15, None)
            assert left.wait(PATIENCE)
        finally:
            gate.open()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("API.example.com", "api.example.com"),
        ("my_service", "my_service"),
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "[::1]"),
        ("[FE80::1]", "[fe80::1]"),
    ],
)
def test_names_that_a_server_may_have(given, expected):
    assert server.read_names([given]) == (expected,)


@pytest.mark.parametrize(
    ("given", "example"),
    [
        ("https://api.example.org", "api.example.org"),
        ("api.example.org/", "api.example.org"),
        ("api.example.org:443", "api.example.org"),
        ("http://API.example.org:80/predict", "api.example.org"),
        ("*.example.org", "api.example.com"),
        ("a b", "api.example.com"),
        ("", "api.example.com"),
        ("bücher.example", "api.example.com"),
        ("http://[", "api.example.com"),
    ],
)
def test_names_that_it_may_not_have(given, example):
    with pytest.raises(InputError) as raised:
        server.read_names([given, "x:1"])
    assert raised.value.problems == tuple(
        f"--allow-host {name}: expected a name alone, without a scheme, port or path, such as {one}"
        for name, one in ((given, example), ("x:1", "x"))
    )
