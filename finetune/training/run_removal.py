"""What `run.overwrite` removes: the files that a run wrote, from a folder that is a run's.

    refuse_unless_removable(folder)    # the folder is a run's, and holds nothing else
    remove_run(folder)                 # its files, one by one

A file is removed by its name and place only where a run writes one there; the texts of a model
folder, which people edit, only as the run wrote them. Anything else is somebody else's: it is
named, and the run does not start.
"""

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from finetune.config import loader
from finetune.modeling.file_names import is_model_file
from finetune.runtime.errors import InputError, explain_write_errors, shorten
from finetune.training import checkpoint, folder_mark, teacher_targets, trackers

# What a run writes into its folder.
OWN_FILES = (
    folder_mark.FILE,
    "recipe.yaml",
    "preflight.json",
    "metrics.jsonl",
    "lr_range.json",
    teacher_targets.FILE,
    "results.json",
    "report.html",
    "model",
    "predictions",
    "trackers",
    checkpoint.FOLDER,
)
PREDICTIONS = "test.jsonl"
TEXTS = (".md", ".py")  # of a model folder: its card and its code
NAMED = 10  # files of others that a message lists
# What a run that was killed may leave: half of a file or folder, written aside.
ENDS = (".new", ".old")
DESKTOP = (".DS_Store", "Thumbs.db", "desktop.ini")  # what file managers leave in any folder
LEFTOVERS = tuple(f".{name}{end}" for name in OWN_FILES for end in ENDS)


def refuse_unless_removable(
    folder: Path, key: str = "run.overwrite", another: str = "another run.dir"
) -> None:
    """Refuse to replace what is no run, or holds more than a run.

    Args:
        key: the setting that asks for it, for the message.
        another: how to choose another folder.

    Raises:
        InputError: with what is there, and what to do.
    """
    problem = _describe_danger(folder)
    if problem is None and not _is_run(folder):
        there = shorten(sorted(path.name for path in folder.iterdir()), NAMED)
        problem = f"{folder} is not a run's folder: it has no {folder_mark.FILE} ({there})"
    if problem is not None:
        raise InputError(f"{key}: {problem}; choose {another}")
    others = list_foreign_files(folder)
    if others:
        many = len(others) > 1
        edited = ", or that was edited since" if _has_edited(folder, others) else ""
        raise InputError(
            f"{key}: {folder} holds {len(others):,} file{'s' * many} that no run wrote{edited} "
            f"({shorten(others, NAMED)}); move {'them' if many else 'it'} elsewhere, or choose "
            f"{another}"
        )


def list_foreign_files(folder: Path) -> list[str]:
    """What a run's folder holds that no run wrote, as paths in it. A link is never a run's."""
    own = {*_own_files(folder)}
    found = []
    for path in _walk(folder):
        inner = path.relative_to(folder).as_posix()
        if path.is_symlink() or (
            not path.is_dir() and path not in own and path.name not in DESKTOP
        ):
            found.append(inner)
        elif path.is_dir() and not any(path.iterdir()) and not _is_own_name(path, folder):
            found.append(f"{inner}/")  # empty, but somebody made it
    return sorted(found)


def remove_run(folder: Path, spare: Collection[str] = ()) -> None:
    """Remove the files that a run wrote, and the folders that are empty then.

    The mark and the recipe stay until they are replaced, so that a kill on the way leaves a folder
    that is known as a run's, and no recipe is ever lost.
    """
    folder_mark.mark_unfinished(folder)
    kept = {folder / name for name in (folder_mark.FILE, "recipe.yaml", *spare)}
    own = [path for path in _own_files(folder) if path not in kept]
    with explain_write_errors(folder):
        # results.json first: what is left may never look like a run with all its outputs. Sums
        # last: by them, what is left of a checkpoint is known as the run's.
        order = {"results.json": 0, checkpoint.SUMS: 2}
        for path in sorted(own, key=lambda path: order.get(path.name, 1)):
            path.unlink(missing_ok=True)
        inner = [path for path in _walk(folder) if path.is_dir() and not path.is_symlink()]
        for path in sorted(inner, key=lambda path: len(path.parts), reverse=True):
            if _is_own_name(path, folder) and not any(path.iterdir()):
                path.rmdir()


def _describe_danger(folder: Path) -> str | None:
    """Why a folder is never replaced, whatever is in it."""
    if folder.is_symlink():
        return f"{folder} is a symbolic link to {folder.resolve()}, and no run's own folder"
    place = folder.resolve()
    for name, path in (("the working directory", Path.cwd()), ("your home", Path.home())):
        if place == path.resolve():
            return f"{folder} is {name}"
        if place in path.resolve().parents:
            return f"{folder} holds {name}"
    if any((folder / name).exists() for name in (".git", ".hg", ".svn")):
        return f"{folder} is a checkout of a repository"
    return None


def _is_run(folder: Path) -> bool:
    """Whether a run wrote a folder; before runs had a mark, they wrote these two files first."""
    mark = folder_mark.read_mark(folder)
    if mark is not None:
        return mark.kind == "run"
    if not (folder / "preflight.json").is_file():
        return False
    try:
        loader.load_saved(folder)
    except InputError:
        return False
    return True


def _own_files(folder: Path) -> Iterator[Path]:
    """The files in a folder that a run writes there, by their places; no links."""
    mark = folder_mark.read_mark(folder)
    texts = None if mark is None else mark.texts
    for path in _walk(folder):
        if (
            not path.is_symlink()
            and not path.is_dir()
            and _is_own_place(path, folder)
            and (path.suffix not in TEXTS or _is_as_written(path, folder, texts))
        ):
            yield path


def _has_edited(folder: Path, others: Collection[str]) -> bool:
    """Whether one of the files that refuse it has the name of one that a run writes."""
    return any(
        not (path := folder / name).is_symlink()
        and not path.is_dir()
        and _is_own_place(path, folder)
        for name in others
    )


def _is_as_written(file: Path, folder: Path, texts: Mapping[str, Collection[str]] | None) -> bool:
    """Whether a text of a model folder is as a run wrote it.

    What a kill left half written or half removed is known by its place, as are the texts of a run
    that recorded none (None).
    """
    inner = file.relative_to(folder)
    if texts is None or any(_is_leftover(part) for part in inner.parts):
        return True
    if inner.parts[0] == checkpoint.FOLDER:
        return checkpoint.is_as_written(folder / Path(*inner.parts[:2]), file)
    return hashlib.sha256(file.read_bytes()).hexdigest() in texts.get(inner.as_posix(), ())


def _is_own_place(file: Path, folder: Path) -> bool:
    """Whether a run writes a file of this name in this place."""
    top, *inner = file.relative_to(folder).parts
    top = _without_leftover(top)
    if not inner:
        return top in OWN_FILES
    match top, *inner:
        case ["trackers", *places]:
            return trackers.FILES.fullmatch("/".join(places)) is not None
        case ["predictions", name]:
            return _without_leftover(name) == PREDICTIONS
        case ["model", name]:
            return is_model_file(_without_leftover(name))
        case [checkpoint.FOLDER, held, name] if checkpoint.HELD.fullmatch(held):
            return is_model_file(name)
        case [checkpoint.FOLDER, point, *rest] if checkpoint.NAME.fullmatch(
            _without_leftover(point)
        ):
            if len(rest) == 1:
                return rest[0] in (checkpoint.TENSORS, checkpoint.PLAIN, checkpoint.SUMS)
            return len(rest) == 2 and rest[0] == checkpoint.BEST and is_model_file(rest[1])
    return False


def _is_own_name(path: Path, folder: Path) -> bool:
    """Whether a run makes a folder of this name in this place."""
    top, *inner = path.relative_to(folder).parts
    top = _without_leftover(top)
    if not inner:
        return top in ("model", "predictions", "trackers", checkpoint.FOLDER)
    if top == "trackers":  # of a tracker's run, and of its settings
        return len(inner) <= 2
    if top == checkpoint.FOLDER and checkpoint.HELD.fullmatch(inner[0]):
        return len(inner) == 1
    if top != checkpoint.FOLDER or not checkpoint.NAME.fullmatch(_without_leftover(inner[0])):
        return False
    return inner[1:] in ([], [checkpoint.BEST])


def _without_leftover(name: str) -> str:
    """The name of what was written aside or moved aside under this one: `.model.new` → `model`."""
    for end in ENDS:
        if name.startswith(".") and name.endswith(end):
            return name[1 : -len(end)]
    return name


def _is_leftover(name: str) -> bool:
    """Whether a file or folder was on its way into its place, or out of it."""
    return _without_leftover(name) != name or checkpoint.HELD.fullmatch(name) is not None


def _walk(folder: Path) -> Iterator[Path]:
    """Everything in a folder; links to folders are not followed."""
    for root, folders, files in os.walk(folder):
        yield from (Path(root) / name for name in (*folders, *files))
