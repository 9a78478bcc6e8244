"""A run's checkpoints and its best model ↔ disk. A folder is whole, or it is not there.

A checkpoint is a folder, `checkpoints/step-00000094`:

    state.safetensors   trainable weights, the optimizer's state, random states (`state.py`)
    state.json          all else that the run must know, in plain values
    best/               the best model up to there; its weights are hard links to those of `model/`
    SHA256SUMS          of all of these; `sha256sum -c SHA256SUMS` checks it by hand
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Container
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune import model as models
from finetune.problems import InputError, some, sync, writing

FOLDER = "checkpoints"
TENSORS, PLAIN, BEST, SUMS = "state.safetensors", "state.json", "best", "SHA256SUMS"
NAME = re.compile(r"step-(\d{8,})")

Tensors = dict[str, torch.Tensor]
Plain = dict[str, Any]


def write(run: Path, step: int, tensors: Tensors, plain: Plain) -> Path:
    """Write the checkpoint of a step.

    Raises:
        InputError: where it cannot be written whole; the ones before stay.
    """
    folder = run / FOLDER / f"step-{step:08d}"

    def fill(aside: Path) -> None:
        save_file(tensors, aside / TENSORS)
        (aside / PLAIN).write_text(json.dumps(plain), encoding="utf-8")
        if (run / "model").is_dir():
            _link(run / "model", aside / BEST)
        sums = {str(file.relative_to(aside)): _sha256(file) for file in _files(aside)}
        (aside / SUMS).write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))

    with writing(folder):
        folder.parent.mkdir(exist_ok=True)
    _put(folder, fill, lambda aside: _verify(aside, tensors, plain))
    return folder


def drop_old(run: Path, keep: int, spare: int | None) -> None:
    """Remove all checkpoints but the newest `keep`, and the newest of at most `spare` steps."""
    there = standing(run)
    spared = next((point for point in there if spare is not None and step_of(point) <= spare), None)
    for old in there[keep:]:
        if old != spared:
            with suppress(InputError):  # it stays; the run has what it needs
                _remove(old)


def read(folder: Path) -> tuple[Tensors, Plain]:
    """What `write` wrote.

    Raises:
        InputError: where a file is missing, or is not as it was written. Files that it does not
            list, as desktops leave them behind, do not matter.
    """
    wrong = []
    for name, recorded in sorted(_recorded_sums(folder).items()):
        try:
            if _sha256(folder / name) != recorded:
                wrong.append(f"{name} is not as it was written")
        except FileNotFoundError:
            wrong.append(f"{name} is missing")
        except OSError as error:
            wrong.append(f"{name} cannot be read ({error.strerror})")
    if wrong:
        raise InputError(f"checkpoint {folder} is damaged: {some(wrong)}")
    return load_file(folder / TENSORS), read_plain(folder)


def read_plain(folder: Path) -> Plain:
    """The plain values alone, of a checkpoint that is known to be whole."""
    plain: Plain = json.loads((folder / PLAIN).read_text(encoding="utf-8"))
    return plain


def standing(run: Path) -> list[Path]:
    """The checkpoints of a run folder, the newest first."""
    folder = run / FOLDER
    there = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in there if NAME.fullmatch(path.name)), key=step_of, reverse=True)


def step_of(folder: Path) -> int:
    """The steps done when a checkpoint was written."""
    name = NAME.fullmatch(folder.name)
    if name is None:
        raise InputError(f"{folder}: expected a checkpoint, whose name is step- and eight digits")
    return int(name[1])


def drop_after(run: Path, step: int) -> None:
    """Remove the checkpoints of later steps, which belong to a course that is given up."""
    for folder in standing(run):
        if step_of(folder) > step:
            _remove(folder)


def sweep(run: Path) -> None:
    """Remove what a kill left half written or half removed among the checkpoints."""
    for leftover in (run / FOLDER).glob(".step-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Take a checkpoint away whole: a kill on the way leaves none that looks damaged."""
    before = folder.with_name(f".{folder.name}.old")
    with writing(folder):
        shutil.rmtree(before, ignore_errors=True)
        folder.rename(before)
    shutil.rmtree(before, ignore_errors=True)


def bring_back_best(checkpoint: Path | None, run: Path) -> None:
    """Put the best model as of a checkpoint in place of the run's; with None, remove the run's."""
    with writing(run / "model"):
        if checkpoint is None or not (checkpoint / BEST).is_dir():
            shutil.rmtree(run / "model", ignore_errors=True)
        else:
            best, own = checkpoint / BEST, _recorded_sums(checkpoint)
            _put(run / "model", lambda aside: _link(best, aside, {checkpoint / n for n in own}))


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, weights: Tensors
) -> None:
    """Write a model folder aside, sync it, then put it in the place of the one before.

    Args:
        weights: the model's, whole, which in the model itself may be sharded.

    Raises:
        InputError: where it cannot be written; the one before stays.
    """
    _put(folder, lambda aside: models.save(model, tokenizer, aside, weights))


def rewrite(folder: Path, weights: Tensors) -> bool:
    """Put other values into some weights of a model folder; False where it has none of that name.

    Links to the folder's files keep what they hold.

    Raises:
        InputError: where it cannot be written; the folder stays as it was.
    """
    of_file = {file.name: _names(file) for file in sorted(folder.glob("*.safetensors"))}
    if not set().union(*of_file.values()) >= weights.keys():
        return False

    def fill(aside: Path) -> None:
        _link(folder, aside)
        for file, names in of_file.items():
            if names & weights.keys():
                now = load_file(folder / file)
                now |= {name: weights[name].contiguous() for name in names & weights.keys()}
                (aside / file).unlink()
                save_file(now, aside / file, metadata={"format": "pt"})

    _put(folder, fill)
    return True


def _names(file: Path) -> set[str]:
    with safe_open(file, framework="pt") as tensors:
        return set(tensors.keys())


def _put(
    folder: Path, fill: Callable[[Path], None], check: Callable[[Path], None] | None = None
) -> None:
    """Fill a folder aside, sync it, check it, and put it in the place of the one before."""
    aside, before = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (aside, before):
        shutil.rmtree(leftover, ignore_errors=True)
    with writing(folder):
        try:
            aside.mkdir()
            fill(aside)
            for path in (*_files(aside), *(p for p in aside.rglob("*") if p.is_dir()), aside):
                sync(path)
            if check is not None:
                check(aside)
            if folder.exists():
                folder.rename(before)
            try:
                aside.rename(folder)
            except OSError:
                before.rename(folder)
                raise
            sync(folder.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(before, ignore_errors=True)


def _link(source: Path, target: Path, only: Container[Path] | None = None) -> None:
    """A copy of a folder whose weights take no room where the file system has hard links.

    The run replaces weights and never changes them, so a link keeps what it was made of. The small
    files are copied: those a person may well edit in place.

    Args:
        only: the files to take; None: all.
    """
    for file in _files(source):
        if only is None or file in only:
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            _link_file(file, copy)


def _link_file(source: Path, target: Path) -> None:
    if source.suffix == ".safetensors":
        with suppress(OSError):
            return os.link(source, target)
    shutil.copy2(source, target)


def _verify(folder: Path, tensors: Tensors, plain: Plain) -> None:
    """Read back what was written.

    Raises:
        InputError: where it is something else.
    """
    back = load_file(folder / TENSORS)
    same = back.keys() == tensors.keys() and all(
        torch.equal(_bytes(back[name]), _bytes(tensors[name])) for name in back
    )
    if not same or json.loads((folder / PLAIN).read_text(encoding="utf-8")) != plain:
        raise InputError(f"{folder}: the disk gave back something else than was written")


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _recorded_sums(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        pairs = [line.split("  ", 1) for line in lines]
        sums = {name: sha for sha, name in pairs}
    except (OSError, ValueError):
        raise InputError(f"checkpoint {folder} is damaged: {SUMS} cannot be read") from None
    if not sums.keys() >= {TENSORS, PLAIN}:
        raise InputError(f"checkpoint {folder} is damaged: {SUMS} is not as it was written")
    return sums


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
