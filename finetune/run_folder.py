"""A run's folder: which one, whose it is, what a run writes there, and how."""

import itertools
import json
import math
import os
import platform
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from transformers import PreTrainedModel

from finetune import checkpoint, optim, recipe, recipe_file, sources
from finetune.hardware import Hardware
from finetune.problems import INSTEAD, InputError, sync, writing

LIBRARIES = ("torch", "numpy", "transformers", "accelerate", "datasets", "evaluate", "tokenizers")

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# What a run writes: `run.overwrite` removes these and nothing else.
OWN_FILES = (
    "recipe.yaml",
    "metrics.jsonl",
    "lr_range.json",
    "results.json",
    "report.html",
    "model",
    "predictions",
    "trackers",
    checkpoint.FOLDER,
)
# What a run that was killed may leave of them: half of one, written aside.
LEFTOVERS = tuple(f".{name}.{end}" for name in OWN_FILES for end in ("new", "old"))


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        folder: the run's.
        point: the checkpoint to go on from; None to start at step 0.
        replaces: whether the folder holds a run that was stopped with nothing to go on from.
        finished: whether the folder holds results.
        notes: what a person should know of the choice.
    """

    folder: Path
    point: Path | None = None
    replaces: bool = False
    finished: bool = False
    notes: tuple[str, ...] = ()


def choose(choices: recipe.Run, started: datetime) -> Path:
    """Where the run will write: `run.dir`, or a new folder named by the time.

    Raises:
        InputError: where something stands there that the run may not replace.
    """
    if choices.dir is None:
        return Path("runs") / (choices.name or "run") / started.strftime("%Y-%m-%d_%H-%M-%S")
    try:
        folder = Path(choices.dir).expanduser()
    except RuntimeError:
        raise InputError(f"run.dir: {choices.dir}: no such user") from None
    standing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not standing.is_dir():
        found = "a file" if standing.is_file() else "no folder"
        raise InputError(
            f"run.dir: {standing} is {found}; expected a folder, or a name that is free"
        )
    names = {child.name for child in folder.iterdir()} if folder == standing else set()
    there = sorted(names - set(LEFTOVERS))
    if there and not choices.overwrite:
        raise InputError(
            f"run.dir: {folder} is not empty ({', '.join(there[:5])}{', …' * (len(there) > 5)}); "
            "choose another folder, or set run.overwrite=true to replace the run in it"
        )
    return folder


class Hold:
    """Keeps a run's folder from other processes, for as long as this lives.

    It locks the folder itself, which nothing replaces, and writes nothing. The system takes the
    lock away with the process, however it ends. File systems without locks, as some on networks,
    keep nobody out.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._handle: int | None = None

    @property
    def taken(self) -> bool:
        """Whether a folder is held, or this system holds none."""
        return self._folder is not None or fcntl is None

    def take(self, folder: Path) -> None:
        """Hold a folder that is there.

        Raises:
            InputError: where a living process holds it.
        """
        if folder == self._folder or fcntl is None:
            return
        with writing(folder):
            handle = os.open(folder, os.O_RDONLY)
        self._folder, self._handle = folder, handle
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.let_go()
            raise InputError(
                f"run.dir: another process is at work in {folder}; wait for it, or choose another"
            ) from None
        except OSError:
            pass  # a file system without locks

    def let_go(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
        self._folder = self._handle = None

    def __del__(self) -> None:
        self.let_go()


def is_free(folder: Path) -> bool:
    """Whether no living process holds the folder."""
    try:
        Hold().take(folder)
    except InputError:
        return False
    return True


def claim(start: Start, choices: recipe.Run, saved: recipe.Recipe, hold: Hold) -> Path:
    """Create the run's folder, hold it, and save the recipe in it. Returns the folder.

    With `run.overwrite`, what an earlier run wrote there is removed; without it, nothing ever is:
    of two runs that chose one name at the same time, the later gets a name of its own.

    Raises:
        InputError: where it cannot be written, or is another process's, or where the run reads
            what would be removed.
    """
    folder, new = start.folder, start.point is None and not start.replaces
    with writing(folder):
        if new and choices.dir is None:
            copy = 1
            while not _made(folder):
                copy += 1
                folder = start.folder.with_name(f"{start.folder.name}-{copy}")
        folder.mkdir(parents=True, exist_ok=True)
        hold.take(folder)
        if new and choices.dir is not None:
            choose(choices, datetime.now())  # somebody may have come first
        if start.point is None:
            # The rates of a run that was stopped early stay as it found them; so do its tests.
            _remove_earlier_run(folder, saved, spare={"lr_range.json"} if start.replaces else ())
        checkpoint.sweep(folder)
    write_whole(folder / "recipe.yaml", recipe_file.to_yaml(saved))
    return folder


def reopen(folder: Path) -> None:
    """Remove what holds for a finished run only, from the folder of one that goes on."""
    with writing(folder):
        for name in ("results.json", "report.html"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "predictions", ignore_errors=True)


def _made(folder: Path) -> bool:
    """Create a folder that is not there yet; False where it is."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def _remove_earlier_run(folder: Path, saved: recipe.Recipe, spare: Collection[str] = ()) -> None:
    own = [folder / name for name in (*OWN_FILES, *LEFTOVERS) if name not in spare]
    for key, source in (("data", saved.data.source), ("model", saved.model.source)):
        read = Path(source).resolve()
        for old in own:
            if old.exists() and old.resolve() in (read, *read.parents):
                raise InputError(
                    f"run.overwrite: {old} would be removed, and {key}.source reads it; choose "
                    "another run.dir"
                )
    for old in own:
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)


def as_ran(
    choices: recipe.Recipe, plan: Hardware, max_length: int, states: Any, model: PreTrainedModel
) -> recipe.Recipe:
    """The recipe with what this machine, the encoder and the Hub decided, to be run again.

    Local sources stand as whole paths, so that it runs from anywhere. It names no run folder: run
    again, it gets a new one.
    """

    def whole(source: str) -> str:
        path = None if source.startswith("package:") else sources.local_path(source)
        return source if path is None else str(path.absolute())

    encoder: Any = model.base_model.config
    return choices.model_copy(
        update={
            "data": choices.data.model_copy(
                update={"source": whole(choices.data.source), "max_length": max_length}
            ),
            "model": choices.model.model_copy(
                update={
                    "source": whole(choices.model.source),
                    "attention": encoder._attn_implementation or "eager",
                    "revision": getattr(encoder, "_commit_hash", None) or choices.model.revision,
                }
            ),
            "cache": choices.cache.model_copy(update={"prefix": states}),
            "optim": choices.optim.model_copy(
                update={"head_scale": optim.head_scale(model, choices.optim)}
            ),
            "train": choices.train.model_copy(
                update={
                    "precision": plan.precision,
                    "micro_batch_tokens": plan.micro_batch_tokens,
                    "packing": "auto" if plan.packed else "off",
                    "threads": plan.threads,
                }
            ),
            "run": choices.run.model_copy(update={"dir": None, "overwrite": False, "resume": None}),
        }
    )


def append(file: Path, line: Mapping[str, Any]) -> None:
    """Add a line to a .jsonl file."""
    with writing(file), file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(plain(line), allow_nan=False, ensure_ascii=False) + "\n")


def synced_size(file: Path) -> int:
    """Have the disk hold a file, and say how many bytes it has; 0 where it is not there."""
    if not file.is_file():
        return 0
    with writing(file), file.open("ab") as out:
        os.fsync(out.fileno())
        return out.tell()


def cut(file: Path, size: int) -> bool:
    """Cut a file back to its first bytes, on line ends; False where it has not so many."""
    if not file.is_file():
        return size == 0
    with writing(file), file.open("r+b") as out:
        now = file.stat().st_size
        out.truncate(min(size, now))
    return now >= size


def write_json(
    file: Path, value: Mapping[str, Any] | Sequence[Any], instead: str = INSTEAD
) -> None:
    """Write an object, or a list, so that a person reads it too. `instead`: as for `write_whole`.

    Sequences that make their items when asked (places of rows) are written as lists.
    """
    written = json.JSONEncoder(indent=2, allow_nan=False, ensure_ascii=False, default=list)
    write_whole(file, itertools.chain(written.iterencode(plain(value)), "\n"), instead)


def plain(value: Any) -> Any:
    """Numbers that are not finite as null: JSON has no other word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def write_whole(file: Path, text: str | Iterable[str], instead: str = INSTEAD) -> None:
    """Write a text, or its lines, aside and put it in place, so that nobody ever sees half of it.

    Args:
        instead: how a person chooses another place, for the message.

    Raises:
        InputError: where it cannot be written; what stood there before stays.
    """
    aside = file.with_name(f".{file.name}.new")
    with writing(file, instead):
        try:
            file.parent.mkdir(exist_ok=True)
            with aside.open("w", encoding="utf-8") as out:
                out.writelines([text] if isinstance(text, str) else text)
            sync(aside)
            aside.replace(file)
            sync(file.parent)
        finally:
            aside.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Of Python and the libraries that decide a run's numbers."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
