"""The command: it says where it listens, answers, and ends in order after a signal."""

import http.client
import json
import re
import signal
import socket

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from finetune.cli import serve
from finetune.inference import server
from tests.support import forks
from tests.support.served import LABELS, is_refused, wait_for, write_classifier


@pytest.fixture(scope="session")
def model(shared):
    return shared("served", write_classifier) / "model"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_until_a_signal(model, tmp_path, number):
    words = [str(model), "--port", "0", "--threads", "1"]
    process = forks.start("finetune.cli.serve", *words, cwd=tmp_path)
    try:
        said = process.stdout.readline()
        port = int(
            re.fullmatch(r"served: http://127\.0\.0\.1:(\d+)  \(Ctrl-C ends it\)\n", said)[1]
        )
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        body = json.dumps({"inputs": "the match"})
        connection.request("POST", "/v1/classify", body, {"Content-Type": "application/json"})
        found = json.loads(connection.getresponse().read())
        assert found["predictions"][0]["label"] in LABELS
        process.send_signal(number)
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0
    assert out == "Stopped; all that was asked is answered\n"


def test_a_second_signal_ends_it_at_once(model, tmp_path):
    process = forks.start("finetune.cli.serve", str(model), "--port", "0", cwd=tmp_path)
    try:
        port = int(process.stdout.readline().split(":")[3].split()[0])
        with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
            head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 9\r\n"
            connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 100 ")  # its body is awaited
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: is_refused(port))
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out == "Ended at once; what was not answered is lost\n"


def test_what_it_refuses(model, tmp_path, monkeypatch, capsys):
    assert serve.main([str(tmp_path / "none")]) == 2
    monkeypatch.setenv(server.KEY, "short")
    assert serve.main([str(model)]) == 2
    monkeypatch.delenv(server.KEY)
    listener = server.open_socket("127.0.0.1", 0)
    port = str(listener.getsockname()[1])
    words = [str(model), "--threads", "1"]
    assert serve.main([*words, "--port", port]) == 2
    assert serve.main([*words, "--port", "70000"]) == 2
    assert serve.main([*words, "--host", ".."]) == 2
    listener.close()
    monkeypatch.setattr(serve, "NEEDS", {"no_such_module": "Something"})
    assert serve.main(words) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "no such file or folder" in errors[0]
    assert errors[1].startswith("error: FINETUNE_API_KEY: expected 16 or more printable ASCII")
    assert errors[2:] == [
        f"error: --host 127.0.0.1 --port {port}: address already in use; choose another",
        "error: --port: expected a number from 0 to 65535, got 70000",
        "error: --host: ..: no address of this machine has that name",
        "error: Something: not installed; pip install 'finetune-documents[serve]'",
    ]
