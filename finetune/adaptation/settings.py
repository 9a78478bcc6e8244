"""What a person asks of `finetune adapt`, as a recipe that the training loop reads.

    settings = Settings("sentence-transformers/all-MiniLM-L6-v2", ("tickets.csv",), Path("encoder"))
    settings.recipe        # the keys that decide steps, rates and the machine's plan

The loop, its schedule, its optimizer and its checkpoints are those of `finetune train`, so they
read the same keys. Messages of theirs name these; `in_options` puts the command's options in their
place.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune.config import schema
from finetune.config.problems import describe_errors
from finetune.runtime.errors import InputError
from finetune.training.masking import Replacement

MAX_LENGTH = 128  # tokens of a row: BERT's own, in nine tenths of its pretraining
BATCH_SIZE = 64
LR = 5e-5  # ten times that cost a sentence encoder five points of accuracy (docs/adapting.md)
NEW_HEAD_SCALE = 2.0
WEIGHT_DECAY = 0.01
OPTIONS = {
    "adapt.mask_fraction": "--mask-fraction",
    "adapt.replacement": "--masking",
    "data.delimiter": "--delimiter",
    "data.encoding": "--encoding",
    "data.max_length": "--max-length",
    "data.text": "--text",
    "model.revision": "--revision",
    "model.source": "ENCODER",
    "optim.lr": "--lr",
    "run.dir": "--output",
    "run.seed": "--seed",
    "train.batch_size": "--batch-size",
    "train.epochs": "--epochs",
    "train.max_steps": "--steps",
    "train.micro_batch_tokens": "--micro-batch-tokens",
    "train.minutes": "--minutes",
    "train.precision": "--precision",
    "train.threads": "--threads",
    "run.resume": "--resume",
    "INPUT": "DOCUMENTS",
}
KEYS = re.compile(r"\b(" + "|".join(map(re.escape, OPTIONS)) + r")\b(=?)")


@dataclass(frozen=True)
class Settings:
    """What is asked for.

    Attributes:
        encoder: a folder, a Hub id, or package:NAME/path.
        documents: files, folders, quoted globs or Hub data sets.
        output: the folder to write.
        resume: whether to go on with what was stopped there.
        mask_fraction: of each row's tokens that are asked for.
        replacement: what takes the place of these.
        keys: `section.key` → value, of what else differs from the defaults.
    """

    encoder: str
    documents: tuple[str, ...]
    output: Path
    resume: bool = False
    mask_fraction: float = 0.15
    replacement: Replacement = "mixed"
    keys: dict[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> schema.Recipe:
        """What the loop, its optimizer and its checkpoints read.

        Raises:
            InputError: for a value that no key may have.
        """
        sections: dict[str, dict[str, Any]] = {
            "data": {"source": self.documents[0]},
            "model": {"source": self.encoder, "freeze": "none"},
            "train": {"batch_size": BATCH_SIZE, "sampling": "uniform"},
            "optim": {"name": "adamw", "lr": LR, "weight_decay": WEIGHT_DECAY},
            "checkpoint": {"every": "never", "keep": 1},
            "run": {"dir": str(self.output)},
        }
        for name, value in self.keys.items():
            section, _, key = name.partition(".")
            sections.setdefault(section, {})[key] = value
        try:
            return schema.Recipe.model_validate(sections)
        except ValidationError as error:
            problems = describe_errors(error, "", {})
            raise InputError(problem.removeprefix(": ") for problem in problems) from None

    def words(self) -> list[str]:
        """The arguments of the command that asks for this, without how it is computed."""
        words = [self.encoder, *self.documents, "--output", str(self.output)]
        keys = {f"adapt.{key}": value for key, value in self.own.items()} | self.keys
        default = {f"adapt.{key}": value for key, value in Settings("", ("",), Path()).own.items()}
        for key, value in keys.items():
            if key in OPTIONS and value != default.get(key):
                several = value if isinstance(value, (list, tuple)) else [value]
                shown = (f"{one:g}" if isinstance(one, float) else str(one) for one in several)
                words += [OPTIONS[key], *shown]
        return words

    @property
    def own(self) -> dict[str, Any]:
        """What no key of a recipe holds, for a checkpoint to compare."""
        return {"mask_fraction": self.mask_fraction, "replacement": self.replacement}


@contextmanager
def in_options() -> Iterator[None]:
    """Problems of a recipe's keys, told with the options of the command.

    Raises:
        InputError: as the block does.
    """
    try:
        yield
    except InputError as error:
        problems = [
            KEYS.sub(lambda found: OPTIONS[found[1]] + (" " if found[2] else ""), problem)
            for problem in error.problems
        ]
        raise InputError(problems) from error
