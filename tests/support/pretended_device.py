"""A device that is computed on the CPU, and tells whenever the host would wait for it.

    pretended_device.py {"precision": "fp16", …}    # → waits of steps, scoring, predicting

A GPU works behind the host, which hands it its tasks. Where the host asks for a number (`item()`,
`if tensor:`, a mask as an index), or copies to or from memory that is not pinned, it waits until
the GPU has caught up. A tensor of the pretended device holds one of the CPU; every operation on it
passes through `compute`, which notes what would wait, and refuses to mix devices, as a GPU does.

This registers a backend with torch for the rest of the process, so it runs in one of its own.
"""

import json
import os
import sys
import traceback
from functools import partial

import numpy as np
import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
NAME = "pretended"
STEPS = {"log_every": 3, "max_steps": 9, "epochs": 9, "batch_size": 16}
waits = []  # what each was, and where
pinned = set()  # addresses of pinned memory

READS = {aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default}
# The size of their result is not known before they are done, or their kernel reads an argument.
READ_INSIDE = {
    aten.segment_reduce.default, aten.nonzero.default, aten.masked_select.default,
    aten._unique2.default, aten.repeat_interleave.Tensor, aten.equal.default, aten.bincount.default,
}  # fmt: skip
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class Backend(backend_registration._DummyBackendModule):
    """What torch asks a backend for."""

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, *device):
        return torch.zeros(1, dtype=torch.uint8)

    def set_rng_state(self, *given):
        """Random numbers are the CPU's."""


class OnDevice(torch.Tensor):
    """A tensor of the pretended device; `held` has its numbers."""

    @staticmethod
    def __new__(cls, held):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, layout=held.layout, device=torch.device(NAME, 0),
        )  # fmt: skip
        tensor.held = held
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})

    def tolist(self):
        note("read")
        return self.held.tolist()

    def __repr__(self):
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"


class Everywhere(TorchDispatchMode):
    """Operations that create tensors on the device come from here."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def note(what):
    here = [
        frame
        for frame in traceback.extract_stack()
        if any(part in frame.filename for part in ("/finetune/", "/transformers/", "/torch/optim"))
    ]
    last = here[-1] if here else None
    waits.append((what, f"{last.filename}:{last.lineno} {last.line}" if last else "?"))


def held(value):
    return value.held if isinstance(value, OnDevice) else value


def wrapped(value):
    return OnDevice(value) if type(value) is torch.Tensor else value


def compute(func, args, kwargs):
    """Do what was asked on the CPU, and note where a GPU would have made the host wait."""
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    of_device = [one for one in tensors if isinstance(one, OnDevice)]
    of_host = [one for one in tensors if not isinstance(one, OnDevice)]
    named = {name: value for name, value in kwargs.items() if name != "device"}
    asked = kwargs.get("device")
    target = None if asked is None else torch.device(asked).type
    if func is aten._to_copy.default:
        return copied(func, args[0], named, target)
    if target is not None:  # a new tensor
        made = func(*tree_map(held, args), **tree_map(held, named), device="cpu")
        return OnDevice(made) if target == NAME else made
    if not of_device:
        return func(*args, **kwargs)
    if func in READS:
        note("read")
        return func(held(args[0]))
    # `segment_reduce` looks at its lengths unless it is told that they are right.
    if func in READ_INSIDE and not named.get("unsafe", False):
        note(f"read in {func}")
    check_copies(func, args, of_host)
    result = func(*tree_map(held, args), **tree_map(held, kwargs))
    return results(func, args, kwargs, result)


def copied(func, source, named, target):
    """`.to(…)`: of a type, or from one device to the other."""
    unblocked = named.pop("non_blocking", False)
    named.pop("pin_memory", None)
    on_device = isinstance(source, OnDevice)
    made = func(held(source), **named)
    to_device = on_device if target is None else target == NAME
    if to_device and not on_device and not (unblocked and source.data_ptr() in pinned):
        note("copy to the device from memory that is not pinned")
    if on_device and not to_device:
        note("copy to the host")
    return OnDevice(made) if to_device else made


def check_copies(func, args, of_host):
    """Tensors of the host among those of the device: as an index, or by mistake."""
    if func is aten.copy_.default and of_host:
        note("copy between host and device")
        return
    if func in INDEXED:
        for index in args[1]:
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                note("read of a mask")
            elif index is not None and not isinstance(index, OnDevice):
                note("copy of an index")
        of_host = [one for one in of_host if not any(one is index for index in args[1])]
    if any(one.dim() for one in of_host):
        raise RuntimeError(f"{func}: expected all tensors on {NAME}, got one on the CPU")


def results(func, args, kwargs, result):
    """Tensors of the device; where the operation wrote into an argument, that argument."""
    given = {}
    for place, argument in enumerate(func._schema.arguments):
        value = args[place] if place < len(args) else kwargs.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write:
            given |= dict.fromkeys(argument.alias_info.before_set, value)
    kinds = func._schema.returns
    if not kinds:  # it only writes, as fused optimizers do
        return None
    several = len(kinds) > 1
    made = [
        given[next(iter(kind.alias_info.before_set))]
        if kind.alias_info is not None and kind.alias_info.is_write
        else tree_map(wrapped, one)
        for kind, one in zip(kinds, result if several else [result], strict=True)
    ]
    return tuple(made) if several else (made[0] if made else result)


# --- a training on it -----------------------------------------------------------------------------


# What autocast computes in 16 bits on CUDA, and what in fp32, of all that a run uses.
LOW = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "scaled_dot_product_attention")
EXACT = ("layer_norm", "softmax.int", "log_softmax.int", "nll_loss", "cross_entropy_loss")
libraries = []  # which torch forgets when Python does


def install_autocast():
    """Give the device the autocast that CUDA has."""
    rest = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    rest.fallback(torch.library.fallthrough_kernel)
    named = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    libraries.extend([rest, named])
    for names, is_low in ((LOW, True), (EXACT, False)):
        for name in names:
            packet, _, overload = name.partition(".")
            operation = getattr(getattr(aten, packet), overload or "default")
            named.impl(name, partial(cast_and_compute, operation, is_low))


def cast_and_compute(operation, is_low, *args, **kwargs):
    """As autocast does it: floating numbers are cast, and the operation follows."""
    dtype = torch.get_autocast_dtype(NAME) if is_low else torch.float32

    def cast(value):
        is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(dtype) if is_float and value.device.type == NAME else value

    args, kwargs = tree_map(cast, args), tree_map(cast, kwargs)
    autocast = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
    with torch._C._ExcludeDispatchKeyGuard(autocast):
        return operation(*args, **kwargs)


def install():
    """Have torch and accelerate take the pretended device for one that they know."""
    from accelerate import PartialState

    from finetune.runtime import device_copies

    os.environ.pop("ACCELERATE_USE_CPU", None)  # else its state would refuse the device
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    install_autocast()
    device_copies.PINNED = (NAME,)

    def pin(tensor):
        copy = tensor.clone()
        pinned.add(copy.data_ptr())
        kept.append(copy)
        return copy

    kept = []
    torch.Tensor.pin_memory = pin
    PartialState._shared_state["device"] = torch.device(NAME, 0)


def move(model):
    """`model.to(device)`, which torch does not do for tensors of Python."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                moved = OnDevice(parameter.detach().clone())
                module._parameters[name] = torch.nn.Parameter(moved, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = OnDevice(buffer.clone())


def table_of(lengths, draw, windows):
    """A token table of random ids; with windows, documents of one to three pieces."""
    from finetune.tokenization.token_table import TokenTable, range_starts

    if not windows:
        ids = draw.integers(5, 90, lengths.sum()).astype(np.int32)
        return TokenTable(ids, range_starts(lengths), lengths, 0)
    many = draw.integers(1, 4, len(lengths))
    sizes = np.concatenate([[30] * (n - 1) + [int(x)] for n, x in zip(many, lengths, strict=True)])
    first = range_starts(many)
    full = np.add.reduceat(sizes, first[:-1])
    ids = draw.integers(5, 90, sizes.sum()).astype(np.int32)
    return TokenTable(ids, range_starts(sizes), full, 0, first=first, kept=full)


def train(encoder, asked):
    """Some steps of the loop, a scoring and a window of predictions: the waits of each."""
    from accelerate import Accelerator

    from finetune.compute import forward
    from finetune.compute.checkpointing import enable_checkpointing
    from finetune.compute.flat_model import attach_flat_rows
    from finetune.compute.flat_table import FlatTable
    from finetune.compute.padding_masks import kept_padding_masks
    from finetune.config import schema
    from finetune.evaluation import scoring
    from finetune.inference.engine import Engine
    from finetune.modeling import build
    from finetune.training import loop, schedule
    from finetune.training.optimizer import build_optimizer
    from finetune.training.row_losses import TrainingRows
    from finetune.training.train_log import TrainLog

    precision, draw = asked.pop("precision", "fp32"), np.random.default_rng(0)
    windows, weighted, multi, flat = (
        asked.pop(k, False) for k in ("windows", "weights", "multi", "flat")
    )
    model_keys = {"freeze": "none"} | asked.pop("model", {})
    recipe = schema.Recipe(
        data=schema.Data(source="x"),
        model=schema.Model(source=encoder, **model_keys),
        train=schema.Train(**STEPS, **asked.pop("train", {})),
        optim=schema.Optim(**{"lr": 0.01} | asked.pop("optim", {})),
    )
    assert not asked, f"unknown: {asked}"
    attention = "eager" if recipe.model.attention == "eager" else "sdpa"
    accelerator = Accelerator(cpu=True, mixed_precision="bf16" if precision == "bf16" else "no")
    model = build.build_classifier(encoder, recipe.model, ["a", "b", "c"], attention, seed=0)
    if recipe.train.checkpointing == "on":
        enable_checkpointing(model)
    install()
    accelerator.state.device = torch.device(NAME, 0)
    move(model)
    optimizer = build_optimizer(model, recipe.optim, fused=precision == "fp16")
    table = table_of(draw.integers(4, 30, 48), draw, windows)
    if flat:
        attach_flat_rows(model)
        table = FlatTable.of(table, model, None)
    labels = (draw.random((48, 3)) < 0.4).astype(np.float32) if multi else draw.integers(0, 3, 48)
    weights = np.array([1.0, 2.0, 3.0]) if weighted else None
    marks = []
    with Everywhere():
        prepared = accelerator.prepare_model(model, device_placement=False)
        if precision == "fp16":
            accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler(NAME)
            accelerator.state._mixed_precision = "fp16"
        stepped = accelerator.prepare_optimizer(optimizer, device_placement=False)
        log = TrainLog(accelerator, recipe.optim.max_grad_norm)
        loop.fit(
            prepared, stepped, TrainingRows(table, labels, 256, weights),
            schedule.Schedule.of(recipe, 48), recipe, accelerator, log,
            loop.Callbacks(after_step=lambda step, scored: bool(marks.append(len(waits)))),
        )  # fmt: skip
        trained = len(waits)
        logits = scoring.compute_logits(prepared, table, accelerator, 256)
        scored = len(waits)

        def run(table, rows, threads):
            return forward.forward_rows(prepared, table, rows, torch.device(NAME, 0))

        engine = Engine(run, 3, 256, threads=1, workers=1, reasons=(), identity="")
        with torch.no_grad(), kept_padding_masks(NAME):
            predicted = engine.outputs(table.by_piece() if windows else table)
        assert len(predicted) >= 48
    assert logits.shape == (48, 3)
    assert np.isfinite(logits).all()
    ends = [0, *marks]
    steps = {step: waits[ends[step - 1] : ends[step]] for step in range(1, 10)}
    return {"steps": steps, "scoring": waits[trained:scored], "predicting": waits[scored:]}


def main():
    torch.set_num_threads(1)
    encoder, asked = sys.argv[1:]
    print(json.dumps(train(encoder, json.loads(asked))))


if __name__ == "__main__":
    main()
