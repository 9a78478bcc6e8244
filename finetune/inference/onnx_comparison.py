"""An exported model against torch in fp32, on real rows: labels, logits, accuracy, speed, size."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.inference.decision import DecisionRules
from finetune.inference.engine import Engine, Logits
from finetune.inference.engines import ONNX, OPENVINO
from finetune.inference.onnx_engine import onnx_engine
from finetune.tokenization.token_table import TokenTable


@dataclass(frozen=True)
class Check:
    """How one exported model compares with torch's in fp32.

    Attributes:
        name: fp32, int8 dynamic or int8 static.
        agreement: share of rows with torch's labels.
        max_difference: the largest difference of a logit to torch's.
        accuracy: on labelled rows; None without.
        rows_per_second: on the rows of the check.
        megabytes: of the file.
    """

    name: str
    agreement: float
    max_difference: float
    accuracy: float | None
    rows_per_second: float
    megabytes: float


@dataclass(frozen=True)
class Reference:
    """What an exported model is compared with.

    Attributes:
        table: real documents as tokens; static int8 is calibrated with them too.
        logits: torch's, in fp32. (rows, classes)
        truth: the class of each row; None where it is unknown.
        rules: how logits become labels.
        threads: of the CPU, for an engine.
    """

    table: TokenTable
    logits: Logits
    truth: NDArray[np.int64] | None
    rules: DecisionRules
    threads: int | None

    @property
    def scale(self) -> float:
        """What differences of logits are to be compared with."""
        if self.rules.number is not None:
            return self.rules.number.scale.deviation
        return max(1.0, float(np.abs(self.logits).max()))

    def are_same(self, logits: Logits) -> NDArray[np.bool_]:
        """Whether logits predict what torch's do. (rows,)"""
        if self.rules.number is not None:
            apart: NDArray[np.float32] = np.abs(logits - self.logits)[:, 0]
            return np.asarray(apart <= self.rules.number.tolerance)
        return np.asarray((self.labels(logits) == self.labels(self.logits)).all(axis=1))

    def accuracy(self, logits: Logits) -> float | None:
        if self.truth is None:
            return None
        return float((logits.argmax(axis=1) == self.truth).mean())

    def labels(self, logits: Logits) -> NDArray[np.int64]:
        """What logits predict. (rows, 1), or of a multi-label model (rows, classes)"""
        return self.rules.predict(logits).reshape(len(logits), -1)


def compare_with_torch(
    name: str,
    folder: Path,
    reference: Reference,
    build: Callable[[Path, int | None], Engine] = onnx_engine,
) -> Check:
    """Run an exported model on the reference's rows.

    Args:
        build: makes the engine of a folder for so many threads.
    """
    table = reference.table
    engine = build(folder, reference.threads)
    engine.logits(table)  # its first pass plans each shape
    began = time.perf_counter()
    logits = engine.logits(table)
    seconds = time.perf_counter() - began
    return Check(
        name=name,
        agreement=float(reference.are_same(logits).mean()),
        max_difference=float(np.abs(logits - reference.logits).max()),
        accuracy=reference.accuracy(logits),
        rows_per_second=len(table) / seconds,
        megabytes=sum(part.stat().st_size for part in _graph_files(folder)) / 1e6,
    )


def _graph_files(folder: Path) -> Iterator[Path]:
    for file in folder.iterdir():
        if file.name.startswith((ONNX, OPENVINO.removesuffix("xml"))):
            yield file
