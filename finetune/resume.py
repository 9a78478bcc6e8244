"""`run.resume` → the run folder and the checkpoint to go on from, if all else is as it was."""

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from finetune import checkpoint, recipe, run_folder
from finetune.corpus import Corpus, split_hash
from finetune.problems import InputError, some
from finetune.run_folder import Start

# What decides no number.
NO_EFFECT = {
    "train.log_every",
    *(f"run.{key}" for key in ("name", "dir", "overwrite", "resume", "seeds", "trackers")),
    *(f"checkpoint.{key}" for key in recipe.Checkpoint.model_fields),
    *("cache.dir", "cache.keep"),
    *(f"publish.{key}" for key in recipe.Publish.model_fields),
}
# What may change on the way, as it only decides how long the run goes on.
LENGTH = {"train.epochs", "train.max_steps"}
ENDING = {"train.on_divergence", "score.patience", "score.min_improvement"}
REPORTING = {"score.target_accuracy"}
# Compared by what is in them, as folders move.
BY_CONTENT = {"data.source", "model.source"}
# The same mathematics, with floats added in another order.
ORDER_OF_SUMS = {
    *("train.micro_batch_tokens", "train.packing", "train.threads", "model.attention"),
}


def choose(choices: recipe.Run, started: datetime) -> Start:
    """The folder that `run.dir` and `run.resume` mean, and the newest good checkpoint in it.

    Raises:
        InputError: where there is none though one was named, or something else stands there.
    """
    if choices.resume is None:
        return Start(run_folder.choose(choices, started))
    if choices.resume == "auto":
        folder = _unfinished(choices) if choices.dir is None else Path(choices.dir).expanduser()
        if folder is None or not (folder / "recipe.yaml").is_file():
            return Start(run_folder.choose(choices, started))
        points = checkpoint.standing(folder)
    else:
        folder, points = _named(Path(choices.resume).expanduser())
        if choices.dir is not None and Path(choices.dir).expanduser().resolve() != folder.resolve():
            raise InputError(
                f"run.resume: {choices.resume} is of the run in {folder}, and run.dir is "
                f"{choices.dir}; leave run.dir out"
            )
    run_folder.check_free(folder)
    finished = (folder / "results.json").is_file()
    notes = []
    for point in points:
        try:
            checkpoint.read(point)
        except InputError as error:
            notes.append(f"{error}; the one before is used")
            continue
        return Start(folder, point, finished=finished, notes=tuple(notes))
    if choices.resume != "auto":
        if notes:
            raise InputError(note.removesuffix("; the one before is used") for note in notes)
        raise InputError(
            f"run.resume: {folder} has no checkpoint; expected step-… in its {checkpoint.FOLDER}/"
        )
    if finished:
        return Start(folder, finished=True, notes=tuple(notes))
    notes = [note.replace("the one before is used", "none is left") for note in notes]
    return Start(folder, replaces=True, notes=(*notes, f"{folder} starts from the beginning"))


def _unfinished(choices: recipe.Run) -> Path | None:
    """The newest run of the recipe's name that has a checkpoint, no results, and no process."""
    home = Path("runs") / (choices.name or "run")
    folders = home.iterdir() if home.is_dir() else ()
    open_ones = [
        folder
        for folder in folders
        if checkpoint.standing(folder)
        and not (folder / "results.json").exists()
        and run_folder.is_free(folder)
    ]
    return max(
        open_ones, key=lambda folder: (folder / checkpoint.FOLDER).stat().st_mtime, default=None
    )


def _named(path: Path) -> tuple[Path, list[Path]]:
    """The run folder, and the checkpoints in question, of a path that the user named."""
    if not path.is_dir():
        near = (
            checkpoint.standing(path.parent.parent) if checkpoint.NAME.fullmatch(path.name) else []
        )
        have = f"; there are {some([str(p) for p in near])}" if near else ""
        raise InputError(
            f"run.resume: {path}: no such folder; expected auto, a run folder or a checkpoint{have}"
        )
    if checkpoint.NAME.fullmatch(path.name):
        return Path(os.path.normpath(path.absolute())).parents[1], [path]
    if not (path / "recipe.yaml").is_file():
        raise InputError(
            f"run.resume: {path} is neither a run folder nor a checkpoint; expected a folder with "
            "recipe.yaml, or a step-… folder in its checkpoints/"
        )
    return path, checkpoint.standing(path)


def identity(saved: recipe.Recipe, corpus: Corpus, start: str) -> dict[str, Any]:
    """What a checkpoint says of the run that it belongs to.

    Args:
        saved: the recipe as it ran.
        start: the hash of the weights before the first step.
    """
    return {
        "recipe": saved.model_dump(mode="json"),
        "data": {
            "labels": list(corpus.labels),
            "splits": {
                split.name: {"rows": len(split), "hash": split_hash(split)}
                for split in corpus.splits()
            },
        },
        "start": start,
    }


def nothing_left(start: Start, now: Mapping[str, Any], steps: int, patience: int | None) -> bool:
    """Whether a finished run, taken up again, has nothing more to do. Nothing is written here.

    Args:
        now: the identity of the run as it is asked for.
        steps: of the whole run.

    Raises:
        InputError: where the checkpoint is of another recipe, data or model.
    """
    if start.point is None:
        return False
    plain = checkpoint.read_plain(start.point)
    check(plain["identity"], now, start.point)
    waited = patience is not None and plain["standing"]["waited"] >= patience
    return start.finished and (checkpoint.step_of(start.point) >= steps or waited)


def check(then: Mapping[str, Any], now: Mapping[str, Any], point: Path) -> list[str]:
    """Compare two identities: what may have changed, as notes; refuse what may not.

    Raises:
        InputError: that says all that differs.
    """
    notes, problems = [], []
    keys_then, keys_now = _flat(then["recipe"]), _flat(now["recipe"])
    for key in keys_now:
        was, value = keys_then.get(key), keys_now[key]
        if was == value or key in NO_EFFECT | ENDING | REPORTING | BY_CONTENT:
            continue
        said = f"{key} was {was} until here, and is {value} from here on"
        if key in ORDER_OF_SUMS:
            notes.append(f"{said}: the same but for the order in which floats are added")
        elif key in LENGTH:
            notes.append(f"{said}; the learning rate follows the new length")
        else:
            problems.append(f"{key} is {value}, and was {was}")
    if then["data"]["labels"] != now["data"]["labels"]:
        was, value = then["data"]["labels"], now["data"]["labels"]
        problems.append(f"the labels are {some(value)}, and were {some(was)}")
    for name, split in now["data"]["splits"].items():
        old = then["data"]["splits"][name]
        if old != split:
            problems.append(
                f"the {name} documents are not the same ({split['rows']:,} rows, and were "
                f"{old['rows']:,}; {keys_now['data.source']})"
            )
    if then["start"] != now["start"]:
        problems.append(
            f"the weights it began with are not those of {keys_now['model.source']} (revision "
            f"{keys_now['model.revision']}, and was {keys_then['model.revision']})"
        )
    if problems:
        raise InputError(
            f"run.resume: {problem} when {point} was written; set it back, or start a new run "
            "without run.resume"
            for problem in problems
        )
    return notes


def recipe_hash(saved: recipe.Recipe) -> str:
    """SHA-256 of all that decides a run's numbers, but for its sources, which have hashes."""
    keys = _flat(saved.model_dump(mode="json"))
    deciding = {key: keys[key] for key in sorted(keys.keys() - NO_EFFECT - BY_CONTENT)}
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()


def _flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"{section}.{key}": value
        for section, keys in sections.items()
        for key, value in keys.items()
    }
