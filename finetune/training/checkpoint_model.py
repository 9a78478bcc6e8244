"""The plain values of a checkpoint (`state.json`): their types, and what is wrong with some.

    plain = parse_plain(text, "checkpoint runs/…/step-00000094: state.json")

A checkpoint decides the steps to come, so a value of another type is refused where it is read, and
not in the middle of a step.
"""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune.runtime.errors import InputError, shorten

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class LogCounts(_Section):
    """What `TrainLog.state` gives."""

    steps: Count
    clipped: Count
    seconds: Seconds
    rows: Count
    tokens: Count
    seconds_before: Seconds
    rows_before: Count
    tokens_before: Count


class RandomStates(_Section):
    """The states of Python's and NumPy's generators in one process."""

    python: tuple[int, list[Count], float | None]
    numpy: tuple[str, list[Annotated[int, Field(ge=0, lt=2**32)]], Count, Count, float]


class State(_Section):
    """What `RunState.to_json` gives."""

    run_id: str
    trained: list[str]
    best: dict[str, float]
    patience_mark: dict[str, float]
    waited: Count
    sound: Count
    rate_scale: Annotated[float, Field(gt=0, le=1)]
    back_offs: list[dict[str, Any]]
    micro_batch_tokens: Annotated[int, Field(ge=1)] | None = None  # older releases wrote none


class SplitIdentity(_Section):
    rows: Count
    hash: str


class DataIdentity(_Section):
    labels: list[str]
    splits: dict[str, SplitIdentity]


class Identity(_Section):
    """What `run_identity.run_identity` gives."""

    recipe: dict[str, dict[str, Any]]
    derived: list[str]
    data: DataIdentity
    tokens: str
    encoder: dict[str, Any]
    start: str
    ends: list[Count]


class PlainValues(_Section):
    """All of `state.json`.

    Attributes:
        tensors: the names of all tensors beside it; None: an older release wrote none.
    """

    format: Count
    identity: Identity
    state: State
    metrics_bytes: Count
    num_processes: Annotated[int, Field(ge=1)]
    sharded: bool
    versions: dict[str, str | None]
    log: LogCounts
    processes: Annotated[list[RandomStates], Field(min_length=1)]
    scaler: dict[str, Any] | None
    tensors: list[str] | None = None


def parse_json(text: str, where: str) -> dict[str, Any]:
    """The object of JSON in a text.

    Raises:
        InputError: where it is none.
    """
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid JSON ({error})") from None
    if not isinstance(plain, dict):
        raise InputError(f"{where}: expected a JSON object")
    return plain


def check_plain(plain: dict[str, Any], where: str) -> None:
    """
    Raises:
        InputError: with the values that are missing, unknown or of another type.
    """
    try:
        # In the mode of JSON, a list is taken for a tuple.
        PlainValues.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg'][:1].lower()}{one['msg'][1:]}"
            for one in error.errors(include_url=False)
        ]
        raise InputError(
            f"{where}: {shorten(wrong)}; go on from an earlier checkpoint, or start a new run"
        ) from None
