"""The demo's server answers its own page alone: real HTTP to a real server with a tiny model."""

import contextlib
import json
import re
import socket
import urllib.request

import pytest

pytest.importorskip("gradio", reason="the extra `demo` is not installed")

from finetune.inference import demo
from finetune.inference.classifier import Classifier
from finetune.inference.demo_guard import DemoGuard
from finetune.runtime.errors import InputError
from tests.support.runs import run_here

JSON = "application/json"


@pytest.fixture(scope="module")
def classifier(documents, shared):
    def train(folder):
        with contextlib.chdir(documents):
            run_here("run.dir=shown-to-attackers", "train.max_steps=2")

    return Classifier(shared("documents/shown-to-attackers", train))


@pytest.fixture(scope="module")
def page(classifier, tmp_path_factory):
    """The page, started by a user who once had Gradio serve a folder."""
    allowed = tmp_path_factory.mktemp("allowed")
    (allowed / "secret.txt").write_text("top secret")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ALLOWED_PATHS", str(allowed))
        page = demo.show(classifier, "model")
    page.secret = allowed / "secret.txt"
    yield page
    page.close(verbose=False)


def port_of(page):
    return int(re.search(r":(\d+)/", page.local_url)[1])


def ask(page, start, headers=(), body=b"", host=None):
    """A request as its bytes, as no library would send it: status and body."""
    host = f"127.0.0.1:{port_of(page)}" if host is None else host
    lines = [f"{start} HTTP/1.1", *([f"Host: {host}"] if host else []), *headers]
    if not any(line.lower().startswith(("content-length", "transfer")) for line in lines):
        lines.append(f"Content-Length: {len(body)}")
    lines.append("Connection: close")
    with socket.create_connection(("127.0.0.1", port_of(page)), timeout=60) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(body)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(1 << 16):
                answer += part
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), content


def join(page, *texts, headers=(), session="attack"):
    """What the page sends for a click: status and body."""
    function = next(number for number in page.fns)
    call = {"data": [*texts], "fn_index": function, "session_hash": session, "event_data": None}
    given = [f"Content-Type: {JSON}", *headers]
    body = json.dumps(call, ensure_ascii=False).encode()  # as a browser writes it
    return ask(page, "POST /gradio_api/queue/join", given, body)


def test_the_page_itself_is_answered(page):
    assert ask(page, "GET /")[0] == 200
    port = port_of(page)
    assert ask(page, "GET /", host=f"localhost:{port}")[0] == 200
    assert ask(page, "GET /config")[0] == 200
    origin = [f"Origin: http://127.0.0.1:{port}", "Sec-Fetch-Site: same-origin"]
    assert join(page, "A team.", headers=origin)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "127.0.0.1:",
     "127.0.0.1:x", "localhost.:{port}", "0.0.0.0:{port}", "[::2]:{port}", "127.1:{port}",
     "me@127.0.0.1:{port}", "127.0.0.1:{port}, evil.example"],
)  # fmt: skip
def test_another_host_is_refused(page, host):
    """A name that was made to mean 127.0.0.1."""
    host = host.format(port=port_of(page))
    for start in ("GET /", "GET /config", "POST /gradio_api/queue/join"):
        assert ask(page, start, host=host)[0] == 421


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST:1", "[::1]:8080", "127.0.0.1"]
)
def test_a_tunnel_from_another_port_is_answered(page, host):
    assert ask(page, "GET /", host=host)[0] == 200
    assert ask(page, "GET /config", [f"Origin: http://{host}"], host=host)[0] == 200
    other = [f"Origin: http://127.0.0.1:{port_of(page)}"]
    assert ask(page, "GET /config", other, host=host)[0] == 403


def test_no_page_frames_it(page):
    with urllib.request.urlopen(page.local_url, timeout=60) as answer:
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers.get_all("Content-Security-Policy")


def test_two_hosts_or_none_are_refused(page):
    host = f"127.0.0.1:{port_of(page)}"
    assert ask(page, "GET /", ["Host: evil.example"], host=host)[0] in (400, 421)
    assert ask(page, "GET /", [f"Host: {host}"], host="evil.example")[0] in (400, 421)
    assert ask(page, "GET /", host="")[0] in (400, 421)


@pytest.mark.parametrize(
    "headers",
    [
        ["Origin: http://evil.example"],
        ["Origin: null"],
        ["Origin: http://localhost:1"],
        ["Origin: https://127.0.0.1:{port}"],
        ["Origin: http://127.0.0.1:{port}.evil.example"],
        ["Origin: http://127.0.0.1:{port}", "Origin: http://evil.example"],
        ["Sec-Fetch-Site: cross-site"],
        ["Sec-Fetch-Site: same-site"],
    ],
    ids=str,
)
def test_pages_of_other_sites_send_and_read_nothing(page, headers):
    headers = [line.format(port=port_of(page)) for line in headers]
    assert join(page, "A team.", headers=headers)[0] == 403
    form = [*headers, "Content-Type: text/plain"]  # as a form sends it, without asking first
    assert ask(page, "POST /gradio_api/queue/join", form, b"{}")[0] == 403
    assert ask(page, "GET /config", headers)[0] == 403


def test_a_link_from_another_site_opens_the_page(page):
    assert ask(page, "GET /", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"])[0] == 200


UPLOAD = (
    b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
    b"planted\r\n--x--\r\n"
)


def test_nothing_is_uploaded(page, tmp_path_factory):
    form = ["Content-Type: multipart/form-data; boundary=x"]
    for path in ("/gradio_api/upload", "/gradio_api/upload?upload_id=1", "/upload"):
        assert ask(page, f"POST {path}", form, UPLOAD)[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file={secret}",
        "/gradio_api/file/{secret}",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=https://evil.example/x",
        "/gradio_api/proxy=https://evil.example/x",
        "/file={secret}",
        "/static/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/assets/../../../../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/vibe-code",
        "/gradio_api/deep_link",
        "/monitoring",
        "/login_check",
        "/docs",
    ],
)
def test_no_file_and_no_address_is_read_for_anybody(page, path):
    status, content = ask(page, f"GET {path.format(secret=page.secret)}")
    assert status in (403, 404)
    assert b"secret" not in content
    assert b"root:" not in content


@pytest.mark.parametrize("path", ["run/classify", "call/classify", "api/predict", "vibe-edit"])
def test_the_api_is_closed(page, path):
    assert ask(page, f"POST /gradio_api/{path}", [f"Content-Type: {JSON}"], b"{}")[0] == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT"])
def test_other_methods(page, method):
    assert ask(page, f"{method} /gradio_api/queue/join")[0] in (400, 404, 405)


def limit(page):
    return next(
        one.kwargs["most_bytes"] for one in page.app.user_middleware if one.cls is DemoGuard
    )


def test_a_body_is_bounded_whether_it_declares_its_length_or_not(page):
    assert limit(page) < 10**7
    start, kind = "POST /gradio_api/queue/join", [f"Content-Type: {JSON}"]
    assert ask(page, start, [*kind, f"Content-Length: {10**12}"])[0] == 413
    whole = b"x" * (limit(page) + 1)
    assert ask(page, start, kind, whole)[0] == 413
    chunk = b"%x\r\n%b\r\n" % (len(whole), whole)
    assert ask(page, start, [*kind, "Transfer-Encoding: chunked"], chunk)[0] == 413


def test_a_text_is_bounded_where_no_box_bounds_it(page, classifier):
    with pytest.raises(InputError) as caught:
        demo.inspect_texts(classifier, ["x" * (demo.CHARACTERS + 1)])
    assert str(caught.value) == (
        "this page: 'text' has 500,001 characters; expected at most 500,000; give a shorter text"
    )
    assert join(page, "x" * (demo.CHARACTERS + 1), session="long")[0] == 200
    assert "500,001 characters" in answers(page, "long")


def answers(page, session):
    """What the server says to the session until its event is done."""
    address = f"{page.local_url}gradio_api/queue/data?session_hash={session}"
    said = ""
    with urllib.request.urlopen(address, timeout=60) as events:
        for line in events:
            said += line.decode()
            if b"process_completed" in line:
                return said
    return said


def test_the_longest_text_that_is_allowed_gets_through(page):
    """A character of it may take four bytes; it is classified as any other."""
    assert join(page, "\U0001f600" * demo.CHARACTERS, session="longest")[0] == 200
    said = answers(page, "longest")
    assert '"success":true' in said
    assert "tokens" in said


def test_it_listens_on_loopback_alone(page):
    own = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in own - {"127.0.0.1"}:
        with (
            pytest.raises(ConnectionRefusedError),
            socket.create_connection((address, port_of(page)), timeout=5),
        ):
            pass
    assert page.server_name == "127.0.0.1"
