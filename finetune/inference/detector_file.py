"""A detector of documents out of scope ↔ a file beside the model's weights, without a pickle.

write_detector(folder, detector)        # out_of_scope.safetensors, and a mark in config.json
read_detector(source)
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from finetune.evaluation.out_of_scope import KINDS, Detector
from finetune.evaluation.thresholds import save_out_of_scope
from finetune.modeling import model_identity
from finetune.modeling.load_errors import first_line
from finetune.modeling.source_checks import find_file
from finetune.runtime.atomic_files import link_folder, replace_folder
from finetune.runtime.errors import InputError

FILE = "out_of_scope.safetensors"
KEY = "out_of_scope"  # of the file's metadata
# The arrays of each kind, with the number of their dimensions.
ARRAYS: Mapping[str, Mapping[str, int]] = {
    "max_probability": {},
    "energy": {},
    "neighbours": {"states": 2},
    "mahalanobis": {"whitener": 2, "means": 2},
}


class Settings(BaseModel):
    """What the file says beside its arrays."""

    model_config = ConfigDict(strict=True, extra="forbid")
    kind: Literal["max_probability", "energy", "neighbours", "mahalanobis"]
    threshold: Annotated[float, Field(allow_inf_nan=False)]
    rate: Annotated[float, Field(gt=0, lt=1)]


def write_detector(folder: Path, detector: Detector) -> None:
    """Put a detector into a model folder, which is replaced as a whole."""
    kind, threshold, rate = detector.kind, detector.threshold, detector.rate
    settings = Settings.model_validate({"kind": kind, "threshold": threshold, "rate": rate})

    def fill(aside: Path) -> None:
        link_folder(folder, aside)
        (aside / FILE).unlink(missing_ok=True)
        save_out_of_scope(aside)
        metadata = {KEY: settings.model_dump_json()}
        save_file(dict(detector.arrays), aside / FILE, metadata=metadata)
        model_identity.update_weights(aside)

    replace_folder(folder, fill)


def read_detector(source: str, revision: str | None, hidden: int | None) -> Detector:
    """The detector of a model folder or Hub id.

    Args:
        hidden: of the states that the model's head reads; None: the engine computes no states.

    Raises:
        InputError: where there is none, it is damaged or of another model, or the engine cannot
            compute what it needs.
    """
    file = find_file(source, FILE, revision, False)
    if file is None:
        raise InputError(
            f"{source}: expected {FILE}, by which the model tells documents out of scope, found no "
            "such file; copy the whole model folder again"
        )
    try:
        with safe_open(file, framework="numpy") as tensors:
            settings = Settings.model_validate_json((tensors.metadata() or {}).get(KEY, "null"))
            arrays: dict[str, NDArray[Any]] = {
                name: tensors.get_tensor(name)
                for name in tensors.keys()  # noqa: SIM118 # no dict
            }
    except (OSError, SafetensorError, ValidationError) as error:
        raise InputError(
            f"{source}/{FILE}: cannot be read ({first_line(error)}); copy the whole model folder "
            "again"
        ) from None
    if hidden is None and KINDS[settings.kind].reads_states:
        raise InputError(
            f"{source}: this model tells documents out of scope by what its head reads "
            f"(score.out_of_scope: {settings.kind}), which torch alone computes; use the engine "
            "torch"
        )
    found = {name: array.ndim for name, array in arrays.items()}
    widths = {size for array in arrays.values() for size in array.shape[-1:]}
    widths |= {size for name in arrays.keys() & {"whitener"} for size in arrays[name].shape}
    if found != ARRAYS[settings.kind] or not widths <= {hidden}:
        expected = ", ".join(ARRAYS[settings.kind]) or "none"
        raise InputError(
            f"{source}/{FILE}: expected arrays of {hidden} columns ({expected}), found "
            f"{', '.join(found) or 'none'}; copy the whole model folder again"
        )
    return Detector(settings.kind, settings.threshold, settings.rate, arrays)


def hash_detector(detector: Detector) -> str:
    """SHA-256 of all that decides what it calls out of scope."""
    digest = hashlib.sha256(json.dumps([detector.kind, detector.threshold]).encode())
    for name in sorted(detector.arrays):
        digest.update(detector.arrays[name].tobytes())
    return digest.hexdigest()


def reads_states(detector: Detector | None) -> bool:
    """Whether a detector needs what the model's head reads."""
    return detector is not None and KINDS[detector.kind].reads_states
