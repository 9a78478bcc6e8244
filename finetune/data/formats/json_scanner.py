"""Values of JSON in a stream, one after another, however long the stream is.

A value that is too long or too deep is passed by, and none of it is held.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from finetune.data.formats import bounded
from finetune.data.formats.encodings import INVISIBLE
from finetune.data.formats.file_row import RowProblem
from finetune.data.formats.source import decode_stream
from finetune.runtime.errors import InputError

BLOCK = 2**16  # characters
TEXT_MARKS, VALUE_MARKS = re.compile(r'["\\]'), re.compile(r'["\[\]{},]')  # of JSON
LONGEST_TOKEN = 16  # characters of a word or number of JSON that may end with what was read


class _OverlongError(Exception):
    """A value is longer than may be held."""


class Scanner:
    """Values of JSON in a stream, of which what was read and not used yet is held."""

    def __init__(self, name: str, stream: BinaryIO) -> None:
        self.name = name
        self._text = decode_stream(stream)
        self._decoder = json.JSONDecoder()
        self._held, self._at, self._at_end = "", 0, False
        self._line, self._column = 1, 0  # of the first character that is held

    def next_character(self) -> str:
        """The next character that is not blank, which stays next; empty at the end."""
        while True:
            self._at = cast(Any, INVISIBLE.match(self._held, self._at)).end()
            if self._at < len(self._held):
                return self._held[self._at]
            if self._at_end:
                return ""
            self._read_more()

    def skip_character(self) -> None:
        self._at += 1

    def read_value(self) -> Any:
        """The value that begins here.

        Raises:
            InputError: where none does: what follows cannot be told apart any more.
        """
        self.next_character()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._held, self._at)
            except json.JSONDecodeError as error:
                cut_off = error.pos >= len(self._held) - LONGEST_TOKEN
                if self._at_end or not (cut_off or error.msg.startswith("Unterminated string")):
                    raise self._problem(error.msg, error.pos) from None
            else:
                if end - self._at > bounded.LONGEST_LINE:
                    raise _OverlongError
                if end < len(self._held) or self._at_end:  # else a number may go on
                    self._at = end
                    return value
            if len(self._held) - self._at > bounded.LONGEST_LINE:
                raise _OverlongError
            self._read_more()

    def read_key(self) -> Any:
        """The name of a value in an object.

        Raises:
            InputError: where it is too long, too.
        """
        try:
            return self.read_value()
        except _OverlongError:
            raise self.problem("a name that is too long") from None

    def read_or_skip_value(self) -> Any:
        """The value that begins here; a `RowProblem` for one too long or too deep to be read.

        Raises:
            InputError: as `read_value` does.
        """
        try:
            return self.read_value()
        except _OverlongError:
            self._skip_value()
            return bounded.too_long("value")
        except RecursionError as error:
            self._skip_value()
            return RowProblem("an object in each row", f"one that is too deep ({error})")

    def _skip_value(self) -> None:
        """Pass the value that begins here, of any length and depth, and hold none of it."""
        depth, in_text = 0, False
        while True:
            found = (TEXT_MARKS if in_text else VALUE_MARKS).search(self._held, self._at)
            if found is None or (found[0] == "\\" and found.end() == len(self._held)):
                # A backslash at the end waits for what it escapes.
                self._at = len(self._held) if found is None else found.start()
                if self._at_end:
                    raise self.problem("Unterminated value")
                self._read_more()
                continue
            mark = found[0]
            if in_text:
                self._at = found.end() + (mark == "\\")
                in_text = mark == "\\"
            elif mark == '"':
                self._at, in_text = found.end(), True
            elif mark in "[{":
                self._at, depth = found.end(), depth + 1
            elif mark == "," and depth:
                self._at = found.end()
            elif depth:
                self._at, depth = found.end(), depth - 1
            else:  # what follows a number or a word
                self._at = found.start()
                return
            if not (in_text or depth):
                return

    def read_items(self) -> Iterator[Any]:
        """Those of an array whose bracket was skipped, and its closing bracket."""
        more = self.next_character() != "]"
        while more:
            yield self.read_or_skip_value()
            more = self.next_character() == ","
            if more:
                self.skip_character()
            elif self.next_character() != "]":
                raise self.problem("Expecting ',' delimiter")
        self.skip_character()

    def problem(self, why: str) -> InputError:
        """That the JSON is not valid here."""
        return self._problem(why, self._at)

    def place(self) -> tuple[int, int]:
        """Line and column, each from 1."""
        return self._place(self._at)

    def rest(self) -> str:
        """What was read and not used yet."""
        return self._held[self._at :]

    def _problem(self, why: str, at: int) -> InputError:
        line, column = self._place(at)
        return InputError(f"{self.name}: line {line}: not valid JSON ({why} at column {column})")

    def _place(self, at: int) -> tuple[int, int]:
        before = self._held[:at]
        lines = before.count("\n")
        if not lines:
            return self._line, self._column + at + 1
        return self._line + lines, at - before.rindex("\n")

    def _read_more(self) -> None:
        line, column = self._place(self._at)
        self._line, self._column = line, column - 1
        read = self._text.read(max(BLOCK, len(self._held) - self._at))
        self._held, self._at, self._at_end = self._held[self._at :] + read, 0, not read
