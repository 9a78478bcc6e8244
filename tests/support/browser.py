"""A headless Chromium, spoken to over two pipes (`--remote-debugging-pipe`): no port, no driver."""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip


def chromium():
    """The path of the installed one, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page, and what it did: `problems` of its console, `requests` that it made."""

    def __enter__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_read, self.out = os.pipe()
        self.into, to_write = os.pipe()
        # The browser reads from its descriptor 3 and writes to 4, which may be taken here.
        given = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_read, to_write)]
        self.process = subprocess.Popen(
            [chromium(), *FLAGS, f"--user-data-dir={self.profile.name}"],
            preexec_fn=lambda: (os.dup2(given[0], 3), os.dup2(given[1], 4)),
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (to_read, to_write, *given):
            os.close(end)
        self.number, self.buffer, self.session = 0, b"", None
        self.problems, self.requests, self.seen = [], [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=20)
        os.close(self.out)
        os.close(self.into)
        self.profile.cleanup()

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def open(self, page: Path | str, width=1280, dark=False):
        """A file, or an address."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.seen.clear()
        self.call("Page.navigate", url=page if isinstance(page, str) else page.absolute().as_uri())
        while "Page.loadEventFired" not in self.seen:
            self._next()

    def value(self, expression):
        """What JavaScript makes of an expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression, seconds=20):
        """What JavaScript makes of an expression, once that is true."""
        end = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < end, (expression, self.problems)
            time.sleep(0.05)
        return found

    def type(self, text):
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def _next(self):
        while b"\0" not in self.buffer:
            read = os.read(self.into, 1 << 16)
            assert read, "the browser ended"
            self.buffer += read
        line, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(line)
        event, about = message.get("method"), message.get("params", {})
        self.seen.append(event)
        if event == "Runtime.exceptionThrown":
            self.problems.append(about["exceptionDetails"]["text"])
        elif event == "Runtime.consoleAPICalled":
            self.problems.append(str(about["args"]))
        elif event == "Log.entryAdded":
            self.problems.append(about["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif event == "Page.javascriptDialogOpening":
            self.problems.append("a dialog")
        return message
