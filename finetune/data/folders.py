"""A folder → the files of its splits, and what in it is not read.

    layout = read_layout(Path("news"), named=())
    layout.splits                       # {"train": TableFiles([…]), "test": Documents([…])}
    layout.skipped                      # ["README.txt", "images (12 files)"]

Four layouts are known: a file for each split; a sub-folder of tables for each split; a sub-folder
of documents for each label; and a sub-folder for each split, with such label folders in it. Every
folder of documents is a label, whatever its name, and every .txt file in it is a document. What
may hold data and is not read is listed.
"""

import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from finetune.data.cells import natural_order
from finetune.data.formats.registry import SUFFIXES, explain_ending, stem_of, suffix_of
from finetune.data.shards import missing_shards, shard_of
from finetune.runtime.errors import InputError, shorten
from finetune.runtime.wording import count_of

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
# Files beside the splits that describe them; not those in a label's folder.
BESIDE = re.compile(
    r"(readme|licen[sc]e|citation)(\.(txt|md|rst|cff|bib|json))?|dataset_infos?\.json"
    r"|(.+\.)?schema\.json",
    re.IGNORECASE,
)
# Of which nobody expects documents.
METADATA = re.compile(r"dataset_infos?\.json|(.+\.)?schema\.json", re.IGNORECASE)
# What systems and tools leave beside data. No label is called so.
SYSTEM = ("__MACOSX", "__pycache__")
MOST_COUNTED = 10_000  # entries of a folder that is not read


class Listing(NamedTuple):
    """What is in a folder, each in natural order.

    Attributes:
        files: those of a known format.
        others: other files.
        folders: the sub-folders.
        hidden: files and folders whose name begins with a dot.
    """

    files: list[Path]
    others: list[Path]
    folders: list[Path]
    hidden: list[Path]

    def documents(self) -> list[Path]:
        """The .txt files, packed or not."""
        return [path for path in self.files if suffix_of(path) == ".txt"]

    def tables(self) -> list[Path]:
        """The files whose rows have columns."""
        return [path for path in self.files if suffix_of(path) != ".txt"]


class TableFiles(NamedTuple):
    """A split that is read from files: one, or several whose rows follow each other."""

    paths: Sequence[Path]
    names: Sequence[str]  # what messages call each
    missing: str | None = None  # what is to be said of shards that are not there


class Documents(NamedTuple):
    """A split of documents, each a file with its label; None for a document without."""

    root: Path
    folder: Path
    files: Sequence[tuple[Path, str | None]]
    is_labelled: bool


@dataclass
class Layout:
    """The splits of a folder by name, what is not read, and what is wrong."""

    splits: dict[str, TableFiles | Documents] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def list_folder(folder: Path) -> Listing:
    """
    Raises:
        InputError: where the folder cannot be read.
    """
    try:
        paths = sorted(folder.iterdir(), key=lambda path: natural_order(path.name))
    except OSError as error:
        raise InputError(f"{folder}: cannot read: {error.strerror}") from None
    hidden = [path for path in paths if path.name.startswith(".")]
    shown = [path for path in paths if path not in hidden and path.name not in SYSTEM]
    files = [path for path in shown if path.is_file()]
    return Listing(
        [path for path in files if suffix_of(path)],
        [path for path in files if not suffix_of(path)],
        [path for path in shown if path.is_dir()],
        hidden,
    )


def read_layout(folder: Path, named: Collection[str]) -> Layout:
    """Which files of a folder are which split.

    Args:
        named: the splits that the recipe names.

    Raises:
        InputError: where the folder has none of the layouts, or two of them.
    """
    top = list_folder(folder)
    inner = {path: list_folder(path) for path in top.folders}
    labels = [path for path in top.folders if inner[path].documents()]
    nested = [path for path in top.folders if _label_folders(inner[path])]
    tables = [path for path in top.folders if inner[path].tables()]
    layout = Layout()
    # aclImdb has loose .txt files beside train/ and test/: only a file named for a role counts.
    if not any(ROLE_LIKE.fullmatch(stem_of(path)) for path in top.files):
        roles = [path for path in top.folders if path.name.lower() in ROLE_NAMES]
        roles += [path for path in top.folders if path.name in named and path not in roles]
        if nested and ({*nested} & {*roles} or not {*labels} - {*nested}):
            for path in (*nested, *[path for path in labels if path in roles]):
                if path.name not in layout.splits:
                    layout.splits[path.name] = _read_documents(folder, path, layout)
            _skip_others(layout, folder, top, layout.splits)
        elif {*tables} & {*roles}:
            for path in tables:
                _add_tables(layout, folder, path.name, inner[path].tables())
                skipped = [*inner[path].documents(), *inner[path].folders, *inner[path].hidden]
                layout.skipped += _describe_skipped(folder, skipped)
            _skip_others(layout, folder, top, layout.splits)
        elif labels:
            layout.splits["train"] = _read_documents(folder, folder, layout)
    if not layout.splits and not layout.problems:
        _read_files(layout, folder, top)
    if layout.problems:
        raise InputError(layout.problems)
    return layout


def _label_folders(listing: Listing) -> list[Path]:
    return [path for path in listing.folders if list_folder(path).documents()]


def _read_documents(root: Path, folder: Path, layout: Layout) -> Documents:
    """The documents of each sub-folder under its name; without sub-folders, unlabelled."""
    listing = list_folder(folder)
    labelled: list[tuple[Path, str | None]] = []
    for label in listing.folders:
        inner = list_folder(label)
        deeper = _label_folders(inner)
        if deeper:
            names = shorten([f"{label.name}/{path.name}" for path in deeper])
            layout.problems.append(
                f"{folder}: expected the documents of each label in a folder of its own, got "
                f"folders of documents within a label's folder ({names}); move them up "
                f"('{label.name}/{deeper[0].name}' might become '{label.name}-{deeper[0].name}'), "
                "or merge them"
            )
        if documents := inner.documents():
            name = None if label.name.lower() in UNLABELLED else label.name
            labelled += [(path, name) for path in documents]
            rest = [*inner.tables(), *inner.others, *inner.hidden]
            rest += [path for path in inner.folders if path not in deeper]
            layout.skipped += _describe_skipped(root, rest)
        elif not deeper:
            layout.skipped += _describe_skipped(root, [label], is_label=True)
    loose = listing.documents() if labelled else []
    beside = [*listing.tables(), *listing.others] if folder != root else listing.tables()
    layout.skipped += _describe_skipped(root, [*loose, *beside, *listing.hidden])
    files = labelled or [(path, None) for path in listing.documents()]
    return Documents(root, folder, files, bool(labelled))


def _read_files(layout: Layout, folder: Path, top: Listing) -> None:
    """A file for each split, or several that are shards of one."""
    files = [path for path in top.files if not BESIDE.fullmatch(path.name)]
    layout.problems += [
        explain_ending(path) for path in top.others if ROLE_LIKE.fullmatch(path.name)
    ]
    if not files and not layout.problems:
        inner = [path for path in top.folders if list_folder(path).files]
        hint = f"; did you mean {inner[0]}?" if inner else ""
        found = [path.name for path in top.others if not BESIDE.fullmatch(path.name)]
        raise InputError(
            f"{folder}: expected a file per split ({', '.join(SUFFIXES)}) or a sub-folder of .txt "
            f"files per label, found {shorten(found) or 'neither'}{hint}"
        )
    by_split: dict[str, list[Path]] = {}
    for path in files:
        shard = shard_of(path)
        by_split.setdefault(shard.split if shard else stem_of(path), []).append(path)
    for split, paths in by_split.items():
        if len(paths) > 1 and not all(map(shard_of, paths)):
            names = " and ".join(path.name for path in paths)
            layout.problems.append(
                f"{folder}: {names} are both the split '{split}'; keep one of them"
            )
        _add_tables(layout, folder, split, paths)
    beside = [path for path in top.files if path not in files]
    layout.skipped += _describe_skipped(folder, [*beside, *top.folders, *top.hidden])


def _add_tables(layout: Layout, folder: Path, split: str, paths: Sequence[Path]) -> None:
    missing = None
    if found := missing_shards(paths):
        said = "; ".join(said for said, _ in found)
        missing = (
            f"{folder}: {said}; copy them there, or, to read the others alone, move those to a "
            f"folder {split}/ and rename them without '-of-'"
        )
    names = [path.relative_to(folder).as_posix() for path in paths]
    layout.splits[split] = TableFiles(paths, names, missing)


def _skip_others(layout: Layout, folder: Path, top: Listing, used: Collection[str]) -> None:
    """Note what is beside the folders of splits."""
    folders = [path for path in top.folders if path.name not in used]
    layout.skipped += _describe_skipped(folder, [*top.files, *top.hidden])
    layout.skipped += _describe_skipped(folder, folders, is_label=True)


def _describe_skipped(root: Path, paths: Iterable[Path], is_label: bool = False) -> list[str]:
    """Files, and folders with how many files they hold: `sport/notes.md`, `images (12 files)`.

    Left out are metadata, hidden files that are no data, and folders in which no file has a known
    format; of a folder that should be a label's, all files count.
    """
    described = []
    for path in paths:
        name = path.relative_to(root).as_posix()
        if path.is_dir():
            count = sum(
                file.is_file() and (is_label or suffix_of(file) != "")
                for file in itertools.islice(path.rglob("*"), MOST_COUNTED)
                if not file.name.startswith(".")
            )
            if count:
                described.append(f"{name} ({count_of(count, 'file')})")
        elif path.name.startswith("."):
            described += [name] * (suffix_of(path) != "" and not path.name.startswith("._"))
        elif METADATA.fullmatch(path.name) is None:
            described.append(name)
    return described
