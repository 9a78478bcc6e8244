"""What a run has decided so far, in plain values: a part of every checkpoint."""

import dataclasses
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class RunState:
    """The state of a run beside its weights.

    Attributes:
        trained: the parameters that this stage or an earlier one trains.
        best: the best validation scores so far, and their `step`.
        patience_mark: the scores that patience measures improvements from.
        waited: scorings of the last stage since the mark was set.
        sound: the step of the last scoring that was not worse than a constant guess; 0: none.
        rate_scale: what the learning rate is multiplied by, halved at each back-off.
        back_offs: a line of the log for each.
        micro_batch_tokens: computed at once since memory ran out; None: it never did.
    """

    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    trained: list[str] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    patience_mark: dict[str, float] = field(default_factory=dict)
    waited: int = 0
    sound: int = 0
    rate_scale: float = 1.0
    back_offs: list[dict[str, Any]] = field(default_factory=list)
    micro_batch_tokens: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Its plain values."""
        return dataclasses.asdict(self)

    def load(self, values: Mapping[str, Any]) -> None:
        """Take the values that `to_json` gave; whoever holds this state sees them."""
        for name, value in values.items():
            setattr(self, name, value)
