"""The frozen layers at the encoder's start → what they make of each row, computed once.

Frozen layers without dropout give the same states for the same row in every epoch. So they are
computed once, kept on disk, and mapped into memory: every later step begins where training does.

    rows' tokens ──frozen layers──▶ states on disk ──trained layers──▶ logits

With the whole encoder frozen and the linear head, what is kept is one vector for each piece;
else the states of each token. A kept file is found again by a hash of all that decides its
numbers: the frozen weights, the tokens, the precision.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from finetune.compute import micro_batches
from finetune.compute.hardware_plan import Hardware
from finetune.config import schema
from finetune.modeling.freezing import encoder_layers
from finetune.modeling.modeling_document_classifier import DocumentClassifier
from finetune.modeling.saved_model import weights_hash
from finetune.runtime.console import print_wrapped
from finetune.runtime.errors import explain_write_errors
from finetune.tokenization.token_table import Rows, TokenTable

LEFT = 24 * 3600.0  # seconds after which what stands aside is nobody's
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
STATES = "prefix_states"  # the name under which a batch carries them to the model


@dataclass(frozen=True)
class CachedTable(TokenTable):
    """A table whose batches also carry what the frozen layers made of their rows.

    Attributes:
        states: (tokens, hidden), or where whole pieces are summed up (pieces, hidden).
        summed: whether they are.
    """

    states: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    summed: bool = False

    def batch(self, rows: Rows, device: torch.device) -> dict[str, torch.Tensor]:
        """The inputs of some rows, with states: (pieces, longest, hidden) or (pieces, hidden)."""
        pieces = self.pieces(rows)
        if self.summed:
            one = torch.ones(len(pieces), 1, dtype=torch.long, device=device)  # nothing reads them
            states = self.states[torch.from_numpy(pieces)].to(device)
            return {"input_ids": one, "attention_mask": one, STATES: states}
        inputs = super().batch(rows, device)
        states = torch.zeros(*inputs["input_ids"].shape, self.states.shape[1])
        for i, piece in enumerate(pieces):
            some = self.states[self.span(piece)]
            states[i, : len(some)] = some
        return inputs | {STATES: states.to(device)}


class FrozenPrefix:
    """The frozen start of a model, which is skipped where a batch carries its states.

    Attributes:
        boundary: how many layers are skipped.
        pooled: whether all are, and the pooling too.
        in_pairs: whether layers give (states, None), as DeBERTa's do, and not the states alone.
    """

    def __init__(self, model: PreTrainedModel, boundary: int, pooled: bool) -> None:
        self.boundary, self.pooled, self.in_pairs = boundary, pooled, False
        self._given: torch.Tensor | None = None  # the states that the batch under way carries
        self._seen: list[torch.Tensor] | None = None  # where to put what the model computes there
        model.register_forward_pre_hook(self._take, with_kwargs=True)
        model.register_forward_hook(self._forget)
        if pooled:
            assert isinstance(model, DocumentClassifier)
            encoder, pool = model.encoder.forward, model.pool
            model.encoder.forward = partial(self._encode, encoder)
            model.pool = partial(self._pool, pool)  # type: ignore[method-assign]
            return
        for i, block in enumerate(encoder_layers(model.base_model)[:boundary]):
            block.forward = partial(self._layer, block.forward, i == boundary - 1)

    def states(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """What the model makes of a batch at the boundary: (rows, longest, hidden), or pooled."""
        self._seen = []
        model(**inputs)
        [seen], self._seen = self._seen, None
        return seen

    def _take(self, model: Any, given: Any, named: dict[str, Any]) -> Any:
        self._given = named.pop(STATES, None)
        return given, named

    def _forget(self, model: Any, given: Any, output: Any) -> None:
        self._given = None

    def _encode(self, forward: Any, *given: Any, **named: Any) -> Any:
        if self._given is None:
            return forward(*given, **named)
        return BaseModelOutput(last_hidden_state=self._given)

    def _pool(self, pool: Any, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self._given is not None:
            return self._given
        pooled: torch.Tensor = pool(states, mask)
        self._note(pooled)
        return pooled

    def _layer(self, forward: Any, last: bool, states: Any, *more: Any, **named: Any) -> Any:
        if self._given is not None:
            passed = self._given if last else states
            return (passed, None) if self.in_pairs else passed
        output = forward(states, *more, **named)
        if last:
            self._note(output[0] if isinstance(output, tuple) else output)
        return output

    def _note(self, states: torch.Tensor) -> None:
        if self._seen is not None:
            self._seen.append(states)


def attach_frozen_prefix(
    model: PreTrainedModel, choices: schema.Recipe, epochs: float
) -> FrozenPrefix | None:
    """Make a model skip its frozen start where it can; None where that would bring nothing.

    A model that is not understood is left alone: that the skipping gives the same logits is tried
    on two short rows.

    Args:
        epochs: how often training passes over its rows.
    """
    if choices.cache.frozen_states == "off" or epochs <= 1:
        return None
    encoder = model.base_model
    blocks = encoder_layers(encoder)
    trained = [any(p.requires_grad for p in block.parameters()) for block in blocks]
    boundary = trained.index(True) if True in trained else len(trained)
    whole = not any(p.requires_grad for p in encoder.parameters())
    pooled = whole and isinstance(model, DocumentClassifier)
    below = [encoder] if pooled else [*blocks[:boundary]]
    first: Any = model.get_input_embeddings()
    if boundary == 0 or first.weight.requires_grad or _drops(below, encoder.config):
        return None
    prefix = FrozenPrefix(model, boundary, pooled)
    return prefix if _is_sound(prefix, model) else None


def _drops(below: Sequence[torch.nn.Module], config: Any) -> bool:
    """Whether dropout makes the frozen layers' states differ from one time to the next."""
    modules = [module for part in below for module in part.modules()]
    return any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in modules) or any(
        getattr(config, name, 0) for name in ("attention_dropout", "attention_probs_dropout_prob")
    )


def _is_sound(prefix: FrozenPrefix, model: PreTrainedModel) -> bool:
    """Whether states depend on frozen weights alone, and give the logits of the whole model.

    Tried on two short rows. DeBERTa's layers, for one, share a table that goes on being trained.
    """
    ids = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    inputs = {"input_ids": ids, "attention_mask": mask}
    with torch.enable_grad():
        states = prefix.states(model, inputs)
    if states.requires_grad:
        return False
    with torch.no_grad():
        return any(_gives_the_same(prefix, model, inputs, states, pairs) for pairs in (False, True))


def _gives_the_same(
    prefix: FrozenPrefix,
    model: PreTrainedModel,
    inputs: dict[str, torch.Tensor],
    states: torch.Tensor,
    in_pairs: bool,
) -> bool:
    prefix.in_pairs = in_pairs
    wanted = model(**inputs).logits
    try:
        found = model(**inputs, **{STATES: states}).logits
    except Exception:  # whatever an encoder does with what it did not expect
        prefix._given = None
        return False
    return torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


def fill_cache(
    prefix: FrozenPrefix,
    model: torch.nn.Module,
    tables: dict[str, TokenTable],
    choices: schema.Recipe,
    plan: Hardware,
    accelerator: Accelerator,
) -> dict[str, TokenTable]:
    """The tables with their rows' states, computed here or found from an earlier run.

    Args:
        model: prepared by the accelerator.
        tables: train and validation; what is scored once only is better computed as it comes.

    Raises:
        InputError: where they cannot be written.
    """
    bare = accelerator.unwrap_model(model, keep_torch_compile=False)
    frozen = {n: p for n, p in bare.named_parameters() if not p.requires_grad}
    common = [
        weights_hash(frozen), type(bare).__name__, getattr(bare.config, "pooling", None),
        bare.base_model.config._attn_implementation, prefix.boundary, prefix.pooled,
        plan.precision, plan.device, plan.micro_batch_tokens, torch.__version__,
    ]  # fmt: skip
    kind = torch.float32 if prefix.pooled else DTYPES[cache_dtype(choices, plan)]
    hidden = int(bare.base_model.config.hidden_size)
    folder = choices.cache.folder()
    filled: dict[str, TokenTable] = {}
    for name, table in tables.items():
        many = len(table.starts) - 1 if prefix.pooled else len(table.ids)
        size = many * hidden * kind.itemsize
        file = folder / f"prefix-{_key(common, table, kind)}.bin"
        found = _everywhere(accelerator, file.is_file() and file.stat().st_size == size)
        if not found and not _everywhere(accelerator, _has_room(folder, size)):
            print_wrapped(
                f"no room in {folder} for {_megabytes(size)} of frozen states of {name}; they are "
                "computed anew in each epoch (cache.dir)",
                mark="  ! ",
            )
            filled[name] = table
            continue
        verb = "found" if found else "computing"
        print_wrapped(
            f"frozen states of {name}: {verb} {_megabytes(size)} in {folder}", mark="       "
        )
        if not found:
            _compute(prefix, model, table, file, many, hidden, kind, plan, accelerator)
        states = torch.from_file(str(file), shared=False, size=many * hidden, dtype=kind).view(
            many, hidden
        )
        fields = {f.name: getattr(table, f.name) for f in dataclasses.fields(TokenTable)}
        filled[name] = CachedTable(**fields, states=states, summed=prefix.pooled)
        if not choices.cache.keep:
            accelerator.wait_for_everyone()
            if accelerator.is_local_main_process:
                file.unlink(missing_ok=True)  # stays readable for those who have it open
    return filled


def cache_dtype(choices: schema.Recipe, plan: Hardware) -> str:
    """In what precision states of tokens are kept."""
    if choices.cache.frozen_states != "auto":
        return choices.cache.frozen_states
    return "bf16" if plan.precision == "bf16" else "fp32"


def _compute(
    prefix: FrozenPrefix,
    model: torch.nn.Module,
    table: TokenTable,
    file: Path,
    many: int,
    hidden: int,
    kind: torch.dtype,
    plan: Hardware,
    accelerator: Accelerator,
) -> None:
    """Each process of a machine writes its part into one file, which is put in place whole."""
    # A name of this run's own on this machine: another may be at the same states.
    [own] = broadcast_object_list([uuid.uuid4().hex[:12]])
    first = accelerator.process_index - accelerator.local_process_index
    aside = file.with_name(f".{file.name}.{own}.{first}.new")

    def create() -> None:
        with explain_write_errors(aside):
            aside.parent.mkdir(parents=True, exist_ok=True)
            for left in aside.parent.glob(".prefix-*.new"):  # by a run that was killed
                if time.time() - left.stat().st_mtime > LEFT:
                    left.unlink(missing_ok=True)
            with aside.open("wb") as out:
                out.truncate(many * hidden * kind.itemsize)
                if hasattr(os, "posix_fallocate"):  # a full disk now, not a crash in the middle
                    os.posix_fallocate(out.fileno(), 0, many * hidden * kind.itemsize)

    if accelerator.is_local_main_process:
        create()
    accelerator.wait_for_everyone()
    states = torch.from_file(str(aside), shared=True, size=many * hidden, dtype=kind)
    states = states.view(many, hidden)
    per_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    parts = micro_batches.micro_batches(np.arange(len(table)), table.room, plan.micro_batch_tokens)
    was_training = model.training
    model.eval()
    with torch.no_grad(), accelerator.autocast():
        for rows in parts[accelerator.local_process_index :: per_machine]:
            inputs = table.batch(rows, accelerator.device)
            seen = prefix.states(model, inputs).to("cpu", kind)
            pieces = table.pieces(rows)
            if prefix.pooled:
                states[torch.from_numpy(pieces)] = seen
                continue
            for i, piece in enumerate(pieces):
                span = table.span(piece)
                states[span] = seen[i, : span.stop - span.start]
    model.train(was_training)
    accelerator.wait_for_everyone()
    if accelerator.is_local_main_process:
        with explain_write_errors(file):
            with aside.open("rb") as written:
                os.fsync(written.fileno())
            aside.replace(file)
    accelerator.wait_for_everyone()


def _key(common: Sequence[Any], table: TokenTable, kind: torch.dtype) -> str:
    digest = hashlib.sha256(json.dumps([*common, str(kind)], default=str).encode())
    for part in (table.ids, table.starts, table.seconds):
        if part is None:
            continue
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()[:24]


def _everywhere(accelerator: Accelerator, here: bool) -> bool:
    """Whether something holds on every process."""
    lacking = torch.tensor([int(not here)], device=accelerator.device)
    return int(accelerator.reduce(lacking).item()) == 0


def _has_room(folder: Path, size: int) -> bool:
    standing = next(path for path in (folder, *folder.parents) if path.is_dir())
    return size < shutil.disk_usage(standing).free // 2


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.3g} MB" if size < 1e8 else f"{size / 1e9:,.1f} GB"
