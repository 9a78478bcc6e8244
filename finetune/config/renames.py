"""Keys and values of a recipe that had other names before, and what each is called now."""

from collections.abc import Mapping
from typing import Any

# Old key → new key.
RENAMED = {
    "data.long": "data.truncation",
    "data.pool": "data.window_pooling",
    "data.on_repeat": "data.on_duplicate",
    "optim.head_scale": "optim.head_lr_scale",
    "optim.every": "optim.schedule_every",
    "score.best": "score.monitor",
    "cache.prefix": "cache.frozen_states",
}
RENAMED_VALUES: dict[str, Mapping[Any, str]] = {
    "data.truncation": {"truncate_head": "head", "truncate_tail": "tail"},
    "model.head_init": {"names": "label_names"},
}
REMOVED = {"optim.clip": "the norm of the whole model's gradient is what is clipped"}


def explain_rename(key: str, value: Any = None) -> str | None:
    """What to tell of an old key or an old value; None where both are today's."""
    if key in REMOVED:
        return f"{key} was removed: {REMOVED[key]}"
    values = RENAMED_VALUES.get(RENAMED.get(key, key), {})
    new = values.get(value) if isinstance(value, str) else None
    if key in RENAMED:
        write = f"; write {RENAMED[key]}={new}" if new is not None else ""
        return f"{key} was renamed to {RENAMED[key]}{write}"
    return f"{key}: {value} was renamed to {new}" if new is not None else None
