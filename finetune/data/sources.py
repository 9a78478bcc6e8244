"""`package:…`, a folder, a file, or a Hub id → the rows of its splits.

    load_rows(recipe.data)            # {"train": Rows, "test": Rows}

`read_rows.py` reads a single file, and `hub_data_sets.py` loads what only `datasets` can.
"""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from finetune.config import schema
from finetune.data.cells import natural_order
from finetune.data.columns import ColumnSpec
from finetune.data.formats.registry import SUFFIXES, stem_of, suffix_of
from finetune.data.hub_data_sets import dataset_reader, hub_tables, saved_tables
from finetune.data.local_paths import resolve_local_path
from finetune.data.places import Places, Shards
from finetune.data.read_rows import read_documents, read_file
from finetune.data.rows import Labels, Rows
from finetune.data.text_store import Store, Texts
from finetune.runtime.errors import InputError, closest_match, shorten

SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")  # train-00000-of-00002.parquet, as the Hub names them
ALIASES = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test",),
}
ROLE_NAMES = tuple(name for names in ALIASES.values() for name in names)
# train.csv, train_noisy.csv, test-2.xlsx; not trains.csv
ROLE_LIKE = re.compile(rf"({'|'.join(ROLE_NAMES)})(?![a-z]).*", re.IGNORECASE)
# Sub-folders of documents nobody labelled, as aclImdb/train/unsup.
UNLABELLED = ("unsup", "unlabeled", "unlabelled")
# Files beside the data that are no split.
BESIDE = re.compile(r"(readme|licen[sc]e|citation|dataset_infos?)\b.*", re.IGNORECASE)


class Roles(NamedTuple):
    """The source's split for each role; None: to be split off from train."""

    train: str
    validation: str | None
    test: str | None


def load_rows(data: schema.Data, folder: Path | None = None) -> dict[str, Rows]:
    """The rows of every split of `data.source`, by the split's name in the source.

    A single file, and a folder with a sub-folder per label, are one split called train. A split
    that plays no role and cannot be read is left out.

    Args:
        folder: where texts go that would crowd memory, in a file that leaves with the process;
            None: they stay in memory.

    Raises:
        InputError: with the problems of every split that plays a role.
    """
    path, store = resolve_local_path(data.source), Store(folder)
    if path is None:
        return _from_hub(data, store)
    if path.is_file():
        return _read_splits({"train": lambda spec: read_file(path, spec)}, data, store)
    if not path.is_dir():
        raise InputError(f"data.source: {path} is neither a file nor a folder")
    return _from_folder(path, data, store)


def assign_roles(names: Collection[str], data: schema.Data) -> Roles:
    """Which of the source's splits is trained on, tuned on and tested on.

    Raises:
        InputError: where the recipe names splits that are not there, or none is called train.
    """
    requested = {"train": data.train, "validation": data.validation, "test": data.test}
    splits = f"the source has the splits {', '.join(names)}"
    taken = set(requested.values())
    chosen: dict[str, str | None] = {}
    problems = []
    for role, name in requested.items():
        if name in ("carve", "none") and role != "train":
            chosen[role] = None
        elif name == "auto":
            by_lower = {split.lower(): split for split in names if split not in taken}
            there = [by_lower[alias] for alias in ALIASES[role] if alias in by_lower]
            if role == "train" and not there and len(names) == 1:
                there = [split for split in names if split.lower() not in ROLE_NAMES]
            chosen[role] = there[0] if there else None
            if role == "train" and not there:
                problems.append(f"data.train: {splits}, and none is called train; name one of them")
        elif name in names:
            chosen[role] = name
        else:
            guess = closest_match(name, names)
            hint = f"; did you mean '{guess}'?" if guess is not None else ""
            problems.append(f"data.{role}: no split '{name}'; {splits}{hint}")
    if problems:
        raise InputError(problems)
    return Roles(str(chosen["train"]), chosen["validation"], chosen["test"])


def _read_splits(
    readers: dict[str, Callable[[ColumnSpec], Rows]], data: schema.Data, store: Store
) -> dict[str, Rows]:
    """Read every split; raise the problems of those that play a role, all together."""
    chosen = assign_roles(readers, data)
    rows = {}
    problems: list[str] = []
    for split, read in readers.items():
        try:
            rows[split] = read(_column_spec(data, split == chosen.train, store))
        except InputError as error:
            problems += error.problems if split in chosen else ()
    if problems:
        raise InputError(problems)
    return rows


def _from_folder(folder: Path, data: schema.Data, store: Store) -> dict[str, Rows]:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _from_disk(folder, data, store)
    files, others, folders = _list_folder(folder)
    named_for_role = [path for path in files if ROLE_LIKE.fullmatch(stem_of(path))]
    labels = [path for path in folders if _list_documents(path)]
    splits = [path for path in folders if any(map(_list_documents, _list_folder(path)[2]))]
    # aclImdb has loose .txt files beside train/ and test/: only a file named for a role counts.
    if splits and not named_for_role:
        unlabelled = [path for path in labels if path.name.lower() in ROLE_NAMES]
        readers = {path.name: _document_reader(folder, path) for path in [*splits, *unlabelled]}
        return _read_splits(readers, data, store)
    if labels and not named_for_role:
        return _read_splits({"train": _document_reader(folder, folder)}, data, store)

    problems = [
        f"{path}: unknown file ending; expected one of {', '.join(SUFFIXES)}, each also with .gz"
        for path in others
        if ROLE_LIKE.fullmatch(path.name)
    ]
    if not files and not problems:
        inner = [path for path in folders if _list_folder(path)[0]]
        hint = f"; did you mean {inner[0]}?" if inner else ""
        raise InputError(
            f"{folder}: expected a file per split ({', '.join(SUFFIXES)}) or a sub-folder of .txt "
            f"files per label, found "
            f"{shorten([path.name for path in others]) or 'neither'}{hint}"
        )
    by_split: dict[str, list[Path]] = {}
    for path in files:
        shard = SHARD.fullmatch(stem_of(path))
        by_split.setdefault(shard[1] if shard else stem_of(path), []).append(path)
    for split, paths in by_split.items():
        if len(paths) > 1 and not all(SHARD.fullmatch(stem_of(path)) for path in paths):
            names = " and ".join(path.name for path in paths)
            problems.append(f"{folder}: {names} are both the split '{split}'; keep one of them")
    if problems:
        raise InputError(problems)
    readers = {split: _file_reader(paths) for split, paths in by_split.items()}
    return _read_splits(readers, data, store)


def _list_folder(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """The data files, the other files and the sub-folders, in natural order."""
    try:
        paths = sorted(folder.iterdir(), key=lambda path: natural_order(path.name))
    except OSError as error:
        raise InputError(f"{folder}: cannot read: {error.strerror}") from None
    shown = [
        path
        for path in paths
        if not path.name.startswith((".", "__")) and not BESIDE.fullmatch(path.name)
    ]
    files = [path for path in shown if path.is_file()]
    return (
        [path for path in files if suffix_of(path)],
        [path for path in files if not suffix_of(path)],
        [path for path in shown if path.is_dir()],
    )


def _list_documents(folder: Path) -> list[Path]:
    return [path for path in _list_folder(folder)[0] if path.name.lower().endswith(".txt")]


def _document_reader(root: Path, folder: Path) -> Callable[[ColumnSpec], Rows]:
    """Reads the .txt files of each sub-folder under its name; without sub-folders, unlabelled."""

    def read(spec: ColumnSpec) -> Rows:
        labelled = [
            (path, None if label.name.lower() in UNLABELLED else label.name)
            for label in _list_folder(folder)[2]
            for path in _list_documents(label)
        ]
        if not labelled and spec.needs_label:
            raise InputError(f"{folder}: expected a sub-folder of .txt files per label")
        loose = [(path, None) for path in _list_documents(folder)] if not labelled else []
        return read_documents(root, [*labelled, *loose], bool(labelled), spec.store)

    return read


def _file_reader(paths: Sequence[Path]) -> Callable[[ColumnSpec], Rows]:
    """Reads a file, or the shards of one split as if they were one file."""

    def read(spec: ColumnSpec) -> Rows:
        parts = [read_file(path, spec) for path in paths]
        if len(parts) == 1:
            return parts[0]
        multi_label = any(part.multi_label for part in parts)
        if multi_label:
            parts = [part.as_sets() for part in parts]
        labels: list[Labels | None] | None = None
        if all(part.labels is not None for part in parts):
            labels = [label for part in parts for label in part.labels or []]
        damaged = []
        start = 0
        for part in parts:
            damaged += [start + i for i in part.damaged]
            start += len(part.texts)
        names = parts[0].label_names
        if any(part.label_names != names for part in parts):
            raise InputError(f"{paths[0]}: the split's shards carry different label names")
        origin = f"{paths[0].name} and {len(paths) - 1} more"
        places = Places(origin, Shards([part.places for part in parts]))
        texts = Texts.joined([part.texts for part in parts])
        seconds = None
        if spec.second is not None:
            seconds = Texts.joined([part.seconds for part in parts if part.seconds is not None])
        return Rows(texts, labels, places, damaged, names, origin, seconds, multi_label)

    return read


def _from_disk(folder: Path, data: schema.Data, store: Store) -> dict[str, Rows]:
    return _read_splits(
        {
            name: dataset_reader(split, str(folder), f"{folder.name} {name}")
            for name, split in saved_tables(folder).items()
        },
        data,
        store,
    )


def _from_hub(data: schema.Data, store: Store) -> dict[str, Rows]:
    return _read_splits(
        {
            name: dataset_reader(split, data.source, f"{data.source} {name}")
            for name, split in hub_tables(data).items()
        },
        data,
        store,
    )


def _column_spec(data: schema.Data, needs_label: bool, store: Store) -> ColumnSpec:
    return ColumnSpec(
        data.columns(),
        data.label,
        needs_label,
        data.text_pair,
        data.template,
        data.label_separator,
        store,
    )
