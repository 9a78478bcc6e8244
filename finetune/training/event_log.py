"""What happens in a run → a line of metrics.jsonl, and of the experiment trackers."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from finetune.runtime.atomic_files import append_json_line, synced_size, truncate_file
from finetune.runtime.distributed import run_on_main


def tracked_name(kind: str, name: str) -> str:
    """What experiment trackers call a number: MLflow refuses most marks, and a task's name (of
    `data.tasks`) may hold any."""
    return re.sub(r"[^\w.\- /]", "_", f"{kind}/{name}")


class EventLog:
    """The log of one run folder.

    Attributes:
        stage: the number of the stage under way, where a run has several; else None.
    """

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self.file = folder / "metrics.jsonl"
        self.stage: int | None = None
        self._accelerator = accelerator

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Add a line. All processes call this; the main one writes.

        Args:
            kind: train, validation or back_off.
        """
        line = {"kind": kind, "step": step} | dict(values)
        if self.stage is not None:
            line |= {"stage": self.stage}
        run_on_main(self._accelerator, lambda: append_json_line(self.file, line))
        numbers = {
            tracked_name(kind, name): v for name, v in values.items() if not isinstance(v, str)
        }
        self._accelerator.log(numbers, step)

    def synced_size(self) -> int:
        """The bytes that the disk holds for certain: what a checkpoint remembers of the log."""
        return synced_size(self.file)

    def truncate(self, size: int) -> bool:
        """Cut off what came after a checkpoint; False where the log is shorter than it was."""
        return truncate_file(self.file, size)
