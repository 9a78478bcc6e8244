"""A Hub data set, or a folder that `datasets` saved → its tables, memory-mapped, by split.

The only module that calls `datasets`' loaders, and only where the source needs them: that import
takes a second.
"""

import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune.config import schema
from finetune.data.columns import ColumnSpec
from finetune.data.formats.source import DataSource
from finetune.data.local_paths import resolve_local_path
from finetune.data.read_rows import read_rows
from finetune.data.rows import Rows
from finetune.runtime.console import quiet_datasets
from finetune.runtime.errors import InputError
from finetune.runtime.memory_errors import reraise_memory_error


def load_tables(source: str, config: str | None) -> dict[str, Any]:
    """The tables of a Hub data set, or of a folder that `datasets` saved, memory-mapped, by split.

    Raises:
        InputError: where there is no such data set, or none of that `config`.
    """
    if (path := resolve_local_path(source, "INPUT")) is not None:
        return saved_tables(path)
    try:
        return hub_tables(schema.Data(source=source, config=config))
    except InputError as error:
        raise InputError(
            problem.replace("set data.revision=refs/convert/parquet, or ", "")
            .replace("set data.source=PATH to", "name")
            .replace("data.source", "INPUT")
            .replace("data.config", "--config")
            for problem in error.problems
        ) from None


def saved_tables(folder: Path) -> dict[str, Any]:
    """Those of a folder that `datasets` saved.

    Raises:
        InputError: where the folder is not whole.
    """
    import datasets

    quiet_datasets()
    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever a broken copy makes Arrow or json raise
        reraise_memory_error(error)
        raise InputError(
            f"{folder}: not a whole folder of datasets' save_to_disk ({_first_line(error)})"
        ) from None
    return _by_split(saved)


def hub_tables(data: schema.Data) -> dict[str, Any]:
    """Those of the Hub data set that the recipe names.

    Raises:
        InputError: that says why it cannot be had, and what to do.
    """
    import datasets

    quiet_datasets()
    try:
        loaded = datasets.load_dataset(
            data.source, data.config, revision=data.revision, **_without_scripts()
        )
    except Exception as error:  # of many libraries and of none: network, cache, builder, Arrow
        reraise_memory_error(error)
        raise InputError(_hub_problem(data, error)) from None
    return _by_split(loaded)


def _without_scripts() -> dict[str, Any]:
    """Run no loading script, and do not ask on stdin: `datasets` 3 would. Later ones have none."""
    import datasets

    known = inspect.signature(datasets.load_dataset).parameters
    return {"trust_remote_code": False} if "trust_remote_code" in known else {}


def _by_split(loaded: Any) -> dict[str, Any]:
    splits = loaded if isinstance(loaded, dict) else {"train": loaded}
    return {str(name): split for name, split in splits.items()}


def dataset_reader(dataset: Any, where: str, name: str) -> Callable[[ColumnSpec], Rows]:
    """Reads one split's table; messages begin with `where`, places of rows with `name`."""
    return lambda spec: read_rows(DataSource(where, "table", table=dataset), name, spec)


def _hub_problem(data: schema.Data, error: Exception) -> str:
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
    if "scripts are no longer supported" in text or "trust_remote_code" in text:
        return (
            f"{what} is a data set with a loading script, which `datasets` no longer runs; set "
            "data.revision=refs/convert/parquet, or data.source=PATH to a local copy"
        )
    return f"{what}: `datasets` cannot load it ({_first_line(error)}); fix that, {local}"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
