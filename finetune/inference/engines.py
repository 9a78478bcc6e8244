"""The table of engines: what can compute a classifier's logits, and what each needs installed.

    engine = pick_engine(None, folder)                      # "onnx" where the folder was exported
    loaded = load_model(engine, ModelSource(folder), EngineOptions())
    loaded.build().logits(table)                            # (rows, classes) float32

A new engine is one entry in `ENGINES` and a module with its `load`. This module imports none of
them, so that command lines can name them at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.runtime.commands import install
from finetune.runtime.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from finetune.inference.engine import Engine

ONNX = "model.onnx"  # the file that makes a folder one of ONNX Runtime's
OPENVINO = "openvino_model.xml"  # OpenVINO's; its weights are in openvino_model.bin
STANDARD_ONNX = "onnx/model.onnx"  # the same, where other libraries look for it
STANDARD_INT8 = "onnx/model_quantized.onnx"  # beside it
AUTO = "auto"  # the fastest that predicts the same; `engine_choice.py` finds it
KEPT = 0.998  # of torch's labels: what a faster way to compute must give to be chosen by itself


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: a folder or a Hub id, and how transformers may load it.

    Attributes:
        graph: of an exported folder, the file that is computed; None: the first that its engine
            reads.
    """

    name: str
    revision: str | None = None
    trust_remote_code: bool = False
    graph: str | None = None


@dataclass(frozen=True)
class EngineOptions:
    """How an engine computes.

    Attributes:
        precision: auto, bf16, fp16 or fp32; of torch.
        threads: of a CPU; None: all cores.
        tokens: computed at once, which bounds memory; None: as the hardware plan says.
        device: where torch computes; None: as the hardware plan says.
        in_turn: compute one batch after another, with all threads, as scoring in training does.
        packing: compute rows end to end, where torch can.
        states: also give what the model's head reads of each row, where torch computes.
    """

    precision: str = "auto"
    threads: int | None = None
    tokens: int | None = None
    device: "torch.device | None" = None
    in_turn: bool = False
    packing: bool = True
    states: bool = False


@dataclass(frozen=True)
class LoadedModel:
    """A model's config and tokenizer, and how to build its engine.

    Attributes:
        build: makes its engine; of torch, `states=True`: one that gives states too.
        hidden: numbers that its head reads of a row; 0: not known.
    """

    config: Any
    tokenizer: "PreTrainedTokenizerBase"
    build: "Callable[..., Engine]"
    hidden: int = 0


@dataclass(frozen=True)
class EngineEntry:
    """One engine.

    Attributes:
        module: of this package, with `load(source, options) -> LoadedModel`.
        requires: the library that it needs, as it is imported.
        library: the same, as people call it.
        install: the command that installs it.
        files: in a model folder, each marks it as this engine's, the one that it computes where
            there are several first; none: any model folder.
        also_reads: files of other engines that it computes too.
    """

    module: str
    requires: str
    library: str
    install: str
    files: tuple[str, ...] = ()
    also_reads: tuple[str, ...] = ()

    @property
    def is_installed(self) -> bool:
        """Whether its library is there."""
        return find_spec(self.requires) is not None

    def find_graphs(self, folder: str | Path, only_own: bool = False) -> list[str]:
        """The files that it reads in a folder, by name, the one that it computes first.

        Args:
            only_own: not those of other engines.
        """
        names = self.files if only_own else (*self.files, *self.also_reads)
        return [name for name in names if (Path(folder) / name).is_file()]

    def find_file(self, folder: str | Path, graph: str | None = None) -> Path | None:
        """The file that it computes in a folder; None where there is none.

        Args:
            graph: its name; None: the first.
        """
        found = self.find_graphs(folder) if graph is None else [graph]
        return Path(folder) / found[0] if found else None


ENGINES = {
    "torch": EngineEntry(
        module="finetune.inference.torch_engine",
        requires="torch",
        library="PyTorch",
        install="pip install finetune-documents",
    ),
    "onnx": EngineEntry(
        module="finetune.inference.onnx_engine",
        requires="onnxruntime",
        library="ONNX Runtime",
        install=install("onnx"),
        files=(ONNX, STANDARD_ONNX, STANDARD_INT8),
    ),
    "openvino": EngineEntry(
        module="finetune.inference.openvino_engine",
        requires="openvino",
        library="OpenVINO",
        install=install("openvino"),
        files=(OPENVINO,),
        also_reads=(ONNX, STANDARD_ONNX, STANDARD_INT8),
    ),
}


def pick_engine(name: str | None, folder: str) -> str:
    """The engine that was asked for; None: the one whose file is in the folder, or torch.

    Where that one is not installed, another that reads the file takes its place.
    """
    if name is not None:
        return name
    has_weights = any(Path(folder).glob("*.safetensors"))  # beside which a graph is a second copy
    second = {STANDARD_ONNX, STANDARD_INT8} if has_weights else set()
    of_folder = [
        known
        for only_own in (True, False)
        for known, entry in ENGINES.items()
        if not second.issuperset(entry.find_graphs(folder, only_own))
    ]
    installed = (known for known in of_folder if ENGINES[known].is_installed)
    return next(installed, next(iter(of_folder), "torch"))


def load_model(name: str, source: ModelSource, options: EngineOptions) -> LoadedModel:
    """Load a model for an engine.

    Raises:
        InputError: where its library is not installed, or the model cannot be loaded.
    """
    entry = ENGINES[name]
    if not entry.is_installed:
        raise InputError(f"--engine {name} needs {entry.library}; {entry.install}")
    loaded: LoadedModel = import_module(entry.module).load(source, options)
    return loaded
