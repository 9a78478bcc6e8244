"""A saved classifier → `model.onnx`, fp32 or int8, checked against torch on real rows.

    checks = export_onnx(Classifier(folder), folder, Path("exported"), rows, labels, int8=True)

The folder then holds what predicting needs without torch's weights: model.onnx, config.json and the
tokenizer. It is written only where ONNX Runtime predicts torch's labels: in fp32 up to rounding, in
int8 as `onnx_quantization.py` says.
"""

import shutil
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune.inference import onnx_comparison
from finetune.inference.classifier import Classifier
from finetune.inference.engines import ONNX
from finetune.inference.onnx_comparison import Check, Reference
from finetune.inference.onnx_quantization import quantize, silence_exporter
from finetune.inference.records import Record
from finetune.modeling import model_identity, saved_model
from finetune.runtime.commands import install
from finetune.runtime.errors import InputError, explain_write_errors
from finetune.tokenization.document_format import drop_detector
from finetune.tokenization.token_table import TokenTable

MAX_DIFFERENCE = 1e-3  # in fp32: logits of ONNX Runtime and torch, which add in another order
# The first has attention and GELU as one operator each, which run faster. Its RotaryEmbedding, to
# which ModernBERT exports, ONNX Runtime runs for a single row; in the second, it is arithmetic.
OPSETS = (23, 22)


class _PlainClassifier(nn.Module):
    """A classifier whose inputs and outputs are plain tensors, as ONNX needs it."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def check_installed(key: str = "") -> None:
    """
    Args:
        key: what the message begins with.

    Raises:
        InputError: without the extra `onnx`.
    """
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise InputError(f"{key}{missing[0]} is not installed; {install('onnx')}")


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
    reference, first = make_reference(classifier, source, rows, truth, threads)
    checks = [first]
    aside = out.with_name(f".{out.name}.new")
    with explain_write_errors(out, "write it to"):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            checks.append(write_checked(source, aside, reference))
            if int8:
                checks += quantize(aside / ONNX, reference)
            save_config(source, aside, kept_labels=checks[-1].agreement)
            aside.replace(out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return checks


def make_reference(
    classifier: Classifier,
    source: str,
    rows: Sequence[Record],
    truth: NDArray[np.int64] | None,
    threads: int | None,
) -> tuple[Reference, Check]:
    """What an exported model is compared with, and how torch did; arguments as of `export_onnx`."""
    table = classifier.encode(rows)
    began = time.perf_counter()
    logits = classifier.engine.logits(table)
    speed = len(table) / (time.perf_counter() - began)
    reference = Reference(table, logits, truth, classifier.rules, threads)
    size = sum(p.numel() * 4 for p in saved_model.load_classifier(source)[0].parameters()) / 1e6
    return reference, Check("torch fp32", 1.0, 0.0, reference.accuracy(logits), speed, size)


def write_checked(
    source: str, folder: Path, reference: Reference, opsets: Sequence[int] = OPSETS
) -> Check:
    """Write the graph in the first set of operators in which ONNX Runtime computes torch's logits.

    Args:
        opsets: the versions of the operators, the best one first.

    Raises:
        InputError: where it does in none.
    """
    largest = MAX_DIFFERENCE * reference.scale
    problems: dict[str, int] = {}  # why → the first set of operators for which it is so
    for opset in opsets:
        try:
            to_onnx(source, reference.table, folder / ONNX, opset)
            check = onnx_comparison.compare_with_torch("fp32", folder, reference)
        except Exception as error:  # the exporter's and ONNX Runtime's have no common kind
            lines = (line.strip() for line in str(error).splitlines())
            why = next(filter(None, lines), type(error).__name__)
            problems.setdefault(why, opset)
            continue
        if check.max_difference <= largest:
            return check
        why = f"logits differ from torch's by up to {check.max_difference:.2g}, more than rounding"
        problems.setdefault(why, opset)
    listed = "; ".join(f"{why} (opset {opset})" for why, opset in problems.items())
    raise InputError(
        f"{source}: this model cannot be exported to ONNX, nothing was written: {listed}. Predict "
        "with --engine torch, which runs every model"
    )


def to_onnx(source: str, table: TokenTable, file: Path, opset: int = OPSETS[0]) -> None:
    """Write a model's graph, for any number of rows and tokens.

    Args:
        opset: the version of the operators.
    """
    import onnx  # noqa: F401 # before torch looks for it, to say what is missing

    # A fresh copy: the classifier's own may run packed rows, which ONNX has no word for.
    model, _ = saved_model.load_classifier(source)
    longest = np.argsort(-table.lengths, kind="stable")[:2]
    inputs = table.batch(np.array([longest[0], longest[-1]]), torch.device("cpu"))
    names = list(inputs)
    sizes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")}
    with silence_exporter():
        program: Any = torch.onnx.export(
            _PlainClassifier(model, names).eval(),
            tuple(inputs.values()),
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=(tuple(sizes for _ in names),),
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
        program.save(str(file))


def save_config(source: str, folder: Path, **kept: float | None) -> None:
    """Write the config, the tokenizer, and the identity of both and of the graph.

    Args:
        kept: the shares of the source's labels that the graph gives, as of `write_identity`.
    """
    model, tokenizer = saved_model.load_classifier(source)
    drop_detector(model.config)
    model.config.save_pretrained(folder)
    saved_model.save_tokenizer(tokenizer, folder)
    model_identity.write_identity(folder, tokenizer, model.config, source, **kept)
