"""Standard input → its bytes from the beginning, and what they hold.

    source = open_standard_input(InputSpec("-"))    # a DataSource of kind json, jsonl or txt

A pipe has no name whose ending says its format, so its beginning has to: behind a byte order mark,
blank lines and gzip, in the encoding that was asked for. What is not recognised is refused. It
would pass for text otherwise, and every line of it would get a label.
"""

import codecs
import gzip
import json
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, BinaryIO, cast

from finetune.data.formats.encodings import BOM, find_wide_encoding, is_utf_8
from finetune.data.formats.source import (
    DataSource,
    ReadProgress,
    explain_read_errors,
    is_gzip,
    open_bytes,
    rejoin,
)
from finetune.runtime.errors import InputError, shorten

NAME = "standard input"
HEAD = 2**16  # bytes that are looked at, behind blank lines
BLANK_HEAD = 2**24  # bytes of blank lines after which nobody looks any further
CONTROLS = 0.05  # the share of control characters from which bytes are no text
ORDINARY = "\t\r\n\f\x1b"  # those that text has; the last sets a terminal's colours
DELIMITERS = {"csv": ",", "tsv": "\t"}
CHOICES = "--format csv, tsv, json, jsonl or txt says what it holds"


def open_standard_input(kind: str | None, encoding: str) -> DataSource:
    """
    Args:
        kind: a key of `FORMATS` that was asked for; None: as its beginning says.

    Raises:
        InputError: where it is empty, or where its beginning is of no format that can be read.
    """
    source = DataSource(NAME, kind or "txt", encoding=encoding, encoding_option="--encoding ")
    with explain_read_errors(source):
        stream, head = _unpack(cast(BinaryIO, sys.stdin.buffer))
        if kind is None:
            with ExitStack() as stack:  # what is said of any file: packed otherwise, UTF-16, empty
                again = replace(source, stream=rejoin(head, stream))
                open_bytes(again, ReadProgress(), stack)
            source = replace(source, kind=_recognise(head, encoding), is_recognised=True)
    return replace(source, stream=rejoin(head, stream))


def check_header(source: DataSource, columns: Sequence[str]) -> None:
    """Refuse a table that was taken for lines of text.

    Args:
        columns: those of the documents.

    Raises:
        InputError: where nobody said what it holds, and the first line names one of them.
    """
    if not (source.is_recognised and source.kind == "txt"):
        return
    head = cast(Any, source.stream).peek(HEAD)
    first = _first_line(_as_text(head, source.encoding))
    for kind, delimiter in DELIMITERS.items():
        cells = [cell.strip().strip('"') for cell in first.split(delimiter)]
        if any(column in cells for column in columns):
            raise InputError(
                f"{NAME}: its first line is the header of a table ({shorten(cells)}); add "
                f"--format {kind}, or --format txt where each line is a document, that one too"
            )


def _unpack(raw: BinaryIO) -> tuple[BinaryIO, bytes]:
    """The bytes without gzip, and the first of them, which are read already."""
    head = _read_head(raw)
    while is_gzip(head):
        raw = cast(BinaryIO, gzip.GzipFile(fileobj=rejoin(head, raw)))
        head = _read_head(raw)
    return raw, head


def _read_head(stream: BinaryIO) -> bytes:
    """The beginning up to the end of the first line that is not blank."""
    read = getattr(stream, "read1", stream.read)  # what a pipe has now, and no more
    head = b""
    while len(head) < BLANK_HEAD:
        block = read(HEAD)
        if not block:
            break
        head += block
        content = head.lstrip(BOM + b" \t\r\n\0")
        if len(content) >= HEAD or b"\n" in content:
            break
    return head


def _recognise(head: bytes, encoding: str) -> str:
    """The key of `FORMATS` that the beginning speaks for."""
    text = _as_text(head, encoding)
    if _is_no_text(text):
        raise InputError(f"{NAME}: expected text or JSON, got bytes that are neither; {CHOICES}")
    if text.startswith("{"):
        # An object over several lines, perhaps around an array. What else is broken is a row.
        is_open = re.fullmatch(r'\{\s*("[^"]*"\s*:\s*[\[{]?\s*)?', _first_line(text))
        return "json" if is_open and "\n" in text else "jsonl"
    if re.match(r"\[\s*[\[{]", text) or _is_json(_first_line(text).removesuffix(",")):
        return "json"
    return "json" if _first_line(text) == "[" else "txt"


def _is_json(line: str) -> bool:
    """Whether a line that begins like an array is one."""
    if not line.startswith("["):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_no_text(text: str) -> bool:
    controls = sum(character < " " and character not in ORDINARY for character in text)
    return "\0" in text or controls > max(2, CONTROLS * len(text))


def _as_text(head: bytes, encoding: str) -> str:
    """The beginning as text, without its byte order mark and blank lines before it."""
    if not is_utf_8(encoding):
        wide = find_wide_encoding(head)
        known = wide if codecs.lookup(encoding).name in ("utf-16", "utf-32") else None
        decoder = codecs.getincrementaldecoder(known or encoding)("replace")
        return decoder.decode(head).lstrip("\ufeff \t\r\n")
    return head.removeprefix(BOM).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")


def _first_line(text: str) -> str:
    return text.partition("\n")[0].strip()
