"""JSON Lines; and JSON as one array of objects, or as an object around one such array.

Objects are decoded one after another, so that an array may be larger than memory.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO

from finetune.data.cells import clip, describe_value
from finetune.data.formats import bounded
from finetune.data.formats.encodings import skip_invisible
from finetune.data.formats.file_row import FileRow, RowProblem, RowReader
from finetune.data.formats.json_scanner import Scanner
from finetune.data.formats.source import (
    DataSource,
    ReadProgress,
    decode,
    open_bytes,
    rejoin,
)
from finetune.runtime.errors import InputError

LONGEST_LINE = 2**24  # bytes that are read ahead to tell JSON Lines from an object around an array
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
        scanner = Scanner(self.source.name, stream)
        match scanner.next_character():
            case "[":
                scanner.skip_character()
                yield from _read_array(scanner)
            case "{":
                yield from _read_wrapped(scanner)
            case _:
                got = describe_value(scanner.read_or_skip_value())
                raise InputError(f"{self.source.name}: expected {EXPECTED}, got {got}")
        if scanner.next_character():
            line, _ = scanner.place()
            raise InputError(
                f"{self.source.name}: line {line}: expected the end of the file after its array, "
                f"got {clip(scanner.rest())}; JSON Lines holds one object on each line"
            )


def read_lines(stream: BinaryIO) -> Iterator[FileRow]:
    """The object of each line that is not blank."""
    for number, line in enumerate(bounded.bounded_lines(stream), start=1):
        if line is None:
            yield FileRow("line", number, bounded.too_long())
            continue
        text = skip_invisible(decode(line.strip()))
        if not text:
            continue
        cells: dict[str, Any] | RowProblem
        try:
            cells = json.loads(text)
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
    head = line = stream.readline(LONGEST_LINE)
    while line and not skip_invisible(decode(line)):
        line = stream.readline(LONGEST_LINE)
        head += line
    first = skip_invisible(decode(line)).rstrip()
    if not first.startswith("{"):
        return rejoin(head, stream), False
    try:
        value = json.loads(first)
    except (ValueError, RecursionError) as error:
        is_lines = isinstance(error, json.JSONDecodeError) and error.msg == "Extra data"
        return rejoin(head, stream), is_lines
    more = True
    while more:
        line = stream.readline(LONGEST_LINE)
        head += line
        if skip_invisible(decode(line)):
            return rejoin(head, stream), True
        more = bool(line)
    lists = [cell for cell in value.values() if isinstance(cell, list)]
    wraps = any(isinstance(items[0], dict) if items else len(value) == 1 for items in lists)
    return rejoin(head, stream), not wraps


def _read_array(scanner: "Scanner") -> Iterator[FileRow]:
    for number, value in enumerate(scanner.read_items(), start=1):
        cells = value
        if not isinstance(value, (dict, RowProblem)):
            cells = RowProblem("an object in each row", describe_value(value))
        yield FileRow("row", number, cells)


def _read_wrapped(scanner: "Scanner") -> Iterator[FileRow]:
    """The rows of the one array of objects that an object holds; its other values are skipped."""
    keys: list[str] = []
    values = empty_lists = 0
    scanner.skip_character()
    more = scanner.next_character() != "}"
    while more:
        if scanner.next_character() != '"':
            raise scanner.problem("Expecting property name enclosed in double quotes")
        key = scanner.read_key()
        if scanner.next_character() != ":":
            raise scanner.problem("Expecting ':' delimiter")
        scanner.skip_character()
        values += 1
        if scanner.next_character() != "[":
            scanner.read_or_skip_value()
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


def _describe_error(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return str(error).partition(";")[0]
