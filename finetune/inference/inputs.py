"""INPUT of a prediction → the files, pipes or tables whose rows follow each other.

    find_inputs(InputSpec("news/*.jsonl.gz"))  # a file, folder, glob, Hub data set, or "-"
    check_inputs(sources, requested)           # columns that are missing, before the model loads

`data/formats/` parses the rows, and `records.py` makes records of them.
"""

import glob
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from finetune.data.cells import natural_order
from finetune.data.columns import find_column_problems
from finetune.data.folders import SYSTEM
from finetune.data.formats.registry import (
    FORMATS,
    KIND_OF,
    SUFFIXES,
    conversion_hint,
    kind_of,
    peek_columns,
    stem_of,
    suffix_of,
)
from finetune.data.formats.source import AUTO, DataSource, read_ahead, rejoin
from finetune.data.hub_data_sets import load_tables
from finetune.data.local_paths import resolve_local_path
from finetune.data.shards import missing_shards, shard_of
from finetune.inference import standard_input
from finetune.inference.records import RequestedColumns
from finetune.runtime.errors import InputError, did_you_mean, shorten
from finetune.runtime.wording import count_of

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
        encoding: of files of text, and of standard input.
        delimiter: between the cells of csv, tsv and .txt files, and of standard input.
    """

    source: str
    split: str | None = None
    config: str | None = None
    format: str | None = None
    txt: Txt | None = None
    encoding: str = "utf-8"
    delimiter: str = AUTO


def find_inputs(
    where: InputSpec, tell: Callable[[str], None] = lambda message: None
) -> list[DataSource]:
    """What is to be read, in order.

    Args:
        tell: is called with what is not read, although it is there or should be.

    Raises:
        InputError: where nothing of the kind is there, or shards of a folder are missing.
    """
    if where.source == "-":
        kind = _kind_of(where.format) if where.format else None
        if kind is not None and not FORMATS[kind].streams:
            raise InputError(
                f"-: a {kind} file is read from its end, which a pipe has last; write it to a file "
                "first"
            )
        if kind in (None, "txt") and where.delimiter != AUTO:
            kind = "csv"
        return [_as_asked(standard_input.open_standard_input(kind, where.encoding), where)]
    if glob.has_magic(where.source) and not Path(where.source).exists():
        # Not Path.glob, which knows no absolute patterns.
        pattern = str(Path(where.source).expanduser())
        paths = [Path(path) for path in glob.glob(pattern, recursive=True)]  # noqa: PTH207
        paths = [path for path in paths if path.is_file()]
        if not paths:
            raise InputError(f"{where.source}: no file is called so")
        for said in _describe_missing_shards(paths):
            tell(said)
        return _from_files(where.source, paths, where, "documents", tell)
    path = resolve_local_path(where.source, "INPUT")
    if path is None:
        return _from_tables(where)
    if path.is_dir():
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return _from_tables(where)
        found = [file for file in path.rglob("*") if file.is_file()]
        inside = [file for file in found if not _is_hidden(file, path)]
        _tell_skipped(tell, [file for file in found if file not in {*inside} and suffix_of(file)])
        if missing := _describe_missing_shards(inside):
            raise InputError(
                f"{said}; copy them there, or name those that are to be read with a glob, as "
                f"'{path / '*'}'"
                for said in missing
            )
        return _from_files(str(path), inside, where, "documents", tell)
    if not (path.is_file() or stat.S_ISFIFO(path.stat().st_mode)):
        raise InputError(f"{path}: neither a file nor a folder")
    for said in _describe_missing_shards([path]):
        tell(said)
    return _from_files(str(path), [path], where, "lines", tell)


def check_inputs(sources: Sequence[DataSource], requested: RequestedColumns) -> None:
    """Look at what the files say of themselves at their beginning.

    Raises:
        InputError: for each file that cannot be read, or lacks a column that is asked for.
    """
    problems: list[str] = []
    for source in sources:
        try:
            if source.kind != "document" and source.stream and not read_ahead(source.stream, 1):
                raise InputError(f"{source.name}: the file is empty")
            standard_input.check_header(source, requested.texts)
            columns = peek_columns(source, requested.all_columns())
        except InputError as error:
            problems += error.problems
            continue
        if not FORMATS[source.kind].has_columns:
            if requested.keep:
                problems.append(f"{source.name}: a .txt file has no columns ({requested.kept})")
            if len(requested.texts) > 1:
                problems.append(
                    f"{source.name}: a .txt file has no columns, and the model reads several: "
                    f"{', '.join(requested.texts)}"
                )
        if columns is not None:
            problems += find_column_problems(source.name, columns, requested.required())
    if problems:
        raise InputError(problems)


def _describe_missing_shards(paths: Sequence[Path]) -> list[str]:
    """Of each folder of some files, which shards of its sets are not there."""
    by_folder: dict[Path, list[Path]] = {}
    for path in _sorted(paths):
        by_folder.setdefault(path.parent, []).append(path)
    return [
        f"{folder}: {said}"
        for folder, files in by_folder.items()
        for said, _ in missing_shards(files)
    ]


def _tell_skipped(tell: Callable[[str], None], files: Sequence[Path]) -> None:
    if files:
        names = shorten([str(file) for file in _sorted(files)])
        tell(f"{count_of(len(files), 'file is', 'files are')} not read ({names})")


def _from_files(
    name: str,
    paths: Sequence[Path],
    where: InputSpec,
    txt: Txt,
    tell: Callable[[str], None],
) -> list[DataSource]:
    """The data files among some, in natural order."""
    txt = where.txt or txt
    if where.format is not None:
        kind = _kind_of(where.format)
        return [_make_source(path, kind, txt, where) for path in _sorted(paths)]
    data = [path for path in _sorted(paths) if suffix_of(path)]
    if not data:
        found = shorten([path.name for path in _sorted(paths)], 5) or "no file"
        hint = next(filter(None, map(conversion_hint, _sorted(paths))), "")
        raise InputError(
            f"{name}: expected files called {', '.join(SUFFIXES)} (each also with .gz), found "
            f"{found}{hint}; --format says what a file holds whose name does not"
        )
    if where.split is not None and len(paths) > 1:
        stems = {path: _split_of(path) for path in data}
        _tell_skipped(tell, [path for path in data if stems[path] != where.split])
        data = [path for path in data if stems[path] == where.split]
        if not data:
            names = sorted(set(stems.values()), key=natural_order)
            raise InputError(
                f"{name}: --split: no file is called '{where.split}'"
                f"{did_you_mean(where.split, names, 'there are')}"
            )
    _tell_skipped(tell, [path for path in paths if not suffix_of(path)])
    return [_make_source(path, kind_of(path, where.delimiter), txt, where) for path in data]


def _make_source(path: Path, kind: str, txt: Txt, where: InputSpec) -> DataSource:
    if kind == "txt" and txt == "documents":
        kind = "document"
    # A named pipe: nobody can look at its beginning twice.
    is_pipe = FORMATS[kind].streams and not path.is_file()
    stream = rejoin(b"", path.open("rb")) if is_pipe else None
    return _as_asked(DataSource(str(path), kind, path=path, stream=stream), where)


def _as_asked(source: DataSource, where: InputSpec) -> DataSource:
    return replace(
        source,
        encoding=where.encoding,
        encoding_option="--encoding ",
        delimiter=where.delimiter,
        delimiter_option="--delimiter ",
    )


def _kind_of(word: str) -> str:
    """The key of `FORMATS` that --format means: "ndjson" is "jsonl"."""
    return word if word in FORMATS else KIND_OF[f".{word}"]


def _split_of(path: Path) -> str:
    shard = shard_of(path)
    return shard.split if shard else stem_of(path)


def _sorted(paths: Sequence[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: [natural_order(part) for part in path.parts])


def _is_hidden(file: Path, folder: Path) -> bool:
    """Of files that systems and tools leave beside data: `.DS_Store`, `__MACOSX`, `_SUCCESS`."""
    parts = file.relative_to(folder).parts
    return file.name == "_SUCCESS" or any(p.startswith(".") or p in SYSTEM for p in parts)


def _from_tables(where: InputSpec) -> list[DataSource]:
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
    return [DataSource(f"{where.source} {name}", "table", table=splits[name])]
