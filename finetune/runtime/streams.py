"""Standard output and error that take every text, whatever their encoding, and never raise.

A terminal of Windows may have 256 characters, one over ssh only ASCII, and the reader of a pipe may
have gone, as behind `| head`. No run ends, and nothing that it was to do is left out, because of
what it prints. Where a full disk, say, loses what is printed, the command says so at its end.

Whatever Python code writes to them in a command comes through here: the command's lines, and what
libraries print, log and warn of. So it is here that control characters are shown instead of sent,
and credentials masked. Only what writes bytes to `sys.stdout.buffer`, or to the file descriptor as
a library in C++ does, is not seen.
"""

import atexit
import codecs
import errno
import io
import json
import logging
import os
import re
import sys
import threading
import traceback
import warnings
from contextlib import suppress
from typing import IO, Any

from finetune.runtime.credentials import mask_credentials
from finetune.runtime.visible_text import visible, visible_json, visible_line

ERRORS = "finetune.readable"
# The reader has gone; Windows has no word of its own for it.
GONE = {errno.EPIPE, errno.EINVAL} if os.name == "nt" else {errno.EPIPE}
# How typists wrote them.
PLAIN = {
    "…": "...", "×": "x", "±": "+-", "–": "-", "—": "-", "−": "-", "→": "->", "↔": "<->",
    "≤": "<=", "≥": ">=", "≈": "~", "·": "-", "•": "*", "‘": "'", "’": "'", "“": '"', "”": '"',
    "─": "-", "█": "#", "✗": "x", "\u00a0": " ", "\u202f": " ",
}  # fmt: skip
# What progress bars begin and end with, and how a line of a text of Windows ends.
BAR = re.compile(r"(\A\n*\r|\r\Z|\r?\n)")
# And on a terminal: moves between bars, and colours, of which 8 would hide text.
BAR_AND_COLOURS = re.compile(
    rf"{BAR.pattern[:-1]}|\A(?:\x1b\[A)+\Z|\x1b\[(?!;?0*8[;m])[0-9]{{0,3}}m)"
)


class VisibleStream(io.TextIOWrapper):
    """A stream of the process on which no text acts, whoever writes it."""

    def write(self, text: str) -> int:
        """Write what the text shows; the count is that of the text's own characters."""
        parts = (BAR_AND_COLOURS if self.isatty() else BAR).split(mask_credentials(text))
        parts[::2] = [visible(part) for part in parts[::2]]
        super().write("".join(parts))
        return len(text)


def prepare_streams() -> None:
    """Have this process's streams take every text; each command begins with this."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        # None without a console, as under pythonw; a notebook's takes everything already.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)
            if stream is getattr(sys, f"__{name}__"):  # else a test's or a debugger's
                setattr(sys, name, _make_visible(stream))
    atexit.unregister(flush_streams)
    atexit.register(flush_streams)
    if sys.excepthook is sys.__excepthook__:  # else a debugger's, say
        sys.excepthook = print_traceback
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _print_thread_traceback
    warnings.formatwarning = _format_warning
    logging.setLogRecordFactory(VisibleRecord)


def _make_visible(stream: io.TextIOWrapper) -> VisibleStream:
    """Another stream to the same place. Python keeps the first one open, as `sys.__stdout__`."""
    stream.flush()
    return VisibleStream(
        stream.buffer,
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def flush_streams() -> None:
    """Flush both; Python's own flush, the last thing that it does, complains of a closed pipe."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError) as error:
                _give_up(stream, error)


def take_failure() -> str | None:
    """Flush, and say why standard output lost something; None where it did not. Said once."""
    flush_streams()
    return _FAILURES.pop() if _FAILURES else None


def write_line(text: str, stream: IO[str] | None) -> None:
    """Write a line at once, as far as the stream has its characters and somebody reads it."""
    if stream is None:
        return
    try:
        stream.write(f"{readable(text, stream)}\n")
        stream.flush()
    except (OSError, ValueError) as error:
        _give_up(stream, error)


def readable(text: str, stream: IO[str]) -> str:
    """The text with the stream's own characters only, none of which the terminal obeys."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return visible(mask_credentials(text)).encode(encoding, ERRORS).decode(encoding)


def readable_json(text: str, stream: IO[str] | None) -> str:
    """JSON with the stream's own characters only; what it says stays the same."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = visible_json(text)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(map(_escape, text))
    return text


def print_traceback(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """An error that nobody expected, as Python prints it. Its message may quote data."""
    write_line("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), sys.stderr)


def _print_thread_traceback(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None and ended.exc_type is not SystemExit:
        print_traceback(ended.exc_type, ended.exc_value, ended.exc_traceback)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    line: str | None = None,
) -> str:  # fmt: skip
    return visible(mask_credentials(f"{filename}:{lineno}: {category.__name__}: {message}\n"))


class VisibleRecord(logging.LogRecord):
    """What a library logs, also to a file: its message, its logger's name and its traceback."""

    def __init__(self, name: str, *arguments: Any, **keywords: Any) -> None:
        super().__init__(visible_line(mask_credentials(name)), *arguments, **keywords)

    def getMessage(self) -> str:  # noqa: N802 # logging's own name
        return visible(mask_credentials(super().getMessage()))

    @property
    def exc_text(self) -> str | None:  # a formatter sets and prints it
        """The traceback."""
        text: str | None = vars(self).get("exc_text")
        return text

    @exc_text.setter
    def exc_text(self, text: str | None) -> None:
        vars(self)["exc_text"] = text and visible(mask_credentials(text))


_FAILURES: list[str] = []  # the process's, as its standard output is; the first one is kept


def _give_up(stream: IO[str], error: OSError | ValueError) -> None:
    """Discard what a stream is given from now on; remember why, unless nobody reads it.

    A ValueError: it was closed in this process.
    """
    is_lost = isinstance(error, OSError) and error.errno not in GONE
    if is_lost and stream is sys.stdout and not isinstance(error, ValueError):
        _FAILURES[:] = _FAILURES or [str(getattr(error, "strerror", None) or error)]
    discard(stream)


def discard(stream: IO[str]) -> None:
    """Send what a stream is still given nowhere."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


def _escape(character: str) -> str:
    return character if character.isascii() else json.dumps(character)[1:-1]


def _replace(error: UnicodeError) -> tuple[str, int]:
    """For what an encoding lacks: what a typist would write, else the escape of JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(PLAIN.get(one) or _escape(one) for one in lacking), error.end


codecs.register_error(ERRORS, _replace)
