"""A run's checkpoints and its best model ↔ disk. A folder is whole, or it is not there.

A checkpoint is a folder, `checkpoints/step-00000094`:

    state.safetensors   trainable weights, the optimizer's state, random states (`train_state.py`)
    state.json          all else that the run must know, in plain values
    best/               the best model up to there; its weights are hard links to those of `model/`
    SHA256SUMS          of all of these; `sha256sum -c SHA256SUMS` checks it by hand
"""

import hashlib
import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from finetune.modeling.saved_model import Tensors
from finetune.runtime.atomic_files import (
    link_folder,
    list_files,
    move_into_place,
    replace_folder,
)
from finetune.runtime.errors import InputError, explain_write_errors, shorten
from finetune.training.checkpoint_model import check_plain, parse_json

FOLDER = "checkpoints"
TENSORS, PLAIN, BEST, SUMS = "state.safetensors", "state.json", "best", "SHA256SUMS"
NAME = re.compile(r"step-(\d{8,})")
HELD = re.compile(r"\.step-\d{8,}\.best")  # the best model, until its checkpoint is written

Plain = dict[str, Any]

FORMAT = 2  # of what `write_checkpoint` writes; raised when a key changes its meaning


def hold_best(run: Path, step: int) -> Path | None:
    """Keep the best model as it is now for the checkpoint of a step, which may be written later.

    Returns:
        The folder that holds it, aside; None where there is no model yet.

    Raises:
        InputError: where it cannot be made.
    """
    if not (run / "model").is_dir():
        return None
    held = run / FOLDER / f".step-{step:08d}.best"
    with explain_write_errors(run / FOLDER / f"step-{step:08d}"):
        shutil.rmtree(held, ignore_errors=True)
        try:
            link_folder(run / "model", held)
        except BaseException:
            shutil.rmtree(held, ignore_errors=True)
            raise
    return held


def write_checkpoint(
    run: Path, step: int, tensors: Tensors, plain: Plain, best: Path | None = None
) -> Path:
    """Write the checkpoint of a step.

    Args:
        best: the best model, as `hold_best` gave it; it is moved into the checkpoint.

    Raises:
        InputError: where it cannot be written whole; the ones before stay.
    """
    folder = run / FOLDER / f"step-{step:08d}"

    def fill(aside: Path) -> None:
        save_file(tensors, aside / TENSORS)
        text = json.dumps({"format": FORMAT, "tensors": sorted(tensors)} | plain)
        (aside / PLAIN).write_text(text, encoding="utf-8", newline="\n")
        if best is not None:
            move_into_place(best, aside / BEST)
        sums = {file.relative_to(aside).as_posix(): _sha256(file) for file in list_files(aside)}
        lines = [f"{sums[name]}  {name}\n" for name in sorted(sums)]
        (aside / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")

    try:
        with explain_write_errors(folder):
            folder.parent.mkdir(exist_ok=True)
        replace_folder(folder, fill)
    finally:
        if best is not None:
            shutil.rmtree(best, ignore_errors=True)
    return folder


def drop_old(run: Path, keep: int, spare: int | None) -> None:
    """Remove all checkpoints but the newest `keep`, and the newest of at most `spare` steps."""
    there = list_checkpoints(run)
    spared = next((point for point in there if spare is not None and step_of(point) <= spare), None)
    for old in there[keep:]:
        if old != spared:
            with suppress(InputError):  # it stays; the run has what it needs
                _remove(old)


def verify_checkpoint(folder: Path) -> Plain:
    """The plain values of a checkpoint, all of whose files have their recorded checksums.

    Raises:
        InputError: where a file is missing, or is not as it was written; where another version of
            this program wrote it; where a plain value is missing or has another type. Files that
            it does not list, as desktops leave them behind, do not matter.
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
        raise InputError(f"checkpoint {folder} is damaged: {shorten(wrong)}")
    plain = read_plain(folder)
    if plain.get("format") != FORMAT:
        raise InputError(
            f"checkpoint {folder}: expected format {FORMAT}, found {plain.get('format')}: another "
            "version of this program wrote it; go on with that version, or start a new run"
        )
    check_plain(plain, f"checkpoint {folder}: {PLAIN}")
    return plain


class CheckpointReader:
    """Verifies a checkpoint once, though resuming a run asks for it several times."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._plain: Plain = {}

    def read(self, folder: Path) -> Plain:
        """The checkpoint's plain values, its files verified now or before.

        Raises:
            InputError: where the checkpoint is damaged.
        """
        if folder != self._folder:
            self._plain, self._folder = verify_checkpoint(folder), folder
        return self._plain

    def read_tensors(self, folder: Path) -> Tensors:
        """Its tensors, which are not kept here.

        Raises:
            InputError: where the checkpoint is damaged.
        """
        self.read(folder)
        return load_file(folder / TENSORS)

    def forget(self) -> None:
        """Verify again when asked again."""
        self._folder = None


def read_plain(folder: Path) -> Plain:
    """The plain values alone, of a checkpoint that is known to be whole."""
    text = (folder / PLAIN).read_text(encoding="utf-8", errors="replace")
    return parse_json(text, f"checkpoint {folder}: {PLAIN}")


def list_checkpoints(run: Path) -> list[Path]:
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
    """Remove the checkpoints of later steps: the run resumes from `step`."""
    for folder in list_checkpoints(run):
        if step_of(folder) > step:
            _remove(folder)


def remove_leftovers(run: Path) -> None:
    """Remove what a kill left half written or half removed among the checkpoints."""
    for leftover in (run / FOLDER).glob(".step-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Take a checkpoint away whole: a kill on the way leaves none that looks damaged."""
    before = folder.with_name(f".{folder.name}.old")
    with explain_write_errors(folder):
        shutil.rmtree(before, ignore_errors=True)
        move_into_place(folder, before)
    shutil.rmtree(before, ignore_errors=True)


def restore_best(checkpoint: Path | None, run: Path) -> None:
    """Put the best model as of a checkpoint in place of the run's; with None, remove the run's."""
    with explain_write_errors(run / "model"):
        if checkpoint is None or not (checkpoint / BEST).is_dir():
            shutil.rmtree(run / "model", ignore_errors=True)
        else:
            best, own = checkpoint / BEST, _recorded_sums(checkpoint)
            replace_folder(
                run / "model", lambda aside: link_folder(best, aside, {checkpoint / n for n in own})
            )


def is_as_written(folder: Path, file: Path) -> bool:
    """Whether a file in a checkpoint has the checksum that the checkpoint recorded."""
    try:
        recorded = _recorded_sums(folder).get(file.relative_to(folder).as_posix())
        return recorded is not None and recorded == _sha256(file)
    except (InputError, OSError):
        return False


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


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
