"""A saved classifier → `model.onnx`, fp32 or int8, checked against torch on real rows.

    found = export(Classifier("runs/…"), Path("exported"), rows, labels, int8=True)

The folder then holds what predicting needs without torch's weights: model.onnx, config.json and the
tokenizer. It is written only where ONNX Runtime gives the labels that torch gives: fp32 all but
always, int8 for all but so many documents as `MOST_CHANGED` says, or without losing accuracy where
the rows have labels.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune.evaluation import probabilities
from finetune.inference import engines
from finetune.inference.classifier import Classifier
from finetune.inference.decision import DecisionRules
from finetune.inference.records import Record
from finetune.modeling import saved_model
from finetune.runtime.errors import InputError, explain_write_errors
from finetune.tokenization.token_table import TokenTable

Logits = NDArray[np.float32]

MOST_APART = 1e-3  # in fp32: logits of ONNX Runtime and torch, which add in another order
MOST_CHANGED = 0.02  # of an int8 model's labels against fp32's, where nothing says who is right
MOST_LOST = 0.005  # of accuracy, by int8
AT_LEAST = 100  # labelled rows, for an accuracy that says something
OPSET = 23  # the first that has attention and GELU as one operator each


@dataclass(frozen=True)
class Check:
    """What one exported model does.

    Attributes:
        name: fp32, int8 dynamic or int8 static.
        same: share of rows that get torch's label (of fp32).
        apart: the largest difference of a logit to torch's.
        accuracy: on labelled rows; None without.
        rows_per_second: on the rows of the check.
        megabytes: of the file.
    """

    name: str
    same: float
    apart: float
    accuracy: float | None
    rows_per_second: float
    megabytes: float


class _Bare(nn.Module):
    """A classifier as ONNX has it: tensors in, logits out."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *given: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, given, strict=True))).logits
        return logits


def export_onnx(
    classifier: Classifier,
    source: str,
    out: Path,
    rows: Sequence[Record],
    truth: NDArray[np.int64] | None,
    int8: bool,
    threads: int | None = None,
) -> list[Check]:
    """Write the folder, and say how each model did: torch first, the one that was written last.

    Args:
        classifier: in fp32, on the CPU.
        source: the folder or Hub id that it was loaded from.
        rows: real documents to compare on, and to calibrate static int8 with.
        truth: the class of each; None where nobody knows.

    Raises:
        InputError: where the exported model answers otherwise. Nothing is written then.
    """
    table = classifier.encode(rows)
    began = time.perf_counter()
    logits = classifier.engine.logits(table)
    speed = len(table) / (time.perf_counter() - began)
    size = sum(p.numel() * 4 for p in saved_model.load_classifier(source)[0].parameters()) / 1e6
    checks = [Check("torch fp32", 1.0, 0.0, accuracy(logits, truth), speed, size)]
    aside = out.with_name(f".{out.name}.new")
    with explain_write_errors(out, "write it to"):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            file = aside / engines.ONNX
            to_onnx(source, table, file)
            checks.append(_checked("fp32", aside, table, logits, truth, threads, classifier.rules))
            apart = checks[-1].apart
            if apart > MOST_APART * max(1.0, float(np.abs(logits).max())):
                raise InputError(
                    f"{source}: the exported model's logits are up to {apart:.2g} from torch's, "
                    f"which is no rounding; nothing is written"
                )
            if int8:
                checks += _quantized(file, table, logits, truth, threads, classifier.rules)
            _copy_rest(classifier, source, aside)
            aside.replace(out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return checks


def accuracy(logits: Logits, truth: NDArray[np.int64] | None) -> float | None:
    return None if truth is None else float((logits.argmax(axis=1) == truth).mean())


def to_onnx(source: str, table: TokenTable, file: Path) -> None:
    """Write a model's graph, for any number of rows and tokens."""
    import onnx  # noqa: F401 # before torch looks for it, to say what is missing

    # A fresh copy: the classifier's own may run packed rows, which ONNX has no word for.
    model, _ = saved_model.load_classifier(source)
    longest = np.argsort(-table.lengths, kind="stable")[:2]
    given = table.batch(np.array([longest[0], longest[-1]]), torch.device("cpu"))
    names = list(given)
    sizes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")}
    with _silent():
        program: Any = torch.onnx.export(
            _Bare(model, names).eval(),
            tuple(given.values()),
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=(tuple(sizes for _ in names),),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        program.save(str(file))


def _quantized(
    file: Path,
    table: TokenTable,
    logits: Logits,
    truth: NDArray[np.int64] | None,
    threads: int | None,
    rules: DecisionRules,
) -> Iterator[Check]:
    """Put the better of dynamic and static int8 in the place of an fp32 model.

    Raises:
        InputError: where both answer too often otherwise.
    """
    tried: list[tuple[Check, Path]] = []
    for name, make in (("int8 dynamic", _dynamic), ("int8 static", _static)):
        folder = file.with_name(name.replace(" ", "-"))
        folder.mkdir()
        with _silent():
            make(file, folder / engines.ONNX, table)
        tried.append((_checked(name, folder, table, logits, truth, threads, rules), folder))
        yield tried[-1][0]
        if name == "int8 dynamic" and _is_good(tried[0][0], logits, truth):
            break  # static int8 needs calibration rows that are like all to come
    best, folder = max(
        tried, key=lambda made: made[0].same if truth is None else made[0].accuracy or 0.0
    )
    if not _is_good(best, logits, truth):
        before = accuracy(logits, truth)
        what = (
            f"{100 * (1 - best.same):.1f} % of {len(table):,} labels change"
            if before is None
            else f"accuracy falls from {100 * before:.2f} to {100 * (best.accuracy or 0):.2f} %"
        )
        raise InputError(
            f"--int8: {what} ({best.name}, the best of {len(tried)}); nothing is written. Export "
            "it without --int8"
            + ("" if truth is not None else ", or give labelled rows with --data and --label")
        )
    (folder / engines.ONNX).replace(file)
    for _, made in tried:
        shutil.rmtree(made)
    if best is not tried[-1][0]:
        yield best  # last: what was written


def _is_good(found: Check, logits: Logits, truth: NDArray[np.int64] | None) -> bool:
    before = accuracy(logits, truth)
    if before is None or found.accuracy is None or len(logits) < AT_LEAST:
        return found.same >= 1 - MOST_CHANGED
    return found.accuracy >= before - MOST_LOST


def _dynamic(file: Path, out: Path, table: TokenTable) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        file, out, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"]
    )


def _static(file: Path, out: Path, table: TokenTable) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rows = np.argsort(-table.lengths, kind="stable")[:256]
            self.batches = iter(
                {
                    name: value.numpy()
                    for name, value in table.batch(part, torch.device("cpu")).items()
                }
                for part in np.array_split(rows, max(1, len(rows) // 8))
            )

        def get_next(self) -> Any:
            return next(self.batches, None)

    quantize_static(
        file, out, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
    )  # fmt: skip


def _decided(logits: Logits, rules: DecisionRules) -> NDArray[np.int64]:
    """What logits say, as prediction takes them. (rows, 1), or of several labels (rows, classes)"""
    cuts = None if rules.thresholds is None else np.array(rules.thresholds)
    return probabilities.predict_labels(logits, rules.several, cuts).reshape(len(logits), -1)


def _checked(
    name: str,
    folder: Path,
    table: TokenTable,
    logits: Logits,
    truth: NDArray[np.int64] | None,
    threads: int | None,
    rules: DecisionRules,
) -> Check:
    engine = engines.onnx_engine(folder, threads)
    engine.logits(table)  # its first pass plans each shape
    began = time.perf_counter()
    found = engine.logits(table)
    return Check(
        name=name,
        same=float((_decided(found, rules) == _decided(logits, rules)).all(axis=1).mean()),
        apart=float(np.abs(found - logits).max()),
        accuracy=accuracy(found, truth),
        rows_per_second=len(table) / (time.perf_counter() - began),
        megabytes=sum(f.stat().st_size for f in folder.glob(f"{engines.ONNX}*")) / 1e6,
    )


def _copy_rest(classifier: Classifier, source: str, folder: Path) -> None:
    """The config and the tokenizer; of what travels with the weights only the modelling file."""
    model, tokenizer = saved_model.load_classifier(source)
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _silent() -> Iterator[None]:
    """Without the exporter's and the quantizer's advice to their own developers."""
    import logging
    import warnings

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
