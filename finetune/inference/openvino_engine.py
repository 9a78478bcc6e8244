"""An exported folder → an engine of OpenVINO, on the CPU.

It computes a graph of its own, which `finetune export --layout openvino` writes, or one of ONNX.
"""

import hashlib
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.compute import hardware_plan
from finetune.inference import onnx_engine
from finetune.inference.engine import Engine, count_workers, describe_batches
from finetune.inference.engines import (
    ENGINES,
    KEPT,
    OPENVINO,
    EngineOptions,
    LoadedModel,
    ModelSource,
)
from finetune.modeling import model_identity
from finetune.modeling.load_errors import first_line
from finetune.runtime import telemetry
from finetune.runtime.commands import command
from finetune.runtime.errors import InputError
from finetune.runtime.memory_errors import reraise_memory_error
from finetune.tokenization.token_table import Rows, TokenTable

BATCH_TOKENS = 512
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}  # ours → OpenVINO's


def load(source: ModelSource, options: EngineOptions) -> LoadedModel:
    """The config and the tokenizer; the graph where the engine is built.

    Raises:
        InputError: where the folder was not exported.
    """
    config, tokenizer = onnx_engine.load_exported(source)
    folder, graph = Path(source.name), source.graph
    return LoadedModel(config, tokenizer, lambda: openvino_engine(folder, options, graph))


def openvino_engine(folder: Path, options: EngineOptions, graph: str | None = None) -> Engine:
    """Runs a folder's graph, with one stream for each batch that is computed at once.

    Args:
        graph: its file; None: the first that OpenVINO reads.

    Raises:
        InputError: where there is none, or OpenVINO cannot read it.
    """
    file = ENGINES["openvino"].find_file(folder, graph)
    if file is None:
        raise InputError(
            f"{folder}: expected {ENGINES['openvino'].files[0]} or model.onnx, found neither; "
            f"{command('export', 'MODEL', 'OUT', '--layout', 'openvino')} writes the first"
        )
    threads = options.threads or hardware_plan.all_threads()
    workers = count_workers(threads)
    openvino = telemetry.import_silently("openvino")
    core = openvino.Core()
    # OpenVINO looks NumPy up at its first use: two threads that do so at once wait for each other
    # for ever, one for the interpreter's lock and one for the other's lookup.
    _ = openvino.Tensor(np.zeros(1, np.float32)).data
    precision, why = _choose_precision(options.precision, file)
    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": str(workers),
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
    }
    try:
        model = core.read_model(file)
        compiled = core.compile_model(model, "CPU", settings)
    except Exception as error:  # of the runtime's own kind
        reraise_memory_error(error)
        raise InputError(
            f"{file}: OpenVINO cannot read it ({first_line(error)}); export it again"
        ) from None
    shape = model.outputs[0].get_partial_shape()
    if len(shape) != 2 or shape[1].is_dynamic:
        raise InputError(f"{file}: expected the output logits (rows, classes); export it again")
    budget = options.tokens or BATCH_TOKENS
    return Engine(
        run=_runner(compiled, file),
        classes=shape[1].get_length(),
        budget=budget,
        threads=threads,
        workers=workers,
        reasons=(
            f"OpenVINO {version('openvino')}: {file}",
            why,
            describe_batches(budget, threads, workers),
        ),
        identity=f"{_hash_graph(file)} openvino {precision}",
    )


def _runner(compiled: Any, file: Path) -> Any:
    """What computes a batch: in each thread by a request of its own, which keeps its buffers."""
    names = {each.get_any_name() for each in compiled.inputs}
    of_thread = threading.local()

    def run(table: TokenTable, rows: Rows, threads: int) -> Tensor:
        if not hasattr(of_thread, "request"):
            of_thread.request = compiled.create_infer_request()
        inputs = table.batch(rows, torch.device("cpu"))
        arrays = {name: value.numpy() for name, value in inputs.items() if name in names}
        try:
            found = of_thread.request.infer(arrays)[0]
        except Exception as error:  # an id that a table lacks, say
            reraise_memory_error(error)
            raise InputError(
                f"{file}: OpenVINO cannot compute it ({first_line(error)}); export it again"
            ) from None
        return table.pooled(torch.from_numpy(found.copy()).float(), rows)

    return run


def multiplies_bf16() -> bool:
    """Whether OpenVINO's products of bf16 are faster than those of fp32 on this CPU."""
    openvino = telemetry.import_silently("openvino")
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _choose_precision(asked: str, file: Path) -> tuple[str, str]:
    """fp32 or bf16 for a graph, and why.

    By itself it is bf16 where this CPU multiplies it, and where the export was checked in it.

    Raises:
        InputError: for fp16, which a CPU does not compute with.
    """
    if asked not in ("auto", *PRECISIONS):
        raise InputError(f"--precision {asked}: OpenVINO computes with auto, fp32 or bf16")
    if asked != "auto":
        return asked, f"{asked}: as requested"
    if not multiplies_bf16():
        return "fp32", "fp32: this CPU has no native bf16"
    identity = model_identity.read_identity(str(file.parent)) if file.name == OPENVINO else None
    kept = None if identity is None else identity.kept_labels_bf16
    if identity is None or kept is None:
        return "fp32", "fp32: what the export was checked in; --precision bf16 is faster"
    # An int8 export loses labels by itself: bf16 then need keep no more of them than it does.
    if kept < min(KEPT, identity.kept_labels or KEPT):
        return "fp32", f"fp32: bf16 kept {100 * kept:.2f} % of the labels when it was exported"
    return "bf16", "bf16: this CPU multiplies it natively, and the export was checked in it"


def _hash_graph(file: Path) -> str:
    """SHA-256 of a graph and of its weights, where these are in a file of their own."""
    digest = hashlib.sha256()
    for part in (file, file.with_suffix(".bin"), file.with_name(f"{file.name}.data")):
        if part.is_file():
            digest.update(hashlib.sha256(part.read_bytes()).digest())
    return digest.hexdigest()
