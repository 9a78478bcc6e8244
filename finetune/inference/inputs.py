"""INPUT of a prediction → the files, pipes or tables whose rows follow each other.

    find(Where("news/*.jsonl.gz"))    # a file, a folder, a glob, a Hub data set, or "-"
    check(items, asked)               # columns that are not there, before the model loads

How the rows of one of them are read stands in `row_streams.py`.
"""

import glob
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finetune.data.files import SUFFIXES, stem_of, suffix_of
from finetune.data.hub_data_sets import load_tables
from finetune.data.local_paths import resolve_local_path
from finetune.data.rows import natural_order
from finetune.data.sources import SHARD
from finetune.inference.records import RequestedColumns
from finetune.inference.row_streams import FORMATS, InputItem, Kind, columns_of, kind_of_pipe
from finetune.runtime.errors import InputError, closest_match, did_you_mean, shorten

Txt = Literal["lines", "documents"]


@dataclass(frozen=True)
class InputSpec:
    """How a person says what is read.

    Attributes:
        source: the words of the command line.
        split, config: of a Hub data set; `split` also picks files of a folder by name.
        format: what comes from standard input, or what a file holds whose name does not say it.
        txt: whether a .txt file is one document, or a document a line. None: a file that is named
            holds lines, the files of a folder or glob are documents.
    """

    source: str
    split: str | None = None
    config: str | None = None
    format: str | None = None
    txt: Txt | None = None


def find_inputs(where: InputSpec) -> list[InputItem]:
    """What is to be read, in order.

    Raises:
        InputError: where nothing of the kind is there.
    """
    if where.source == "-":
        kind = FORMATS[where.format] if where.format else kind_of_pipe()
        if kind == "parquet":
            raise InputError("-: a Parquet file is read from its end, which a pipe has last; "
                             "write it to a file first")  # fmt: skip
        return [InputItem("standard input", kind)]
    if glob.has_magic(where.source) and not Path(where.source).exists():
        # Not Path.glob, which knows no absolute patterns.
        pattern = str(Path(where.source).expanduser())
        paths = [Path(path) for path in glob.glob(pattern, recursive=True)]  # noqa: PTH207
        paths = [path for path in paths if path.is_file()]
        if not paths:
            raise InputError(f"{where.source}: no file is called so")
        return _of_files(where.source, paths, where, txt="documents")
    path = resolve_local_path(where.source, "INPUT")
    if path is None:
        return _tables(where)
    if path.is_dir():
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return _tables(where)
        inside = [file for file in path.rglob("*") if file.is_file() and not _hidden(file, path)]
        return _of_files(str(path), inside, where, txt="documents")
    if not (path.is_file() or stat.S_ISFIFO(path.stat().st_mode)):
        raise InputError(f"{path}: neither a file nor a folder")
    return _of_files(str(path), [path], where, txt="lines")


def check_inputs(items: Sequence[InputItem], asked: RequestedColumns) -> None:
    """Look at what the files say of themselves at their beginning.

    Raises:
        InputError: for each file that cannot be read, or lacks a column that is asked for.
    """
    problems: list[str] = []
    for item in items:
        try:
            found = columns_of(item)
        except InputError as error:
            problems += error.problems
            continue
        if item.kind in ("txt", "document"):
            if asked.keep:
                problems.append(f"{item.name}: a .txt file has no columns ({asked.kept})")
            if len(asked.texts) > 1:
                problems.append(
                    f"{item.name}: a .txt file has no columns, and the model reads several: "
                    f"{', '.join(asked.texts)}"
                )
        if found is None:
            continue
        for option, column in asked.named():
            if column in found:
                continue
            names = shorten([f"'{name}'" for name in found], 10)
            guess = closest_match(column, found)
            hint = f"; did you mean '{guess}'?" if guess is not None else ""
            problems.append(
                f"{item.name}: no column '{column}' ({option}){hint} (columns: {names})"
            )
    if problems:
        raise InputError(problems)


def _of_files(name: str, paths: Sequence[Path], where: InputSpec, txt: Txt) -> list[InputItem]:
    """The data files among some, in natural order."""
    txt = where.txt or txt
    if where.format is not None:
        return [_item(path, FORMATS[where.format], txt) for path in _sorted(paths)]
    data = [path for path in _sorted(paths) if suffix_of(path)]
    if not data:
        found = shorten([path.name for path in _sorted(paths)], 5) or "no file"
        raise InputError(
            f"{name}: expected files called {', '.join(SUFFIXES)} (each also with .gz), found "
            f"{found}; --format says what a file holds whose name does not"
        )
    if where.split is not None and len(paths) > 1:
        stems = {path: _split_of(path) for path in data}
        data = [path for path in data if stems[path] == where.split]
        if not data:
            names = sorted(set(stems.values()), key=natural_order)
            raise InputError(
                f"{name}: --split: no file is called '{where.split}'"
                f"{did_you_mean(where.split, names, 'there are')}"
            )
    kinds: dict[str, Kind] = {suffix: FORMATS[suffix[1:]] for suffix in SUFFIXES}
    return [_item(path, kinds[suffix_of(path)], txt) for path in data]


def _item(path: Path, kind: Kind, txt: Txt) -> InputItem:
    if kind == "txt" and txt == "documents":
        kind = "document"
    return InputItem(str(path), kind, path=path)


def _split_of(path: Path) -> str:
    shard = SHARD.fullmatch(stem_of(path))
    return shard[1] if shard else stem_of(path)


def _sorted(paths: Sequence[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: [natural_order(part) for part in path.parts])


def _hidden(file: Path, folder: Path) -> bool:
    """Of files that systems and tools leave beside data: `.DS_Store`, `__MACOSX`, `_SUCCESS`."""
    return any(re.match(r"\.|__|_SUCCESS", part) for part in file.relative_to(folder).parts)


def _tables(where: InputSpec) -> list[InputItem]:
    splits: dict[str, Any] = load_tables(where.source, where.config)
    if where.split is None and len(splits) > 1:
        raise InputError(
            f"INPUT: '{where.source}' has the splits {', '.join(splits)}; name one with --split"
        )
    name = where.split or next(iter(splits))
    if name not in splits:
        raise InputError(
            f"INPUT: '{where.source}' has no split '{name}' (--split)"
            f"{did_you_mean(name, list(splits), 'it has')}"
        )
    return [InputItem(f"{where.source} {name}", "table", table=splits[name])]
