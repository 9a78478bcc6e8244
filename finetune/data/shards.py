"""File names of shards: which split a file is a shard of, and which shards are missing.

shard_of(Path("train-00000-of-00003.parquet"))       # Shard("train", 0, 3)
shard_of(Path("part-00000-8f1c-c000.json"))          # Shard("part", 0, None), as Spark writes it
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from finetune.data.formats.registry import stem_of
from finetune.runtime.errors import shorten

# train-00000-of-00003, which older releases of `datasets` ended with a hash.
NUMBERED = re.compile(r"(?P<split>.+?)(?P<before>[-_.])(?P<index>\d+)(?P<of>[-_.]?of[-_.]?)"
                      r"(?P<total>\d+)(?P<hash>-[0-9a-f]{8,})?", re.IGNORECASE)  # fmt: skip
LARGEST_BARE = 1000  # sets of fewer shards may be numbered without leading zeros
SPARK = re.compile(r"(?P<split>part)-(?P<index>\d{4,})(-.+)?")  # it leaves out empty parts


@dataclass(frozen=True)
class Shard:
    """A shard by its file's name; `total` is None where the name does not say it."""

    split: str
    index: int
    total: int | None


def shard_of(path: Path) -> Shard | None:
    """The shard that a file is; None where it is a whole one."""
    stem = stem_of(path)
    if (match := NUMBERED.fullmatch(stem)) is not None:
        index, total = int(match["index"]), int(match["total"])
        has_one_width = len(match["index"]) == len(match["total"])
        if index <= total > 0 and (has_one_width or total < LARGEST_BARE):  # no best-10-of-2024
            return Shard(match["split"], index, total)
    if (match := SPARK.fullmatch(stem)) is not None:
        return Shard(match["split"], int(match["index"]), None)
    return None


def missing_shards(paths: Iterable[Path]) -> list[tuple[str, list[str]]]:
    """Which shards are not there, of files of one folder: what is to be said, and their names.

    A set may be numbered from 0 or from 1.
    """
    sets: dict[tuple[str, int], dict[int, Path]] = {}
    for path in paths:
        shard = shard_of(path)
        if shard is not None and shard.total is not None:
            sets.setdefault((shard.split, shard.total), {})[shard.index] = path
    missing = []
    for (split, total), shards in sets.items():
        first = 1 if total in shards else 0
        lacking = [index for index in range(first, first + total) if index not in shards]
        if lacking:
            example = next(iter(shards.values()))
            names = [_renumber(example, index) for index in lacking]
            said = f"of '{split}', {len(shards):,} of {total:,} shards are there"
            missing.append((f"{said}; missing: {shorten(names)}", names))
    return missing


def _renumber(example: Path, index: int) -> str:
    """The name of another shard of the same set, without the hash that names it alone."""
    match = NUMBERED.fullmatch(stem_of(example))
    assert match is not None
    number = str(index).zfill(len(match["index"]))
    ending = example.name[len(stem_of(example)) :]
    hashed = "-*" if match["hash"] else ""
    return f"{match['split']}{match['before']}{number}{match['of']}{match['total']}{hashed}{ending}"
