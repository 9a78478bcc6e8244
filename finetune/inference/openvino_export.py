"""A saved classifier → `openvino_model.xml`, fp32 or int8, checked against torch on real rows.

int8 is the post-training quantization of NNCF: the rows of the check calibrate it.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.inference import onnx_comparison, onnx_export, onnx_quantization
from finetune.inference.classifier import Classifier
from finetune.inference.engine import Engine
from finetune.inference.engines import ENGINES, ONNX, OPENVINO, EngineOptions
from finetune.inference.onnx_comparison import Check, Reference
from finetune.inference.openvino_engine import multiplies_bf16, openvino_engine
from finetune.inference.records import Record
from finetune.runtime import telemetry
from finetune.runtime.errors import InputError, explain_write_errors

CALIBRATION = 256  # rows at most, the longest
OPSETS = (18, 22)


def export_openvino(
    classifier: Classifier,
    source: str,
    out: Path,
    rows: Sequence[Record],
    truth: NDArray[np.int64] | None,
    int8: bool,
    threads: int | None = None,
) -> list[Check]:
    """Write the folder; arguments and result as of `onnx_export.export_onnx`.

    Raises:
        InputError: without the extra `openvino`; where the exported model predicts other labels.
            Nothing is written then.
    """
    for library in ("openvino", "nncf") if int8 else ("openvino",):
        if find_spec(library) is None:
            raise InputError(f"{library} is not installed; {ENGINES['openvino'].install}")
    reference, first = onnx_export.make_reference(classifier, source, rows, truth, threads)
    checks = [first]
    aside = out.with_name(f".{out.name}.new")
    with explain_write_errors(out, "write it to"):
        shutil.rmtree(aside, ignore_errors=True)
        graph = aside / "onnx"
        graph.mkdir(parents=True)
        try:
            onnx_export.write_checked(source, graph, reference, OPSETS)
            openvino = telemetry.import_silently("openvino")
            model = openvino.Core().read_model(graph / ONNX)
            checks.append(_save_checked(model, aside, "fp32", reference))
            if int8:
                small = _quantize(model, reference)
                checks.append(_save_checked(small, aside, "int8", reference))
            shutil.rmtree(graph)
            kept = {"kept_labels": checks[-1].agreement}
            if multiplies_bf16():
                name = f"{checks[-1].name} in bf16"
                rounded = _compare(name, aside, reference, "bf16")
                checks.insert(-1, rounded)  # last is what is written
                kept["kept_labels_bf16"] = rounded.agreement
            onnx_export.save_config(source, aside, **kept)
            aside.replace(out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return checks


def _save_checked(model: Any, folder: Path, name: str, reference: Reference) -> Check:
    """
    Raises:
        InputError: where it predicts worse than it may.
    """
    openvino = telemetry.import_silently("openvino")
    openvino.save_model(model, folder / OPENVINO, compress_to_fp16=False)
    check = _compare(name, folder, reference, "fp32")
    if not onnx_quantization.is_good(check, reference):
        raise InputError(onnx_quantization.explain_loss(check, 1, reference))
    return check


def _compare(name: str, folder: Path, reference: Reference, precision: str) -> Check:
    build = partial(_build, precision)
    return onnx_comparison.compare_with_torch(name, folder, reference, build)


def _build(precision: str, folder: Path, threads: int | None) -> Engine:
    return openvino_engine(folder, EngineOptions(precision=precision, threads=threads))


def _quantize(model: Any, reference: Reference) -> Any:
    nncf = telemetry.import_silently("nncf")
    table, names = reference.table, {each.get_any_name() for each in model.inputs}
    longest = np.argsort(-table.lengths, kind="stable")[:CALIBRATION]
    batches = []
    for part in np.array_split(longest, max(1, len(longest) // 8)):
        inputs = table.batch(part, torch.device("cpu"))
        batches.append({name: value.numpy() for name, value in inputs.items() if name in names})
    with onnx_quantization.silence_exporter():
        return nncf.quantize(
            model,
            nncf.Dataset(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(batches),
        )
