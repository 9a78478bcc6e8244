"""A folder that a user names → the run it belongs to, and what is left to do in that run.

    run = run_of(Path("runs/A/model"))      # runs/A
    describe_unfinished(run)                # after step 40; run.resume=runs/A continues it

A run that was stopped between two of its outputs has its scores, and says so until it is completed.
"""

import json
from pathlib import Path

from finetune.config.loader import OF_A_RUN
from finetune.runtime.folder_lock import is_unlocked
from finetune.training.folder_mark import read_mark

RESULTS = "results.json"


def is_run(folder: Path) -> bool:
    """Whether a run wrote into this folder, however far it came."""
    there = {name for name in OF_A_RUN if (folder / name).exists()}
    return bool(there) and ((folder / "recipe.yaml").is_file() or len(there) > 1)


def run_of(folder: Path) -> Path:
    """The run of the model folder in it; any other folder as it is."""
    around = find_run_around(folder)
    return around if around is not None and folder.absolute().name == "model" else folder


def find_run_around(folder: Path) -> Path | None:
    """The run that a folder lies in, as `runs/A` of `runs/A/checkpoints/step-10`; None elsewhere.

    Where the user named it by a relative path, so is the run.
    """
    if is_run(folder):
        return None
    named = [path for path in folder.parents if path != Path()]
    return next((path for path in [*named, *folder.absolute().parents] if is_run(path)), None)


def describe_progress(folder: Path) -> str:
    """`after step 40`, by the last whole line of metrics.jsonl."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    for line in reversed(lines):
        try:
            return f"after step {json.loads(line)['step']:,}"
        except (ValueError, KeyError, TypeError):
            continue
    return "before its first step"


def describe_unfinished(folder: Path) -> str:
    """How far a run without results came, and how it goes on."""
    if not is_unlocked(folder):
        return f"{describe_progress(folder)}; a process is still training it"
    return f"{describe_progress(folder)}; run.resume={folder} continues it"


def describe_left_over(folder: Path) -> str | None:
    """What is left to do in a run that has its scores; None where nothing is.

    Its mark says it. A run of a version that wrote no mark is finished with its results.
    """
    mark = read_mark(folder)
    if mark is None or mark.finished is not None or not (folder / RESULTS).is_file():
        return None
    if not is_unlocked(folder):
        return "not finished yet: a process is still writing its outputs"
    return f"not finished: it was stopped after its scores; run.resume={folder} completes it"
