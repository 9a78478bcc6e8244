"""A folder that `finetune export` wrote → an engine of ONNX Runtime, on the CPU."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedTokenizerBase

from finetune.compute import hardware_plan
from finetune.inference.engine import Engine, count_workers, describe_batches
from finetune.inference.engines import ENGINES, ONNX, EngineOptions, LoadedModel, ModelSource
from finetune.modeling import (
    load_errors,
    model_identity,
    pretrained,
    source_checks,
    tokenizer_fit,
)
from finetune.modeling.load_errors import first_line
from finetune.runtime import telemetry
from finetune.runtime.commands import command
from finetune.runtime.errors import InputError
from finetune.runtime.memory_errors import reraise_memory_error
from finetune.tokenization.token_table import Rows, TokenTable

BATCH_TOKENS = 512


def load(source: ModelSource, options: EngineOptions) -> LoadedModel:
    """The config and the tokenizer; the graph where the engine is built.

    Raises:
        InputError: where the folder was not exported.
    """
    config, tokenizer = load_exported(source)
    folder, graph = Path(source.name), source.graph
    return LoadedModel(
        config, tokenizer, lambda: onnx_engine(folder, options.threads, options.tokens, graph)
    )


def load_exported(source: ModelSource) -> tuple[Any, PreTrainedTokenizerBase]:
    """The config and the tokenizer of an exported folder.

    Raises:
        InputError: where the folder was not exported.
    """
    folder = Path(source.name)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder}: expected a folder that finetune export wrote, with config.json"
        )
    source_checks.check_links(folder, source.name)
    with pretrained.silence_loading(), load_errors.explain_load_errors(source.name, source.name):
        source_checks.check_config(str(folder), source.name, classifier=True)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=source.trust_remote_code)
        tokenizer = tokenizer_fit.read_tokenizer(
            str(folder),
            source.name,
            pretrained.encoder_config(config),
            trust_remote_code=source.trust_remote_code,
        )
    model_identity.check_identity(source.name, source.name, config, tokenizer, tell=True)
    return config, tokenizer


def onnx_engine(
    folder: Path, threads: int | None = None, tokens: int | None = None, graph: str | None = None
) -> Engine:
    """Runs a folder's `model.onnx`, fp32 or int8 as it was exported.

    Args:
        graph: another file of the folder.

    Raises:
        InputError: where ONNX Runtime cannot read the file.
    """
    file = ENGINES["onnx"].find_file(folder, graph)
    if file is None:
        raise InputError(
            f"{folder}: expected {ONNX}, found none; {command('export', 'MODEL', 'OUT')} writes one"
        )
    threads = threads or hardware_plan.all_threads()
    workers = count_workers(threads)
    session = _open_session(file, threads // workers)
    names = {each.name for each in session.get_inputs()}

    def run(table: TokenTable, rows: Rows, threads: int) -> Tensor:
        inputs = table.batch(rows, torch.device("cpu"))
        arrays = {name: value.numpy() for name, value in inputs.items() if name in names}
        try:
            logits = torch.from_numpy(session.run(["logits"], arrays)[0])
        except Exception as error:  # of the runtime's own kinds: an id that a table lacks, say
            if "alloc" in str(error):  # which is no fault of the file
                raise
            raise InputError(
                f"{file}: ONNX Runtime cannot compute it ({first_line(error)}); export it again"
            ) from None
        return table.pooled(logits.float(), rows)

    classes = next(
        (one.shape[-1] for one in session.get_outputs() if one.name == "logits" and one.shape), None
    )
    if not isinstance(classes, int):
        raise InputError(f"{file}: expected the output logits (rows, classes); export it again")
    with file.open("rb") as stream:
        identity = hashlib.file_digest(stream, "sha256").hexdigest()
    budget = tokens or BATCH_TOKENS
    return Engine(
        run=run,
        classes=classes,
        budget=budget,
        threads=threads,
        workers=workers,
        reasons=(
            f"ONNX Runtime {version('onnxruntime')}: {file}",
            describe_batches(budget, threads, workers),
        ),
        identity=identity,
    )


def _open_session(file: Path, threads: int) -> Any:
    onnxruntime = telemetry.import_silently("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # another number needs the weights again
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(file),
            options,
            providers=["CPUExecutionProvider"],
            # Sum and norm in one took 3 times as long on a CPU as one after the other.
            disabled_optimizers=["SkipLayerNormFusion"],
        )
    except Exception as error:  # of the runtime's own kinds
        reraise_memory_error(error)
        why = str(error).partition("\n")[0]
        raise InputError(f"{file}: ONNX Runtime cannot read it ({why}); export it again") from None
