"""Identifiers of a job's rows that are missing or repeat, found in memory that does not grow.

    check = IdCheck()
    for row in rows:
        check.add(row["id"])
    found = check.conclude(lambda: (row["id"] for row in rows))

The first pass, which may do something else too, sets a bit for the hash of each identifier. One
whose bit is set already may repeat: in truth, or as another has the same bit. Where there are any,
a second pass counts these few.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetune.data.identifiers import is_missing

BITS = 2**28  # 32 MB, of which a small job touches little
MOST = 100_000  # identifiers that are counted exactly
SHOWN = 3


@dataclass
class IdProblems:
    """Rows that their identifier does not tell from others; numbers are from 1.

    Attributes:
        missing: rows without one; `missing_rows` are the first few.
        repeated: rows with that of an earlier one; `repeated_rows` are the first few, by number
            and identifier. Of more than MOST that repeat, the others are not counted.
    """

    missing: int = 0
    missing_rows: list[int] = field(default_factory=list)
    repeated: int = 0
    repeated_rows: list[tuple[int, Any]] = field(default_factory=list)

    def describe(self, column: str) -> Iterator[str]:
        """A sentence for each kind, where there is such a row."""
        if self.missing:
            rows = ", ".join(f"{number:,}" for number in self.missing_rows)
            more = _more(self.missing - len(self.missing_rows))
            yield f"{self.missing:,} without an id in '{column}' (row {rows}{more}): id is empty"
        if self.repeated:
            rows = ", ".join(f"{number:,} ({value})" for number, value in self.repeated_rows)
            more = _more(self.repeated - len(self.repeated_rows))
            yield f"{self.repeated:,} with the id of an earlier row (row {rows}{more}): kept"


def _more(count: int) -> str:
    return f" and {count:,} more" if count else ""


class IdCheck:
    """What is wrong with the identifiers of some rows."""

    def __init__(self, bits: int = BITS) -> None:
        """
        Args:
            bits: more make a second pass rarer, and faster.
        """
        self._found, self._rows, self._bits = IdProblems(), 0, bits
        self._seen, self._maybe = np.zeros(bits // 8, np.uint8), set[bytes]()

    def add(self, value: Any) -> None:
        """Note the identifier of the next row."""
        self._rows += 1
        if is_missing(value):
            self._found.missing += 1
            if len(self._found.missing_rows) < SHOWN:
                self._found.missing_rows.append(self._rows)
            return
        digest = _digest(value)
        byte, bit = divmod(int.from_bytes(digest, "little") % self._bits, 8)
        if self._seen[byte] >> bit & 1:
            if len(self._maybe) < MOST:
                self._maybe.add(digest)
        else:
            self._seen[byte] |= 1 << bit

    def conclude(self, read: Callable[[], Iterator[Any]]) -> IdProblems:
        """All that is wrong.

        Args:
            read: gives the identifiers in order once more; only called where some may repeat.
        """
        if self._maybe:
            _count_repeated(read(), self._maybe, self._found)
        return self._found


def _count_repeated(values: Iterator[Any], maybe: set[bytes], found: IdProblems) -> None:
    known: set[bytes] = set()
    for number, value in enumerate(values, 1):
        digest = None if is_missing(value) else _digest(value)
        if digest is None or digest not in maybe:
            continue
        if digest in known:
            found.repeated += 1
            if len(found.repeated_rows) < SHOWN:
                found.repeated_rows.append((number, value))
        known.add(digest)


def _digest(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
