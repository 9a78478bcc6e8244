"""A saved classifier → `model.onnx`, fp32 or int8, checked against torch on real rows.

    checks = export_onnx(Classifier(folder), folder, Path("exported"), rows, labels, int8=True)

The folder then holds what predicting needs without torch's weights: model.onnx, config.json and the
tokenizer. It is written only where ONNX Runtime predicts torch's labels: in fp32 up to rounding, in
int8 for all but `MAX_CHANGED` of the documents, or, where the rows have labels, with an accuracy at
most `MAX_LOST` lower.
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
from finetune.inference.classifier import Classifier
from finetune.inference.decision import DecisionRules
from finetune.inference.engine import Logits
from finetune.inference.engines import ONNX
from finetune.inference.onnx_engine import onnx_engine
from finetune.inference.records import Record
from finetune.modeling import saved_model
from finetune.runtime.errors import InputError, explain_write_errors
from finetune.tokenization.token_table import TokenTable

MAX_DIFFERENCE = 1e-3  # in fp32: logits of ONNX Runtime and torch, which add in another order
MAX_CHANGED = 0.02  # of an int8 model's labels against fp32's, where no label says which is right
MAX_LOST = 0.005  # of accuracy, by int8
MIN_LABELLED = 100  # rows, for a meaningful accuracy
OPSET = 23  # the first that has attention and GELU as one operator each


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


class _PlainClassifier(nn.Module):
    """A classifier whose inputs and outputs are plain tensors, as ONNX needs it."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


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

    def accuracy(self, logits: Logits) -> float | None:
        if self.truth is None:
            return None
        return float((logits.argmax(axis=1) == self.truth).mean())

    def labels(self, logits: Logits) -> NDArray[np.int64]:
        """What logits predict. (rows, 1), or of a multi-label model (rows, classes)"""
        thresholds = None if self.rules.thresholds is None else np.array(self.rules.thresholds)
        predicted = probabilities.predict_labels(logits, self.rules.multi_label, thresholds)
        return predicted.reshape(len(logits), -1)


def export_onnx(
    classifier: Classifier,
    source: str,
    out: Path,
    rows: Sequence[Record],
    truth: NDArray[np.int64] | None,
    int8: bool,
    threads: int | None = None,
) -> list[Check]:
    """Write the folder; how each model did: torch first, the one that was written last.

    Args:
        classifier: in fp32, on the CPU.
        source: the folder or Hub id that it was loaded from.
        rows: real documents to compare on, and to calibrate static int8 with.
        truth: the class of each; None where it is unknown.

    Raises:
        InputError: where the exported model predicts other labels. Nothing is written then.
    """
    table = classifier.encode(rows)
    began = time.perf_counter()
    logits = classifier.engine.logits(table)
    speed = len(table) / (time.perf_counter() - began)
    reference = Reference(table, logits, truth, classifier.rules, threads)
    size = sum(p.numel() * 4 for p in saved_model.load_classifier(source)[0].parameters()) / 1e6
    checks = [Check("torch fp32", 1.0, 0.0, reference.accuracy(logits), speed, size)]
    aside = out.with_name(f".{out.name}.new")
    with explain_write_errors(out, "write it to"):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            file = aside / ONNX
            to_onnx(source, table, file)
            checks.append(compare_with_torch("fp32", aside, reference))
            difference = checks[-1].max_difference
            if difference > MAX_DIFFERENCE * max(1.0, float(np.abs(logits).max())):
                raise InputError(
                    f"{source}: the exported model's logits differ from torch's by up to "
                    f"{difference:.2g}, which is more than rounding; nothing was written"
                )
            if int8:
                checks += quantize(file, reference)
            _save_config(source, aside)
            aside.replace(out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return checks


def compare_with_torch(name: str, folder: Path, reference: Reference) -> Check:
    """Run an exported model on the reference's rows."""
    table = reference.table
    engine = onnx_engine(folder, reference.threads)
    engine.logits(table)  # its first pass plans each shape
    began = time.perf_counter()
    logits = engine.logits(table)
    seconds = time.perf_counter() - began
    same = reference.labels(logits) == reference.labels(reference.logits)
    return Check(
        name=name,
        agreement=float(same.all(axis=1).mean()),
        max_difference=float(np.abs(logits - reference.logits).max()),
        accuracy=reference.accuracy(logits),
        rows_per_second=len(table) / seconds,
        megabytes=sum(part.stat().st_size for part in folder.glob(f"{ONNX}*")) / 1e6,
    )


def to_onnx(source: str, table: TokenTable, file: Path) -> None:
    """Write a model's graph, for any number of rows and tokens."""
    import onnx  # noqa: F401 # before torch looks for it, to say what is missing

    # A fresh copy: the classifier's own may run packed rows, which ONNX has no word for.
    model, _ = saved_model.load_classifier(source)
    longest = np.argsort(-table.lengths, kind="stable")[:2]
    inputs = table.batch(np.array([longest[0], longest[-1]]), torch.device("cpu"))
    names = list(inputs)
    sizes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")}
    with _silent():
        program: Any = torch.onnx.export(
            _PlainClassifier(model, names).eval(),
            tuple(inputs.values()),
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=(tuple(sizes for _ in names),),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        program.save(str(file))


def quantize(file: Path, reference: Reference) -> Iterator[Check]:
    """Replace an fp32 model by the better of dynamic and static int8; the written one is last.

    Raises:
        InputError: where both change too many predictions.
    """
    tried: list[tuple[Check, Path]] = []
    for name, make in (("int8 dynamic", _dynamic), ("int8 static", _static)):
        folder = file.with_name(name.replace(" ", "-"))
        folder.mkdir()
        with _silent():
            make(file, folder / ONNX, reference.table)
        tried.append((compare_with_torch(name, folder, reference), folder))
        yield tried[-1][0]
        if name == "int8 dynamic" and _is_good(tried[0][0], reference):
            break  # static int8 needs calibration rows that represent all to come
    labelled = reference.truth is not None
    best, folder = max(
        tried, key=lambda pair: pair[0].accuracy or 0.0 if labelled else pair[0].agreement
    )
    if not _is_good(best, reference):
        raise InputError(_explain_int8_loss(best, len(tried), reference))
    (folder / ONNX).replace(file)
    for _, made in tried:
        shutil.rmtree(made)
    if best is not tried[-1][0]:
        yield best


def _is_good(check: Check, reference: Reference) -> bool:
    before = reference.accuracy(reference.logits)
    if before is None or check.accuracy is None or len(reference.logits) < MIN_LABELLED:
        return check.agreement >= 1 - MAX_CHANGED
    return check.accuracy >= before - MAX_LOST


def _explain_int8_loss(best: Check, tried: int, reference: Reference) -> str:
    before = reference.accuracy(reference.logits)
    loss = (
        f"{100 * (1 - best.agreement):.1f} % of {len(reference.table):,} predicted labels change"
        if before is None
        else f"accuracy falls from {100 * before:.2f} to {100 * (best.accuracy or 0):.2f} %"
    )
    hint = "" if before is not None else ", or give labelled rows with --data and --label"
    return (
        f"--int8: {loss} ({best.name}, the best of {tried}); nothing was written. Export without "
        f"--int8{hint}"
    )


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


def _save_config(source: str, folder: Path) -> None:
    """Write the config and the tokenizer."""
    model, tokenizer = saved_model.load_classifier(source)
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _silent() -> Iterator[None]:
    """Without the warnings of the exporter and the quantizer."""
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
