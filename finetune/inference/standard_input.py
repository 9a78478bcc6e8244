"""Standard input → its bytes from the beginning, and what they hold.

    source = open_standard_input(InputSpec("-"))    # a DataSource of kind json, jsonl or txt

A pipe has no name whose ending says its format, so its beginning has to: behind byte order marks,
blanks and gzip, in the encoding that was asked for. What is not recognised is refused. It would
pass for text otherwise, and every line of it would get a label. So text is recognised only where
none of its lines that are looked at is an object or an array of JSON.
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

from finetune.data.cells import clip
from finetune.data.formats.encodings import find_wide_encoding, is_utf_8, skip_invisible
from finetune.data.formats.source import (
    DataSource,
    ReadProgress,
    explain_read_errors,
    is_gzip,
    open_bytes,
    refuse_packed_twice,
    rejoin,
)
from finetune.runtime.errors import InputError, shorten

NAME = "standard input"
HEAD = 2**16  # characters that are looked at, behind blank lines
BLANK_HEAD = 2**24  # bytes of blank lines after which nobody looks any further
CONTROLS = 0.05  # the share of control characters from which bytes are no text
# Those that text has: U+001B sets a terminal's colours, U+001E divides records of JSON.
ORDINARY = "\t\r\n\v\f\x1b\x1e"
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
        stream, head = _unpack(cast(BinaryIO, sys.stdin.buffer), encoding)
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


def _unpack(raw: BinaryIO, encoding: str) -> tuple[BinaryIO, bytes]:
    """The bytes without gzip, and the first of them, which are read already."""
    head = _read_head(raw, encoding)
    if is_gzip(head):
        raw = cast(BinaryIO, gzip.GzipFile(fileobj=rejoin(head, raw)))
        head = _read_head(raw, encoding)
        refuse_packed_twice(NAME, head)
    return raw, head


def _read_head(stream: BinaryIO, encoding: str) -> bytes:
    """The beginning: where that is an object, its first line at least; else HEAD characters.

    So what it is taken for does not depend on how much a pipe gives at a time.
    """
    read = getattr(stream, "read1", stream.read)  # what a pipe has now, and no more
    head, text, seen = bytearray(), "", 0
    while len(head) < BLANK_HEAD and len(text) < HEAD and (block := read(HEAD)):
        head += block
        if len(head) >= 2 * seen:  # so that a pipe which gives little at a time costs no more
            text, seen = _as_text(bytes(head), encoding), len(head)
            if text.startswith("{") and "\n" in text:
                break
    return bytes(head)


def _recognise(head: bytes, encoding: str) -> str:
    """The key of `FORMATS` that the beginning speaks for."""
    text = _as_text(head, encoding)[:HEAD]
    if _is_no_text(text):
        raise InputError(f"{NAME}: expected text or JSON, got bytes that are neither; {CHOICES}")
    if text.startswith("{"):
        # An object over several lines, perhaps around an array. What else is broken is a row.
        is_open = re.fullmatch(r'\{\s*("[^"]*"\s*:\s*[\[{]?\s*)?', _first_line(text))
        return "json" if is_open and "\n" in text else "jsonl"
    if re.match(r"\[\s*[\[{]", text) or _is_json(_first_line(text).removesuffix(",")):
        return "json"
    if _first_line(text) == "[":
        return "json"
    for line in text.split("\n"):
        if _is_json(skip_invisible(line)):
            raise InputError(
                f"{NAME}: expected lines of text or of JSON, got both: {clip(_first_line(text))} "
                f"and {clip(line.strip())}; {CHOICES}"
            )
    return "txt"


def _is_json(line: str) -> bool:
    """Whether a line is an array or an object."""
    if not line.startswith(("[", "{")):
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
    """The beginning as text, from its first character that can be seen."""
    if not is_utf_8(encoding):
        wide = find_wide_encoding(head)
        known = wide if codecs.lookup(encoding).name in ("utf-16", "utf-32") else None
        decoder = codecs.getincrementaldecoder(known or encoding)("replace")
        return skip_invisible(decoder.decode(head))
    return skip_invisible(head.decode("utf-8", "replace"))


def _first_line(text: str) -> str:
    return text.partition("\n")[0].strip()
