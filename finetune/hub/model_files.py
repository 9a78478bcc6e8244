"""A run folder, or a model folder → the files of its model, and nothing else in it.

What goes to the Hub is an allow list. A file of it that holds a secret is refused by name.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from finetune.hub.secret_scan import find_secrets
from finetune.modeling.file_names import is_model_file
from finetune.modeling.source_checks import check_links, leads_out, list_weight_files, read_header
from finetune.runtime.errors import InputError, shorten

CODE_KEYS = ("auto_map", "custom_pipelines")  # keys under which transformers looks for code

GRAPH = "onnx/model.onnx"  # of the standard layout, which has no other weights

Files = Mapping[str, Path | bytes]  # name → its path, or its bytes


def find_model_folder(run: Path) -> Path:
    """The model folder of a run's folder; a model folder itself.

    Raises:
        InputError: where a run is not finished, or where there is neither.
    """
    if not run.is_dir():
        raise InputError(f"{run}: no such folder; expected a run folder or a model folder")
    if not (run / "recipe.yaml").is_file():
        return run
    if not (run / "results.json").is_file():
        raise InputError(
            f"{run}: this run is not finished: it has no results.json; resume it with "
            f"run.resume={run}, then push"
        )
    if leads_out(run / "model"):
        raise InputError(
            f"{run}: expected the model folder of the run, found a link that leads out of it; push "
            f"the folder itself, {(run / 'model').resolve()}, if it is the one that you mean"
        )
    failures = _missing_numbers(run / "results.json")
    if failures is not None:
        raise InputError(
            f"{run}: this run is not finished: {failures}; complete it without training again with "
            f"run.resume={run}, then push"
        )
    return run / "model"


def _missing_numbers(results: Path) -> str | None:
    """Why `results.json` is a part of itself, without which there is no card; None where whole."""
    try:
        found = json.loads(results.read_text(encoding="utf-8"))
    except ValueError:
        return "its results.json is damaged"
    if not isinstance(found, Mapping) or "incomplete" not in found:
        return None
    return "; ".join(map(str, found.get("failures", ()))) or "its results.json is incomplete"


def collect_files(folder: Path, repo_id: str) -> Files:
    """The files of a model folder that go up, by name. The card's example loads `repo_id`.

    Raises:
        InputError: where that would be no model; for links to files elsewhere; for weights that are
            none, whatever they are called.
    """
    if folder.is_dir():
        check_links(folder, str(folder))
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    files: dict[str, Path | bytes] = {
        file.name: file for file in there if file.is_file() and is_model_file(file.name)
    }
    has_weights = any(name.endswith(".safetensors") for name in files)
    if folder.is_dir() and not has_weights:  # the standard layout
        inner = (file.relative_to(folder).as_posix() for file in sorted(folder.glob("*/**/*")))
        files |= {name: folder / name for name in inner if is_model_file(name)}
        has_weights = GRAPH in files
    if "config.json" not in files or not has_weights:
        raise InputError(
            f"{folder}: not a model folder: expected config.json and model.safetensors, found "
            f"{shorten([file.name for file in there]) or 'nothing'}"
        )
    list_weight_files(str(folder), str(folder))  # also those that an index names
    for name in files:
        if name.endswith(".safetensors"):
            read_header(folder / name, str(folder), str(folder))
    if "README.md" in files:
        files["README.md"] = _with_repo_id(read_content(files["README.md"]), repo_id)
    return files


def list_other_files(folder: Path, files: Files) -> list[str]:
    """The names of what is in a model folder, of which no file is among those that go up."""
    going = {name.partition("/")[0] for name in files}
    return [file.name for file in sorted(folder.iterdir()) if file.name not in going]


def read_content(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()


def size_of(file: Path | bytes) -> int:
    """In bytes."""
    return len(file) if isinstance(file, bytes) else file.stat().st_size


def find_foreign_code(folder: Path) -> list[str]:
    """The code of other repositories that a model folder loads.

    `other/repo--modeling.Class` runs the code of other/repo, as it is there that day, on the
    machine of whoever allows this model's own code to run.

    Returns:
        Each as `config.json: other/repo--modeling.Class`.
    """
    code: dict[str, None] = {}
    for file in sorted(folder.glob("*.json")):
        if not is_model_file(file.name):
            continue
        try:
            value = json.loads(file.read_text("utf-8"))
        except (ValueError, RecursionError):
            continue  # loading it reports the error
        for name in _named_code(value):
            if "--" in name:
                code[f"{file.name}: {name}"] = None
    return list(code)


def _named_code(value: object, names: bool = False) -> Iterator[str]:
    """Every text below a key that names code, wherever that key is in a value of JSON.

    Args:
        names: whether all texts in the value do.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _named_code(inner, names or key in CODE_KEYS)
    elif isinstance(value, list):
        for inner in value:
            yield from _named_code(inner, names)
    elif isinstance(value, str) and names:
        yield value


def refuse_secrets(folder: Path, files: Files, token: str) -> None:
    """Keep secrets, in the model card for instance, from being published.

    Raises:
        InputError: for all files that hold a secret; it names the lines and quotes none of them.
    """
    problems = [
        f"{folder / name}: {place} holds what looks like {kind}; nothing was pushed. Remove it "
        "(and revoke it), then push again"
        for name, file in files.items()
        for place, kind in find_secrets(file, token)
    ]
    if problems:
        raise InputError(problems)


def _with_repo_id(card: bytes, repo_id: str) -> bytes:
    """The card, with its example loading the model from `repo_id`, wherever it loaded it from."""
    example = rb'(pipeline\("text-classification", model=)"[^"]*"'
    return re.sub(example, rb'\1"%b"' % repo_id.encode(), card, count=1)
