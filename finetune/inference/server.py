"""A classifier on a port of this machine until a signal says stop: `finetune serve`.

    run_server(classifier, ServerOptions(name="news"))

SIGTERM and SIGINT end it in order: nothing new is taken, what was taken is answered. A second
signal ends it at once. It says where it listens and how it ended; uvicorn's log of requests is off.
"""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import FrameType
from urllib.parse import urlsplit

import uvicorn

from finetune.inference.classifier import Classifier
from finetune.inference.classifier_service import ServerLimits
from finetune.inference.server_app import build_app
from finetune.inference.server_connections import (
    ConnectionLimits,
    TimedConnection,
    close_unread,
    count_connections,
)
from finetune.inference.server_guard import GuardOptions, ServerGuard
from finetune.runtime.console import print_line
from finetune.runtime.errors import InputError, ProblemList

LOOPBACK = "127.0.0.1"
PORT = 8000
KEY = "FINETUNE_API_KEY"
SHORTEST_KEY = 16  # characters
DRAIN = 1.0  # seconds that idle connections stay open after a signal
AT_ONCE = 130  # the exit code after a second signal
TICK = 0.25  # seconds between two looks at the time limits of connections
IPV6 = 6
NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*"
)
KEEP_ALIVE = 75  # seconds that an idle connection stays open: longer than the clients' own pools


@dataclass(frozen=True)
class ServerOptions:
    """Where it listens, and what it lets through.

    Attributes:
        name: of the model, for clients.
        port: 0: any that is free.
        allowed_hosts: names under which it is reached, beside loopback's and its own; as of
            `read_names`.
        most_bytes: of a body.
    """

    name: str
    host: str = LOOPBACK
    port: int = PORT
    allowed_hosts: tuple[str, ...] = ()
    most_bytes: int = GuardOptions.most_bytes
    limits: ServerLimits = field(default_factory=ServerLimits)


class SignalledServer(uvicorn.Server):
    """uvicorn's server, which returns after a signal instead of raising it again.

    Attributes:
        leave: is called after a second signal, when every connection is closed; a command ends
            its process by it.
    """

    def __init__(self, config: uvicorn.Config, guard: ServerGuard) -> None:
        super().__init__(config)
        self.guard = guard
        self.leave: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Listen to signals, where this is the thread that gets them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin, also to watch the time that clients take."""
        await super().startup(sockets)
        self._watcher = asyncio.create_task(self._watch_connections())

    async def _watch_connections(self) -> None:
        """Close those whose clients take too long, and after a second signal all of them.

        From Python 3.12 on, the listener of a port is closed only when its connections are.
        """
        while True:
            now = asyncio.get_running_loop().time()
            timed = []
            for connection in list(self.server_state.connections):
                if self.force_exit:
                    connection.transport.abort()
                elif isinstance(connection, TimedConnection):
                    connection.check_time(now)
                    timed.append(connection)
            close_unread(timed)
            await asyncio.sleep(TICK)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port at once, and idle connections only after a moment.

        A request may be on its way on a connection that seems idle. It is answered, and its client
        told to close.
        """
        for one in self.servers:
            one.close()
        for listener in sockets or ():
            listener.close()
        self.guard.is_stopping = True
        until = time.monotonic() + DRAIN
        while self.server_state.connections and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.02)
        ending = asyncio.ensure_future(super().shutdown(sockets))
        while not ending.done() and not self.force_exit:
            await asyncio.wait((ending,), timeout=TICK)
        if self.force_exit:  # before all that still runs is cancelled, and would answer 500
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0.01)
            self.leave()
        await ending

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop in order; the second time at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


def read_key() -> str | None:
    """The key that requests must bring, from the environment; None: none.

    Raises:
        InputError: for one that is easily guessed, or that no header can hold.
    """
    key = os.environ.get(KEY)
    if key is None:
        return None
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(
            f"{KEY}: expected {SHORTEST_KEY} or more printable ASCII characters without a space; "
            'a good one is that of python -c "import secrets; print(secrets.token_urlsafe())"'
        )
    return key


def read_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names under which the server is reached, as a Host header has them, without a port.

    Raises:
        InputError: for each that has a scheme, a port, a path, or characters that no name has.
    """
    problems, found = ProblemList(), []
    for name in names:
        with problems.collect():
            found.append(_read_name(name))
    problems.raise_if_any()
    return tuple(found)


def _read_name(given: str) -> str:
    name = given.lower()
    with contextlib.suppress(ValueError):
        address = ip_address(name.removeprefix("[").removesuffix("]"))
        return f"[{address}]" if address.version == IPV6 else str(address)
    if NAME.fullmatch(name):
        return name
    inner = None
    with contextlib.suppress(ValueError):
        inner = urlsplit(name if "//" in name else f"//{name}").hostname
    example = inner if inner and NAME.fullmatch(inner) else "api.example.com"
    raise InputError(
        f"--allow-host {given}: expected a name alone, without a scheme, port or path, such as "
        f"{example}"
    )


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: for an address that this machine does not have, or a port that is not free.
    """
    if not 0 <= port < 2**16:
        raise InputError(f"--port: expected a number from 0 to 65535, got {port}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except (socket.gaierror, UnicodeError):
        raise InputError(f"--host: {host}: no address of this machine has that name") from None
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else "cannot listen there"
        raise InputError(f"--host {host} --port {port}: {reason}; choose another") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return False


def make_server(
    classifier: Classifier, options: ServerOptions, key: str | None = None
) -> SignalledServer:
    """The server, which does not listen yet."""
    own = () if is_loopback(options.host) else (options.host.lower(),)
    guard = GuardOptions(
        hosts=frozenset((*own, *options.allowed_hosts)),
        any_address=not is_loopback(options.host),
        key=key,
        most_bytes=options.most_bytes,
    )
    app: ServerGuard = build_app(classifier, options.limits, options.name, guard)

    class Connection(TimedConnection):
        limits = ConnectionLimits(count=count_connections())

    return SignalledServer(
        uvicorn.Config(
            app,
            http=Connection,
            loop="asyncio",
            log_config=None,
            access_log=False,
            log_level="error",
            lifespan="on",
            ws="none",
            timeout_keep_alive=KEEP_ALIVE,
            server_header=False,
            proxy_headers=False,
        ),
        app,
    )


def run_server(classifier: Classifier, options: ServerOptions) -> None:
    """Serve until a signal. After a second one, the process ends here, with exit code 130.

    Raises:
        InputError: where the address or the key is not right.
    """
    key = read_key()
    listener = open_socket(options.host, options.port)
    server = make_server(classifier, options, key)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print_line(f"{options.name}: http://{shown}:{port}  (Ctrl-C ends it)", even_if_quiet=True)
    if key is None and not is_loopback(options.host):
        print_line(f"Anybody who reaches {host} may use it: {KEY} sets a key", even_if_quiet=True)
    server.leave = _end_process
    server.run(sockets=[listener])
    print_line("Stopped; all that was asked is answered", even_if_quiet=True)


def _end_process() -> None:
    """End it while threads still compute: Python would wait for them, or they crash as it ends."""
    print_line("Ended at once; what was not answered is lost", even_if_quiet=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(AT_ONCE)
