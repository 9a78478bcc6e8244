"""A model's folder or Hub id, checked before a library reads it: its files, links and weights.

    shapes = check_source(source, "model.source", revision)     # name → shape, of the headers

A model may come from anyone. Weights are what their content says, never what their name says; a
link or an index that leads out of the folder is not followed.
"""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from finetune.modeling.config_checks import find_config_problems, find_size_problems
from finetune.modeling.hub_reach import is_out_of_reach
from finetune.modeling.load_errors import check_model_folder, describe_no_way, first_line
from finetune.runtime.errors import InputError, shorten

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
SHARD = re.compile(r"[\w-][\w.-]*\.safetensors")  # a file of the same folder
MAX_JSON_BYTES = 2**26
MAX_PROBLEMS = 10
Shapes = dict[str, tuple[int, ...]]

# How files begin that are called .safetensors and are something else.
OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive with a pickle, as torch.save writes it",
    **{b"\x80" + bytes([protocol]): "a pickle" for protocol in range(2, 6)},
    b"\x89HDF": "an HDF5 file",
    b"GGUF": "a GGUF file",
    b"version https://git-lfs": "a pointer of Git LFS (`git lfs pull` gets the file)",
}


ADAPTER = "adapter_config.json"


def check_source(
    source: str,
    key: str,
    revision: str | None = None,
    classifier: bool = False,
    weights: bool = False,
) -> Shapes:
    """Check a model before it is loaded, and before anything is allocated for it.

    Args:
        source: a folder or a Hub id.
        classifier: whether its labels will be used.
        weights: whether those of the Hub are wanted; those of a folder are looked at anyway.

    Returns:
        The shapes of its weights; empty where they were not looked at, or are not there.

    Raises:
        InputError: with every problem of its config; for weights that are none; for a Hub id that
            is not in the cache, where there is no way to the Hub.
    """
    check_model_folder(source, key)
    is_folder = Path(source).is_dir()
    if is_folder:
        check_links(Path(source), key)
    elif (
        HUB_ID.fullmatch(source)
        and is_out_of_reach()
        and find_file(source, "config.json", revision, True) is None
    ):
        raise InputError(describe_no_way(source, key))
    if find_file(source, ADAPTER, revision) is not None:
        raise InputError(  # with PEFT, transformers would load the model that it names
            f"{key}: expected a whole model, found an adapter ({ADAPTER}) in '{source}'; merge "
            "it into its model, and save that"
        )
    config = check_config(source, key, revision, classifier)
    shapes = read_shapes(source, key, revision) if weights or is_folder else {}
    if shapes and isinstance(config, dict):
        _raise(find_size_problems(config, shapes), source, key)
    return shapes


def check_config(
    source: str, key: str, revision: str | None = None, classifier: bool = False
) -> Any:
    """The content of a model's config.json; None where there is none, or no way to it.

    Raises:
        InputError: with every problem of it.
    """
    file = find_file(source, "config.json", revision)
    if file is None:
        return None
    config = read_json(file, key)
    _raise(find_config_problems(config, classifier), source, key)
    return config


def _raise(problems: Iterable[str], source: str, key: str) -> None:
    """
    Raises:
        InputError: where there are any.
    """
    found = [
        f"{key}: config.json: {problem}, in '{source}'; get the model again, or fix its config.json"
        for problem in problems
    ]
    if found:
        raise InputError(found[:MAX_PROBLEMS])


def find_file(
    source: str, name: str, revision: str | None = None, local_files_only: bool = False
) -> Path | None:
    """A file of a model's folder or Hub id; None where there is none, or no way to it.

    Args:
        local_files_only: whether of a Hub id only what is in the Hub's cache counts.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from transformers.utils.hub import cached_file  # takes seconds, and a push needs none of it

    try:
        found = cached_file(
            source,
            name,
            revision=revision,
            local_files_only=local_files_only,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except Exception:  # whoever loads the model next says what it is, and better
        return None
    return None if found is None else Path(found)


def read_json(file: Path, key: str) -> Any:
    """
    Raises:
        InputError: where it is no JSON, or larger or deeper than any model's.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise InputError(f"{key}: {file.name}: expected at most 64 MiB, found a larger file")
        return json.loads(content.decode("utf-8"))
    except RecursionError:
        why = "it is nested too deep"
    except (OSError, ValueError) as error:
        why = first_line(error)
    raise InputError(
        f"{key}: cannot read the model in '{file.parent}': {file.name} is not valid JSON: {why}; "
        "fix its files, or name another model"
    )


def check_links(folder: Path, key: str) -> None:
    """
    Raises:
        InputError: for links that lead out of a model's folder, from anywhere in it.
    """
    outside = []
    for parent, folders, files in os.walk(folder):
        links = [path for name in folders + files if is_link(path := Path(parent, name))]
        outside += [path for path in links if leads_out(path, folder)]
        # Before Python 3.12, os.walk follows the junctions of Windows.
        folders[:] = [name for name in folders if Path(parent, name) not in links]
    if outside:
        names = sorted(path.relative_to(folder).as_posix() for path in outside)
        raise InputError(
            f"{key}: expected a model folder with all its files, found links that lead out of "
            f"'{folder}': {shorten(names)}; copy what they name into the folder, if you trust it"
        )


def is_link(path: Path) -> bool:
    """Whether a path may end elsewhere: a link, or on Windows a junction."""
    return path.is_symlink() or getattr(path.lstat(), "st_reparse_tag", 0) != 0


def leads_out(path: Path, folder: Path | None = None) -> bool:
    """Whether a path in a folder ends elsewhere; the Hub's own cache has links to blobs.

    Args:
        folder: the path's parent, if none is given.
    """
    home, end = (folder or path.parent).resolve(), path.resolve()
    homes = [home]
    if home.parent.name == "snapshots":
        homes.append(home.parent.parent / "blobs")
    return not any(end.is_relative_to(one) for one in homes)


def list_weight_files(source: str, key: str, revision: str | None = None) -> list[Path]:
    """The files of a model's weights; none where there are none, or no way to them.

    Raises:
        InputError: for an index that names anything but safetensors in the same folder.
    """
    whole = find_file(source, WEIGHTS, revision)
    index = None if whole and not Path(source).is_dir() else find_file(source, INDEX, revision)
    names = [] if index is None else read_index(index, key)
    if whole is not None:
        return [whole]
    found = [find_file(source, name, revision) for name in names]
    missing = [name for name, file in zip(names, found, strict=True) if file is None]
    if missing and Path(source).is_dir():
        raise InputError(
            f"{key}: {INDEX} names {shorten(missing)}, which '{source}' lacks; get the model again"
        )
    return [file for file in found if file is not None]


def read_index(index: Path, key: str) -> list[str]:
    """The names of the files that an index of weights lists.

    Raises:
        InputError: for a name that is not that of a safetensors file beside it.
    """
    tree = read_json(index, key)
    weights = tree.get("weight_map") if isinstance(tree, dict) else None
    if not isinstance(weights, dict):
        raise InputError(f"{key}: {INDEX}: expected weight_map, found none in '{index.parent}'")
    names = dict.fromkeys(map(str, weights.values()))
    others = [name for name in names if SHARD.fullmatch(name) is None]
    if others:
        raise InputError(
            f"{key}: {INDEX}: expected safetensors files of the same folder, found "
            f"{shorten([repr(name) for name in others])} in '{index.parent}'; pickles (.bin) can "
            "run code when read, and no other folder is read: get the model again"
        )
    return list(names)


def read_shapes(source: str, key: str, revision: str | None = None) -> Shapes:
    """Name → shape of each weight, from the headers of the files alone.

    Raises:
        InputError: for a file that is not of the safetensors format, whatever its name.
    """
    shapes: Shapes = {}
    for file in list_weight_files(source, key, revision):
        shapes |= read_header(file, source, key)
    return shapes


def read_header(file: Path, source: str, key: str) -> Shapes:
    """Name → shape of each weight in a file.

    Args:
        source: the model that it belongs to.

    Raises:
        InputError: where it is not of the safetensors format.
    """
    try:
        with safe_open(file, framework="np") as tensors:
            names = tensors.keys()
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError(describe_no_safetensors(file, source, key, error)) from None


def describe_no_safetensors(file: Path, source: str, key: str, error: Exception) -> str:
    """What a file of weights is, when it cannot be read."""
    with file.open("rb") as stream:
        begin = stream.read(32)
    for mark, kind in OTHER_FORMATS.items():
        if begin.startswith(mark):
            return (
                f"{key}: expected weights in the safetensors format, found {kind} called "
                f"{file.name} in '{source}'; nothing of it was read: get the model again"
            )
    return (
        f"{key}: expected weights in {WEIGHTS}, found a damaged file in '{source}' "
        f"({first_line(error)}); get the model again"
    )
