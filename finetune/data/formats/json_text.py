"""JSON Lines; and JSON as one array of objects, or as an object around one such array.

Objects are decoded one after another, so that an array may be larger than memory.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO, cast

from finetune.data.cells import clip, describe_value
from finetune.data.formats.encodings import BOM
from finetune.data.formats.file_row import FileRow, RowProblem, RowReader
from finetune.data.formats.source import (
    DataSource,
    ReadProgress,
    decode,
    decode_stream,
    open_bytes,
    rejoin,
)
from finetune.runtime.errors import InputError

BLANKS = re.compile(r"[ \t\r\n]*")
BLOCK = 2**16  # characters
LONGEST_LINE = 2**24  # bytes that are read ahead to tell JSON Lines from an object around an array
LONGEST_TOKEN = 16  # characters of a word or number of JSON that may end with what was read
EXPECTED = "an array of objects, or an object with one such array"


class JsonLinesReader(RowReader):
    """An object on each line. A broken line costs that line."""

    def __init__(
        self,
        source: DataSource,
        requested: Sequence[str],
        progress: ReadProgress,
        stack: ExitStack,
    ) -> None:
        super().__init__(source)
        self._stream = open_bytes(source, progress, stack)

    def _read(self) -> Iterator[FileRow]:
        return read_lines(self._stream)


class JsonReader(RowReader):
    """An array of objects, an object around one, or JSON Lines that are called .json."""

    def __init__(
        self,
        source: DataSource,
        requested: Sequence[str],
        progress: ReadProgress,
        stack: ExitStack,
    ) -> None:
        super().__init__(source)
        self._stream = open_bytes(source, progress, stack)

    def _read(self) -> Iterator[FileRow]:
        stream, is_lines = _look_ahead(self._stream)
        if is_lines:
            yield from read_lines(stream)
            return
        scanner = _Scanner(self.source.name, stream)
        match scanner.next_character():
            case "[":
                scanner.skip_character()
                yield from _read_array(scanner)
            case "{":
                yield from _read_wrapped(scanner)
            case _:
                got = describe_value(scanner.read_value())
                raise InputError(f"{self.source.name}: expected {EXPECTED}, got {got}")
        if scanner.next_character():
            line, _ = scanner.place()
            raise InputError(
                f"{self.source.name}: line {line}: expected the end of the file after its array, "
                f"got {clip(scanner.rest())}; JSON Lines holds one object on each line"
            )


def read_lines(stream: BinaryIO) -> Iterator[FileRow]:
    """The object of each line that is not blank."""
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(BOM)
        line = line.strip()
        if not line:
            continue
        cells: dict[str, Any] | RowProblem
        try:
            cells = json.loads(decode(line))
        except (ValueError, RecursionError) as error:
            got = f"invalid JSON ({_describe_error(error)})"
            cells = RowProblem("a JSON object on each line", got)
        else:
            if not isinstance(cells, dict):
                cells = RowProblem("a JSON object on each line", describe_value(cells))
        yield FileRow("line", number, cells)


def _look_ahead(stream: BinaryIO) -> tuple[BinaryIO, bool]:
    """The same stream from its beginning, and whether it holds JSON Lines.

    It does where its first line is a whole object and another line follows, or where that object
    is all there is and holds no array of objects. An empty list is taken for an array of objects
    only where it is the object's one value: else it is a cell of a row.
    """
    head = first = stream.readline(LONGEST_LINE)
    while first and not first.removeprefix(BOM).strip():
        first = stream.readline(LONGEST_LINE)
        head += first
    first = first.removeprefix(BOM).strip()
    if not first.startswith(b"{"):
        return rejoin(head, stream), False
    try:
        value = json.loads(decode(first))
    except (ValueError, RecursionError) as error:
        is_lines = isinstance(error, json.JSONDecodeError) and error.msg == "Extra data"
        return rejoin(head, stream), is_lines
    more = True
    while more:
        line = stream.readline(LONGEST_LINE)
        head += line
        if line.strip():
            return rejoin(head, stream), True
        more = bool(line)
    lists = [cell for cell in value.values() if isinstance(cell, list)]
    wraps = any(isinstance(items[0], dict) if items else len(value) == 1 for items in lists)
    return rejoin(head, stream), not wraps


def _read_array(scanner: "_Scanner") -> Iterator[FileRow]:
    for number, value in enumerate(scanner.read_items(), start=1):
        cells = value
        if not isinstance(value, dict):
            cells = RowProblem("an object in each row", describe_value(value))
        yield FileRow("row", number, cells)


def _read_wrapped(scanner: "_Scanner") -> Iterator[FileRow]:
    """The rows of the one array of objects that an object holds; its other values are skipped."""
    keys: list[str] = []
    values = empty_lists = 0
    scanner.skip_character()
    more = scanner.next_character() != "}"
    while more:
        if scanner.next_character() != '"':
            raise scanner.problem("Expecting property name enclosed in double quotes")
        key = scanner.read_value()
        if scanner.next_character() != ":":
            raise scanner.problem("Expecting ':' delimiter")
        scanner.skip_character()
        values += 1
        if scanner.next_character() != "[":
            scanner.read_value()
        else:
            scanner.skip_character()
            empty_lists += scanner.next_character() == "]"
            if scanner.next_character() == "{":
                keys.append(repr(key))
                if len(keys) > 1:
                    raise InputError(
                        f"{scanner.name}: expected {EXPECTED}, got lists under {', '.join(keys)}"
                    )
                yield from _read_array(scanner)
            else:
                for _ in scanner.read_items():
                    pass
        more = scanner.next_character() == ","
        if more:
            scanner.skip_character()
        elif scanner.next_character() != "}":
            raise scanner.problem("Expecting ',' delimiter")
    scanner.skip_character()
    if not keys and not values == empty_lists == 1:
        raise InputError(f"{scanner.name}: expected {EXPECTED}, got an object without")


class _Scanner:
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
            self._at = cast(Any, BLANKS.match(self._held, self._at)).end()
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
            except RecursionError as error:
                raise self._problem(str(error), self._at) from None
            else:
                if end < len(self._held) or self._at_end:  # else a number may go on
                    self._at = end
                    return value
            self._read_more()

    def read_items(self) -> Iterator[Any]:
        """Those of an array whose bracket was skipped, and its closing bracket."""
        more = self.next_character() != "]"
        while more:
            yield self.read_value()
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


def _describe_error(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return str(error).partition(";")[0]
