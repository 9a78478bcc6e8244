"""An exported fp32 model → int8, the better of dynamic and static, where it predicts as well.

That is: other labels for at most `MAX_CHANGED` of the documents, or, where the rows have labels, an
accuracy at most `MAX_LOST` lower.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from finetune.inference import onnx_comparison
from finetune.inference.engines import ONNX
from finetune.inference.onnx_comparison import Check, Reference
from finetune.runtime import telemetry
from finetune.runtime.errors import InputError
from finetune.tokenization.token_table import TokenTable

MAX_CHANGED = 0.02  # of the labels against fp32's, where no label says which is right
MAX_LOST = 0.005  # of accuracy
MIN_EMBEDDING = 2**12  # numbers of a table: smaller ones stay as they are
MIN_LABELLED = 100  # rows, for a meaningful accuracy


def quantize(file: Path, reference: Reference) -> Iterator[Check]:
    """Replace an fp32 model by the better of dynamic and static int8; the written one is last.

    Raises:
        InputError: where both change too many predictions.
    """
    tried: list[tuple[Check, Path]] = []
    for name, make in (("int8 dynamic", _dynamic), ("int8 static", _static)):
        folder = file.with_name(name.replace(" ", "-"))
        folder.mkdir()
        with silence_exporter():
            make(file, folder / ONNX, reference.table)
        tried.append((onnx_comparison.compare_with_torch(name, folder, reference), folder))
        yield tried[-1][0]
        if name == "int8 dynamic" and is_good(tried[0][0], reference):
            break  # static int8 needs calibration rows that represent all to come
    labelled = reference.truth is not None
    best, folder = max(
        tried, key=lambda pair: pair[0].accuracy or 0.0 if labelled else pair[0].agreement
    )
    if not is_good(best, reference):
        raise InputError(explain_loss(best, len(tried), reference))
    (folder / ONNX).replace(file)
    for _, made in tried:
        shutil.rmtree(made)
    if best is not tried[-1][0]:
        yield best


def is_good(check: Check, reference: Reference) -> bool:
    """Whether a model predicts as well as torch's: by accuracy, or without labels by agreement."""
    before = reference.accuracy(reference.logits)
    if before is None or check.accuracy is None or len(reference.logits) < MIN_LABELLED:
        return check.agreement >= 1 - MAX_CHANGED
    return check.accuracy >= before - MAX_LOST


def explain_loss(best: Check, tried: int, reference: Reference) -> str:
    """Why the best int8 of so many is refused."""
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
    quantization = telemetry.import_silently("onnxruntime.quantization")
    quantization.quantize_dynamic(
        file, out, per_channel=True, weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
    )  # fmt: skip
    quantize_embeddings(out)


def _static(file: Path, out: Path, table: TokenTable) -> None:
    quantization = telemetry.import_silently("onnxruntime.quantization")
    base: Any = quantization.CalibrationDataReader

    class Reader(base):  # type: ignore[misc]
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

    quantization.quantize_static(
        file, out, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
    )  # fmt: skip
    quantize_embeddings(out)


def quantize_embeddings(file: Path) -> None:
    """Keep each row of the embedding tables as int8 with a scale of its own, in place.

    The runtime's own quantizer has one scale for a whole table, whose largest row then decides how
    finely all others are told apart. A lookup becomes

        Gather(table, ids)  →  Cast(Gather(int8 rows, ids)) · Gather(scales, ids)
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(file)
    graph = model.graph
    tables = {one.name: one for one in graph.initializer}
    used = Counter(name for node in graph.node for name in node.input)
    nodes, done = [], set()
    for node in graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
        if table is None or axis != 0 or not _is_embedding(table):
            nodes.append(node)
            continue
        name, ids, out = table.name, node.input[1], node.output[0]
        if name not in done:
            rows = numpy_helper.to_array(table)
            scales = np.abs(rows).max(axis=1, keepdims=True) / 127  # (tokens, 1)
            scales[scales == 0] = 1
            small = np.rint(rows / scales).astype(np.int8)
            graph.initializer.append(numpy_helper.from_array(small, f"{name}_int8"))
            graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
            done.add(name)
        nodes += [
            helper.make_node("Gather", [f"{name}_int8", ids], [f"{out}_int8"]),
            helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], to=table.data_type),
            helper.make_node("Gather", [f"{name}_scales", ids], [f"{out}_scales"]),
            helper.make_node("Mul", [f"{out}_float", f"{out}_scales"], [out], name=node.name),
        ]
        used[name] -= 1
    kept = [one for one in graph.initializer if one.name not in done or used[one.name]]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    onnx.save(model, file)


def _is_embedding(table: Any) -> bool:
    """Whether a stored tensor is a table of float vectors that is worth to be kept in int8."""
    import onnx

    return (
        table.data_type == onnx.TensorProto.FLOAT
        and len(table.dims) == 2
        and table.dims[0] * table.dims[1] >= MIN_EMBEDDING
    )


@contextmanager
def silence_exporter() -> Iterator[None]:
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
