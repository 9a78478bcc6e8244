"""Streams with a line of gigabytes, made as they are read; and the memory that reading takes."""

import io
import json
import resource
import sys

from finetune.data.formats.registry import open_rows
from finetune.data.formats.source import DataSource

SIZES = {"jsonl": 2**31}  # bytes; of the others less, as it is the same way that they go
SIZE = 2**28
FILL = b"x" * 2**20


class BigLine(io.RawIOBase):
    """`before`, then `size` bytes, then `after`."""

    def __init__(self, before, after, size):
        self.parts = [before, size, after]

    def readable(self):
        return True

    def readinto(self, buffer):
        while self.parts and not self.parts[0]:
            self.parts.pop(0)
        if not self.parts:
            return 0
        part = self.parts[0]
        if isinstance(part, int):
            block = FILL[: min(len(buffer), part)]
            self.parts[0] -= len(block)
        else:
            block = part[: len(buffer)]
            self.parts[0] = part[len(block) :]
        buffer[: len(block)] = block
        return len(block)


STREAMS = {
    "txt": (b"one\n", b"\nthree\n"),
    "jsonl": (b'{"text": "one"}\n{"text": "', b'"}\n{"text": "three"}\n'),
    "csv": (b"text\none\n", b"\nthree\n"),
    "json": (b'[{"text": "one"}, {"text": "', b'"}, {"text": "three"}]'),
}


def main():
    """Tell of each format how many rows were read, how many were refused, and MB at the peak."""
    told = {}
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kind, parts in STREAMS.items():
        source = DataSource(
            "big", kind, stream=io.BufferedReader(BigLine(*parts, SIZES.get(kind, SIZE)), 2**20)
        )
        with open_rows(source, ["text"]) as reader:
            found = [row.cells for row in reader.rows()]
        rows = [row for row in found if row == "one" or row == "three" or isinstance(row, dict)]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        told[kind] = (len(rows), len(found) - len(rows), (peak - start) // 1024)
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
