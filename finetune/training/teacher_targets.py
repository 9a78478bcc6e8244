"""What teachers say of train, and its file in the run's folder, by which a resumed run has it too.

targets = read_targets(folder, key)        # None where there is none of that key
write_targets(targets, folder)             # teacher.safetensors
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from finetune.runtime.atomic_files import move_into_place
from finetune.runtime.errors import explain_write_errors

FILE = "teacher.safetensors"
KEY, TEACHERS, NAME = "key", "teachers", "probabilities"


@dataclass(frozen=True)
class TeacherTargets:
    """What teachers say.

    Attributes:
        probabilities: the mean of theirs, at the recipe's temperature. (rows, classes)
        key: a hash of the texts, the labels, the temperature and the teachers' names.
        teachers: each in words, with a hash of its weights.
    """

    probabilities: NDArray[np.float32]
    key: str
    teachers: tuple[str, ...]


def write_targets(targets: TeacherTargets, folder: Path) -> None:
    """Put them into a run's folder, whole or not at all.

    Raises:
        InputError: where it cannot be written.
    """
    metadata = {KEY: targets.key, TEACHERS: json.dumps(targets.teachers)}
    aside = folder / f".{FILE}.new"
    with explain_write_errors(folder / FILE):
        try:
            save_file({NAME: np.ascontiguousarray(targets.probabilities)}, aside, metadata=metadata)
            move_into_place(aside, folder / FILE)
        finally:
            aside.unlink(missing_ok=True)


def read_targets(folder: Path, key: str) -> TeacherTargets | None:
    """Those of a run's folder; None where there are none, or others."""
    try:
        with safe_open(folder / FILE, framework="numpy") as tensors:
            found = tensors.metadata() or {}
            if found.get(KEY) != key:
                return None
            teachers = tuple(map(str, json.loads(found[TEACHERS])))
            return TeacherTargets(tensors.get_tensor(NAME), key, teachers)
    except (OSError, SafetensorError, KeyError, ValueError):
        return None  # they are computed anew
