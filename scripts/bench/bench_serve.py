"""A bounded load test of `finetune serve` on loopback, beside predict's classifier in one process.

    python scripts/bench/bench_serve.py MODEL test.jsonl.gz [--clients 32] [--rows 960] [--each 1 8]
    python scripts/bench/bench_serve.py MODEL test.jsonl.gz --requests 100000 --words 8

By turns, in rounds: the classifier on all rows, then as many rows through the server by so many
clients, each with one connection and one request at a time, of so many documents (--each). Printed
are rows/s of both, the ratio (median of the rounds), p50 and p99 of a request, and whether all
labels are the same. All clients are one thread, which reads sockets and little else: what a client
does with its answer is not the server's. CPU seconds are those of the classifier and of the server
alone: on a machine that others use too, they say more than rows/s. --requests: instead, so many
requests of a row, and the memory of the server at each tenth. Last, the server is stopped while all
clients ask, and what it took and did not answer is counted. The server is a process of its own, so
clients and server share the machine's cores.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import re
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from finetune.runtime import console

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", help="run folder or model folder")
    add("data", help="documents with a column text")
    add("--clients", type=int, default=32)
    add("--rows", type=int, default=960)
    add("--rounds", type=int, default=3)
    add("--each", type=int, nargs="+", default=[1, 8], help="documents of a request")
    add("--words", type=int, help="of a document; the rest is cut")
    add("--requests", type=int, help="measure memory over so many requests")
    add("--threads", type=int, help="of both sides")
    known = parser.parse_args()
    console.quiet_libraries()
    from bench_texts import read_texts

    words = (text.split()[: known.words] for text in read_texts(known.data, known.rows))
    texts = [" ".join(some) for some in words]
    server = Server(known)
    try:
        if known.requests is None:
            compare(known, texts, server)
        else:
            watch_memory(known, texts, server)
        stop_under_load(known, texts, server)
    finally:
        server.process.kill()
    return 0


class Server:
    """`finetune serve` in a process of its own."""

    def __init__(self, known: argparse.Namespace) -> None:
        threads = [] if known.threads is None else ["--threads", str(known.threads)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "finetune", "serve", known.model, "--port", "0", *threads],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path.cwd(),
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        port = re.search(r":(\d+)  ", line)
        assert port is not None, line
        self.port = int(port[1])

    def memory(self) -> float:
        """Resident memory, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s*(\d+)", status)
        return 0.0 if found is None else int(found[1]) / 1024

    def cpu_seconds(self) -> float:
        """Of all its threads, since it began."""
        status = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii")
        user, system = status.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


class Client:
    """One connection, with one request at a time."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def ask(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        body = json.dumps({"inputs": texts})
        self.connection.request("POST", "/v1/classify", body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        content = json.loads(answer.read())
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {content}")
        predictions: list[dict[str, Any]] = content["predictions"]
        return predictions


def in_threads(many: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def ask_all(
    server: Server, known: argparse.Namespace, texts: Sequence[str], each: int
) -> tuple[list[str], list[float]]:
    """Every text once, by all clients: the labels in order, and the seconds of each request."""
    starts = range(0, len(texts), each)
    parts = iter(starts)
    requests = {at: write_request(server.port, texts[at : at + each]) for at in starts}
    answers: dict[int, bytes] = {}
    seconds: list[float] = []
    began: dict[int, float] = {}
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())

        def ask_next(connection: socket.socket) -> None:
            start = next(parts, None)
            if start is not None:
                began[start] = time.perf_counter()
                connection.sendall(requests[start])
                selector.register(connection, selectors.EVENT_READ, (start, bytearray()))

        for _ in range(known.clients):
            address = ("127.0.0.1", server.port)
            ask_next(stack.enter_context(socket.create_connection(address, timeout=600)))
        while len(answers) < len(starts):
            for key, _ in selector.select():
                connection, (start, got) = key.fileobj, key.data
                assert isinstance(connection, socket.socket)
                got += connection.recv(1 << 16)
                body = read_answer(bytes(got))
                if body is not None:
                    seconds.append(time.perf_counter() - began[start])
                    answers[start] = body
                    selector.unregister(connection)
                    ask_next(connection)
    found = (json.loads(answers[start])["predictions"] for start in starts)
    return [one["label"] for many in found for one in many], seconds


def write_request(port: int, texts: Sequence[str]) -> bytes:
    body = json.dumps({"inputs": texts}).encode()
    head = (
        f"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def read_answer(got: bytes) -> bytes | None:
    """The body of an answer; None where it is not whole yet."""
    head, end, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    if not end or length is None or len(body) < int(length[1]):
        return None
    if not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"{head.decode()}: {body.decode()}")
    return body


def compare(known: argparse.Namespace, texts: Sequence[str], server: Server) -> None:
    from finetune.inference.classifier import Classifier

    classify = Classifier(known.model, threads=known.threads)
    classify(texts[:64])
    ask_all(server, known, texts[:64], 8)
    took: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    requests: dict[str, list[float]] = {}
    same: dict[str, float] = {}
    for _ in range(known.rounds):
        began, before = time.perf_counter(), time.process_time()
        expected = [one["label"] for one in classify(texts)]
        took.setdefault("predict", []).append(time.perf_counter() - began)
        cpu.setdefault("predict", []).append(time.process_time() - before)
        for each in known.each:
            name = f"serve, {each} a request"
            began, before = time.perf_counter(), server.cpu_seconds()
            labels, seconds = ask_all(server, known, texts, each)
            took.setdefault(name, []).append(time.perf_counter() - began)
            cpu.setdefault(name, []).append(server.cpu_seconds() - before)
            requests.setdefault(name, []).extend(seconds)
            same[name] = statistics.mean(a == b for a, b in zip(labels, expected, strict=True))
    print_comparison(known, len(texts), took, cpu, requests, same)


def print_comparison(
    known: argparse.Namespace,
    rows: int,
    took: dict[str, list[float]],
    cpu: dict[str, list[float]],
    requests: dict[str, list[float]],
    same: dict[str, float],
) -> None:
    """A line for predict, and one for each kind of request.

    Args:
        took, cpu: seconds of each round.
        requests: seconds of each request.
    """
    speeds = ("rows/s", "of predict", "CPU ms a row", "of predict")
    table = [("", *speeds, "p50 ms", "p99 ms", "same labels")]
    for name, values in took.items():
        ratio = statistics.median(a / b for a, b in zip(took["predict"], values, strict=True))
        more = statistics.median(b / a for a, b in zip(cpu["predict"], cpu[name], strict=True))
        row = (
            name,
            f"{rows / statistics.median(values):.1f}",
            f"{100 * ratio:.0f} %",
            f"{1000 * statistics.median(cpu[name]) / rows:.1f}",
            f"{100 * more:.0f} %",
        )
        rest = ("", "", "")
        if name in requests:
            cuts = statistics.quantiles(requests[name], n=100)
            rest = (
                f"{1000 * cuts[49]:.0f}",
                f"{1000 * cuts[98]:.0f}",
                f"{100 * same[name]:.2f} %",
            )
        table.append((*row, *rest))
    console.print_line(
        f"{rows:,} rows, {known.rounds} rounds, {known.clients} clients, load "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    console.print_line(console.format_table(table))


def watch_memory(known: argparse.Namespace, texts: Sequence[str], server: Server) -> None:
    tenth = known.requests // 10
    for number in range(11):
        if number:
            some = list(itertools.islice(itertools.cycle(texts), tenth))
            ask_all(server, known, some, 1)
        console.print_line(f"{number * tenth:>9,} requests  {server.memory():,.1f} MB")


def stop_under_load(known: argparse.Namespace, texts: Sequence[str], server: Server) -> None:
    """SIGTERM while all clients ask: what was answered, and what became of each client's last one.

    A closed port takes nothing, so nothing is lost there. A request is lost where its connection
    is closed before an answer, or where it is answered with an error.
    """
    ends: dict[str, int] = {}
    answered = [0] * known.clients

    def work(number: int) -> None:
        client = Client(server.port)
        for text in itertools.cycle(texts):
            try:
                client.ask([text])
                answered[number] += 1
            except Exception as error:
                ends[type(error).__name__] = ends.get(type(error).__name__, 0) + 1
                return

    stopper = threading.Timer(2.0, server.process.send_signal, (signal.SIGTERM,))
    stopper.start()
    in_threads(known.clients, work)
    code = server.process.wait(60)
    refused = ends.pop("ConnectionRefusedError", 0)
    lost = ", ".join(f"{count:,} {name}" for name, count in ends.items()) or "0"
    console.print_line(
        f"SIGTERM under load: {sum(answered):,} answered, {refused:,} met a closed port, "
        f"lost: {lost}; exit code {code}"
    )


if __name__ == "__main__":
    sys.exit(main())
