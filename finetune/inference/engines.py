"""Token tables → logits, in batches of like length: with torch, or with ONNX Runtime.

    engine = torch_engine(model, device)      # packed rows and bf16 where the machine has them
    engine = onnx_engine(folder, threads)     # a folder that `scripts/export_onnx.py` wrote
    engine.logits(table)                      # (rows, classes) float32, in the table's order

Several batches are computed at once, each by a thread of its own: that was faster than all threads
on each, which wait for each other after every product. One engine serves one process.
"""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from finetune.compute import forward, hardware_plan, micro_batches, packing
from finetune.config import schema
from finetune.modeling import saved_model
from finetune.modeling.modeling_document_classifier import DocumentClassifier
from finetune.runtime.errors import InputError
from finetune.tokenization.token_table import Rows, TokenTable

Logits = NDArray[np.float32]
PACKED_TOKENS = 2048  # of a batch; half of training's, as every worker has its own
MOST_WORKERS = 8  # more would wait for each other's Python
PRIMITIVES = 128  # products that oneDNN keeps planned
ONNX = "model.onnx"  # the file that makes a folder one of ONNX Runtime's


@dataclass
class Engine:
    """How a table's logits are computed.

    Attributes:
        run: some rows of a table, and by how many threads → their logits. (rows, classes) float32
        budget: tokens of a batch.
        threads: of a CPU, in all.
        workers: batches that are computed at once, each by its share of the threads; where there
            are fewer rows, each row has its share.
        prepared: what to make of a table first.
        reasons: what it runs on, and why; a line each.
        identity: a hash of the weights and the precision: equal where the logits are.
    """

    run: Callable[[TokenTable, Rows, int], Tensor]
    classes: int
    budget: int
    threads: int
    workers: int
    reasons: tuple[str, ...]
    identity: str
    prepared: Callable[[TokenTable], TokenTable] = field(default=lambda table: table)

    def logits(self, table: TokenTable) -> Logits:
        """The logits of every row, in the table's order. (rows, classes)

        A GPU that runs out of memory gets half as many tokens at once from then on.

        Raises:
            InputError: where not even one row fits.
        """
        if table.first is not None:
            return table.joined(self.logits(table.by_piece()))
        table = self.prepared(table)
        found = np.zeros((len(table), self.classes), dtype=np.float32)
        together, budget = min(self.workers, len(table)), self.budget
        if together > 1:
            budget = min(budget, -(-int(table.lengths.sum()) // together))  # some for everyone
        threads = self.threads // together
        parts = micro_batches.micro_batches(np.arange(len(table)), table.lengths, budget)

        def compute(rows: Rows) -> None:
            found[rows] = self.run(table, rows, threads).numpy()

        if together > 1:
            with ThreadPoolExecutor(together) as pool:
                for _ in pool.map(compute, parts):
                    pass  # raises what a worker raised
            torch.set_num_threads(self.threads)  # a worker's share is no other thread's
            return found
        while parts:
            try:
                compute(parts[0])
                del parts[0]
            except torch.OutOfMemoryError:
                if len(parts[0]) == 1:
                    raise InputError(
                        f"a document of {table.lengths[parts[0][0]]:,} tokens does not fit into "
                        "this GPU's memory; try --precision bf16"
                    ) from None
                torch.cuda.empty_cache()
                self.budget //= 2
                parts = [
                    smaller
                    for part in parts
                    for smaller in micro_batches.micro_batches(part, table.lengths, self.budget)
                ]
        return found


def torch_engine(
    model: PreTrainedModel,
    device: torch.device | None = None,
    precision: str = "auto",
    threads: int | None = None,
    tokens: int | None = None,
) -> Engine:
    """Runs a loaded classifier as scoring does: by this machine's plan, and packed where it can.

    Args:
        device: where; None: as the plan says.
        precision: auto, bf16, fp16 or fp32.
        tokens: computed at once; None: as the plan says.
    """
    asked: dict[str, Any] = {
        "precision": precision,
        "threads": threads,
        "micro_batch_tokens": tokens,
    }
    plan = hardware_plan.plan_hardware(schema.Model(), schema.Train(**asked))
    _keep_few_primitives()
    hardware_plan.apply_plan(plan)
    device = device or torch.device(plan.device)
    identity = f"{saved_model.weights_hash(model.state_dict())} {plan.precision}"
    model.to(device).eval()  # type: ignore[arg-type]
    why_not = packing.why_not_packable(plan.device, model.config)
    if why_not is None and not isinstance(model, DocumentClassifier):
        why_not = "the architecture's own head takes them so"
    if why_not is None:
        packing.attach_packed_layers(model)
    budget = tokens or (PACKED_TOKENS if why_not is None else plan.micro_batch_tokens)
    workers = workers_of(plan.threads) if device.type == "cpu" else 1
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[plan.precision]

    @torch.inference_mode()
    def run(table: TokenTable, rows: Rows, threads: int) -> Tensor:
        torch.set_num_threads(threads)  # those of the calling thread
        with torch.autocast(device.type, kind, enabled=kind != torch.float32):
            return forward.forward_rows(model, table, rows, device).cpu()

    why = plan.reasons[0] if precision == "auto" else f"{plan.precision}: as asked"
    rows_are = f"padded: {why_not}" if why_not else "end to end, without padding"
    return Engine(
        run=run,
        classes=int(model.config.num_labels or 0),
        budget=budget,
        threads=plan.threads,
        workers=workers,
        reasons=(why, f"rows {rows_are}", _room(budget, plan.threads, workers)),
        identity=identity,
        prepared=packing.PackedTable.of if why_not is None else lambda table: table,
    )


def workers_of(threads: int) -> int:
    """The most batches at once that leave hardly a thread idle: of 12 threads 6, with 2 each."""
    some = range(1, min(threads, MOST_WORKERS) + 1)
    return max(many for many in some if threads // many * many >= 0.9 * threads)


def _room(tokens: int, threads: int, workers: int) -> str:
    if workers == 1:
        return f"{tokens:,} tokens at once, {threads} thread{'s' * (threads > 1)} in each process"
    used = threads // workers * workers
    return f"{workers} batches of {tokens:,} tokens at once, {used} threads in each process"


def _keep_few_primitives() -> None:
    """Have oneDNN forget all but the products that it computed last.

    It plans a product anew for each number of tokens and keeps 1,024 plans, each with a buffer of
    the weights' size. Nearly every window of a long job ends in a number of its own. Both are read
    once, before the first product; what the user has set stays.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(PRIMITIVES))


def onnx_engine(folder: Path, threads: int | None = None, tokens: int | None = None) -> Engine:
    """Runs a folder's `model.onnx`, fp32 or int8 as it was exported.

    Raises:
        InputError: where ONNX Runtime is not installed, or cannot read the file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise InputError("--engine onnx needs ONNX Runtime; pip install -e '.[onnx]'") from None
    file = folder / ONNX
    if not file.is_file():
        raise InputError(
            f"{folder}: expected {ONNX}, found none; scripts/export_onnx.py MODEL OUT writes one"
        )
    threads = threads or hardware_plan.all_threads()
    workers = workers_of(threads)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads // workers  # another number needs the weights again
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(file),
            options,
            providers=["CPUExecutionProvider"],
            # Sum and norm in one took 3 times as long on a CPU as one after the other.
            disabled_optimizers=["SkipLayerNormFusion"],
        )
    except Exception as error:  # of the runtime's own kinds
        why = str(error).partition("\n")[0]
        raise InputError(f"{file}: ONNX Runtime cannot read it ({why}); export it anew") from None
    names = {each.name for each in session.get_inputs()}

    def run(table: TokenTable, rows: Rows, threads: int) -> Tensor:
        given = table.batch(rows, torch.device("cpu"))
        arrays = {name: value.numpy() for name, value in given.items() if name in names}
        logits = torch.from_numpy(session.run(["logits"], arrays)[0])
        return table.pooled(logits.float(), rows)

    with file.open("rb") as stream:
        identity = hashlib.file_digest(stream, "sha256").hexdigest()
    budget = tokens or 512
    return Engine(
        run=run,
        classes=int(session.get_outputs()[0].shape[-1]),
        budget=budget,
        threads=threads,
        workers=workers,
        reasons=(
            f"ONNX Runtime {onnxruntime.__version__}: {file}",
            _room(budget, threads, workers),
        ),
        identity=identity,
    )
