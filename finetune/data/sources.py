"""`package:…`, a folder, a file, or a Hub id → the rows of its splits.

    load_rows(recipe.data)            # {"train": Rows, "test": Rows}

`read_rows.py` reads a single file, and `hub_data_sets.py` loads what only `datasets` can.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from finetune.config import schema
from finetune.data import frames
from finetune.data.columns import ColumnSpec
from finetune.data.corpus import Finding
from finetune.data.folders import ALIASES, ROLE_NAMES, Documents, TableFiles, read_layout
from finetune.data.formats.source import DataSource
from finetune.data.hub_data_sets import dataset_reader, hub_tables, saved_tables
from finetune.data.identifiers import Ids
from finetune.data.local_paths import HELD, resolve_local_path
from finetune.data.places import Places, Shards
from finetune.data.read_rows import find_missing_values, read_documents, read_file, read_rows
from finetune.data.rows import Labels, Rows
from finetune.data.shards import missing_shards
from finetune.data.soft_labels import ShareColumns
from finetune.data.text_store import Store, Texts
from finetune.runtime.errors import InputError, closest_match, did_you_mean, shorten

Reader = Callable[[ColumnSpec], Rows]


class Roles(NamedTuple):
    """The source's split for each role; None: to be split off from train."""

    train: str
    validation: str | None
    test: str | None


def load_rows(
    data: schema.Data, folder: Path | None = None, slices: Sequence[str] = ()
) -> dict[str, Rows]:
    """The rows of every split of `data.source`, by the split's name in the source.

    A single file, and a folder with a sub-folder per label, are one split called train. A split
    that plays no role and cannot be read is left out.

    Args:
        folder: where texts go that would crowd memory, in a file that leaves with the process;
            None: they stay in memory.
        slices: columns of `score.slices`, which are read too.

    Raises:
        InputError: with the problems of every split that plays a role.
    """
    readers, skipped = _find_readers(data)
    return _read_splits(readers, data, Store(folder), skipped, slices)


def load_split(data: schema.Data, split: str | None, spec: ColumnSpec) -> Rows:
    """The rows of one split of `data.source`.

    Args:
        split: its name; None: the only one, or test.

    Raises:
        InputError: with the problems of that split, or where it is not clear which is meant.
    """
    readers, _ = _find_readers(data if split is None else data.model_copy(update={"train": split}))
    by_lower = {name.lower(): name for name in readers}
    name = split
    if name is None:
        name = next(iter(readers)) if len(readers) == 1 else by_lower.get("test")
    if name not in readers:
        asked = "name one with --split" if split is None else f"no split '{split}' (--split)"
        raise InputError(f"{data.source}: {asked}{did_you_mean(split or '', [*readers], 'it has')}")
    return readers[name](spec)


def _find_readers(data: schema.Data) -> tuple[dict[str, Reader], Sequence[str]]:
    """What reads each split of the source, and what of it is not read."""
    if data.source.startswith(HELD):
        held = frames.find_held(data.source)
        return {name: _held_reader(table) for name, table in held.splits.items()}, ()
    path = resolve_local_path(data.source)
    if path is None:
        tables, where, name = hub_tables(data), data.source, data.source
    elif path.is_file():
        others = [name for _, names in missing_shards([path]) for name in names]
        return {"train": _file_reader(TableFiles([path], [path.name]))}, others
    elif not path.is_dir():
        raise InputError(f"data.source: {path} is neither a file nor a folder")
    elif not ((path / "dataset_dict.json").is_file() or (path / "state.json").is_file()):
        layout = read_layout(path, named={data.train, data.validation, data.test})
        return {
            name: _document_reader(split) if isinstance(split, Documents) else _file_reader(split)
            for name, split in layout.splits.items()
        }, layout.skipped
    else:
        tables, where, name = saved_tables(path), str(path), path.name
    return {
        split: dataset_reader(table, where, f"{name} {split}") for split, table in tables.items()
    }, ()


def list_files(data: schema.Data) -> list[Path]:
    """The folder or file of `data.source` and what is read in it, as named there; none of a Hub id
    or a held data frame.

    Raises:
        InputError: where there is no such source.
    """
    path = resolve_local_path(data.source)
    if path is None or path.is_file():
        return [] if path is None else [path]
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return [path, *path.rglob("*")]
    layout = read_layout(path, named={data.train, data.validation, data.test})
    files = [path]
    for split in layout.splits.values():
        if isinstance(split, Documents):
            files += [file for file, _ in split.files]
        else:
            files += split.paths
    return files


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
    readers: dict[str, Reader],
    data: schema.Data,
    store: Store,
    skipped: Sequence[str] = (),
    slices: Sequence[str] = (),
) -> dict[str, Rows]:
    """Read every split; raise the problems of those that play a role, all together.

    Args:
        skipped: what of the source is not read.
        slices: as of `load_rows`.
    """
    chosen = assign_roles(readers, data)
    rows = {}
    problems: list[str] = []
    unreadable: list[str] = []
    for split, read in readers.items():
        try:
            rows[split] = read(_column_spec(data, split == chosen.train, store, slices))
        except InputError as error:
            if split in chosen:
                problems += error.problems
            else:
                unreadable.append(f"{split} ({shorten(error.problems, 1)})")
    if problems:
        raise InputError(problems)
    notes = [
        Finding(kind, "source", len(names), tuple(names), rule)
        for kind, names, rule in (
            ("not read", skipped, "skipped"),
            ("unread split", unreadable, "ignored"),
        )
        if names
    ]
    train = rows[chosen.train]
    return rows | {chosen.train: replace(train, notes=(*notes, *train.notes))}


def _document_reader(documents: Documents) -> Reader:
    """Reads the .txt files of each sub-folder under its name; without sub-folders, unlabelled."""

    def read(spec: ColumnSpec) -> Rows:
        if not documents.is_labelled and spec.needs_label:
            raise InputError(f"{documents.folder}: expected a sub-folder of .txt files per label")
        if problems := [f"{documents.folder}: {why}" for why in find_missing_values(spec)]:
            raise InputError(problems)
        files, is_labelled = documents.files, documents.is_labelled
        return read_documents(documents.root, files, is_labelled, spec.store, spec.encoding)

    return read


def _file_reader(files: TableFiles) -> Reader:
    """Reads a file, or the shards of one split as if they were one file."""
    paths = files.paths

    def read(spec: ColumnSpec) -> Rows:
        if files.missing is not None:
            raise InputError(files.missing)
        parts = [read_file(path, spec, name) for path, name in zip(*files[:2], strict=True)]
        if len(parts) == 1:
            return parts[0]
        multi_label = any(part.multi_label for part in parts)
        if multi_label:
            parts = [part.as_sets() for part in parts]
        labels: list[Labels | None] | None = None
        if all(part.labels is not None for part in parts):
            labels = [label for part in parts for label in part.labels or []]
        damaged, damaged_labels, halves, start = [], [], [], 0
        for part in parts:
            damaged += [start + i for i in part.damaged]
            damaged_labels += [start + i for i in part.damaged_labels]
            halves += [start + i for i in part.halves]
            start += len(part.texts)
        names = parts[0].label_names
        if any(part.label_names != names for part in parts):
            raise InputError(f"{paths[0]}: the split's shards carry different label names")
        origin = f"{files.names[0]} and {len(paths) - 1} more"
        places = Places(origin, Shards([part.places for part in parts]))
        texts = Texts.joined([part.texts for part in parts])
        seconds = None
        if spec.second is not None:
            seconds = Texts.joined([part.seconds for part in parts if part.seconds is not None])
        return Rows(
            texts,
            labels,
            places,
            damaged,
            names,
            origin,
            seconds,
            multi_label,
            tuple(note for part in parts for note in part.notes),
            damaged_labels,
            next((part.encoding_hint for part in parts if part.encoding_hint), ""),
            _join_ids([part.ids for part in parts], parts),
            _join_attributes(parts, spec),
            halves,
            parts[0].one_hot,
            _join_ids([part.shares for part in parts], parts),
            _join_ids([part.weights for part in parts], parts),
        )

    return read


def _join_ids(values: Sequence[Ids | None], parts: Sequence[Rows]) -> Ids | None:
    """Those of all shards; of a shard without the column, its rows have none."""
    if all(ids is None for ids in values):
        return None
    return Ids.joined(
        [
            Ids.none(part.texts) if ids is None else ids
            for ids, part in zip(values, parts, strict=True)
        ]
    )


def _join_attributes(parts: Sequence[Rows], spec: ColumnSpec) -> Mapping[str, Ids]:
    """Those of all shards, by their column."""
    return {
        column: Ids.joined([part.attributes[column] for part in parts])
        for column in spec.attribute_columns()
    }


def _held_reader(table: DataSource) -> Reader:
    """Reads one split of a data frame."""
    return lambda spec: read_rows(table, table.name, spec)


def _split_columns(data: schema.Data, is_train: bool) -> Iterator[tuple[str, str]]:
    """The columns by which train is cut; groups are compared with other splits too."""
    if data.group is not None:
        yield "data.group", data.group
    if data.split_by_time is not None and is_train:
        yield "data.split_by_time", data.split_by_time


def _column_spec(
    data: schema.Data, needs_label: bool, store: Store, slices: Sequence[str] = ()
) -> ColumnSpec:
    return ColumnSpec(
        data.columns(),
        data.label,
        needs_label,
        data.text_pair,
        data.template,
        data.label_separator,
        store,
        data.encoding,
        data.label_lists,
        data.delimiter,
        data.id,
        attributes=(*_split_columns(data, needs_label), *(("score.slices", one) for one in slices)),
        hierarchy=data.hierarchy,
        shares=share_columns(data),
        weight=data.weight if needs_label else None,
        numbers=data.task == "number",
        are_tasks=data.tasks is not None,
    )


def share_columns(data: schema.Data) -> ShareColumns | None:
    """Where the label probabilities are; None where the recipe names none."""
    if data.label_probabilities is None:
        return None
    are_objects = isinstance(data.label_probabilities, str)
    names = data.given_labels() if are_objects else data.share_names()
    return ShareColumns(data.share_columns(), names, are_objects, data.multi_label)
