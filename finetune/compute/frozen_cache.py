"""Rows → what a model's frozen layers make of them, computed once and kept on disk.

    tokens ──frozen layers──▶ states on disk ──trained layers──▶ logits

The states are mapped into memory, and every later step begins where training does. With the whole
encoder frozen and the linear head, one vector is kept for each piece; else the states of each
token. A kept file is found again by a hash of all that decides its numbers: the frozen weights,
the tokens, the precision. Its name ends in its checksum, which is compared when it is found again.
Where the folder is full or cannot be written, states are computed in every epoch.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from finetune.compute import micro_batches
from finetune.compute.cached_table import CachedTable
from finetune.compute.frozen_prefix import FrozenPrefix
from finetune.compute.hardware_plan import Hardware
from finetune.compute.padding_masks import kept_padding_masks
from finetune.config import schema
from finetune.modeling.saved_model import weights_hash
from finetune.runtime import cache_folder
from finetune.runtime.atomic_files import fsync_path, move_into_place, remove_mapped
from finetune.runtime.console import print_wrapped
from finetune.tokenization.token_table import TokenTable

LONG = 1e9  # bytes that take long enough to read that it is said
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class StatesFile:
    """A table's states on disk: raw numbers (vectors, hidden), without a header.

    Attributes:
        vectors: one for each token; of states that are pooled, one for each piece.
    """

    path: Path
    vectors: int
    hidden: int
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """In bytes."""
        return self.vectors * self.hidden * self.dtype.itemsize

    def newest(self) -> "StatesFile | None":
        """The file that was put in place just now, whose name has its checksum."""
        there = [
            (path.stat().st_mtime, path)
            for path in self.path.parent.glob(f"{self.path.stem}-*.bin")
            if path.stat().st_size == self.size
        ]
        return dataclasses.replace(self, path=max(there)[1]) if there else None

    def verify(self, name: str) -> "StatesFile | None":
        """The kept file, where there is one that is as it was written. This reads it once.

        What is damaged is removed. What cannot be read now stays: it may be whole.
        """
        for path in sorted(self.path.parent.glob(f"{self.path.stem}-*.bin")):
            try:
                if path.stat().st_size >= LONG:
                    print_wrapped(
                        f"frozen states of {name}: checking {_megabytes(path.stat().st_size)} in "
                        f"{path.parent}",
                        mark="       ",
                    )
                is_whole = path.stat().st_size == self.size
                if is_whole and path.stem.endswith(f"-{cache_folder.checksum(path)}"):
                    return dataclasses.replace(self, path=path)
                why = f"{path} is damaged, and is computed anew"
                cache_folder.remove(path)
            except FileNotFoundError:  # another process removed it
                continue
            except OSError as error:
                why = (
                    f"{path} cannot be read, and is computed anew: "
                    f"{cache_folder.describe_failure(error, path.parent)}"
                )
            print_wrapped(f"frozen states of {name}: {why}", mark="  ! ")
        return None

    def fits_on_disk(self) -> bool:
        """Whether it would take less than half of what is free."""
        folder = self.path.parent
        existing = next(path for path in (folder, *folder.parents) if path.is_dir())
        return self.size < shutil.disk_usage(existing).free // 2

    def allocate(self) -> None:
        """Create it at its full size, so that a full disk is noticed now."""
        with self.path.open("wb") as out:
            out.truncate(self.size)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(out.fileno(), 0, self.size)

    def map(self, shared: bool = False) -> torch.Tensor:
        """The file as a tensor, (vectors, hidden); writes reach the file where it is shared."""
        flat = torch.from_file(
            str(self.path), shared=shared, size=self.vectors * self.hidden, dtype=self.dtype
        )
        return flat.view(self.vectors, self.hidden)


def fill_cache(
    prefix: FrozenPrefix,
    model: torch.nn.Module,
    tables: dict[str, TokenTable],
    recipe: schema.Recipe,
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
    dtype = torch.float32 if prefix.pooled else DTYPES[cache_dtype(recipe, plan)]
    hidden = int(bare.base_model.config.hidden_size)
    folder = recipe.cache.folder()
    filled: dict[str, TokenTable] = {}
    for name, table in tables.items():
        vectors = len(table.starts) - 1 if prefix.pooled else len(table.ids)
        path = folder / f"prefix-{_key(common, table, dtype)}.bin"
        found = _find_or_write(
            StatesFile(path, vectors, hidden, dtype), name, table, prefix, model, plan, accelerator,
            recipe.cache,
        )  # fmt: skip
        if found is None:
            filled[name] = table
            continue
        cache_folder.touch(found.path)
        fields = {f.name: getattr(table, f.name) for f in dataclasses.fields(TokenTable)}
        filled[name] = CachedTable(**fields, states=found.map(), pooled_states=prefix.pooled)
        if not recipe.cache.keep:
            accelerator.wait_for_everyone()
            if accelerator.is_local_main_process:
                remove_mapped(found.path)  # stays readable for those who have it open
    return filled


def _find_or_write(
    file: StatesFile,
    name: str,
    table: TokenTable,
    prefix: FrozenPrefix,
    model: torch.nn.Module,
    plan: Hardware,
    accelerator: Accelerator,
    cache: schema.Cache,
) -> StatesFile | None:
    """The file of a split's states, of an earlier run or written here; None: they are not kept."""
    kept = _verify_on_local_main(file, name, accelerator)
    is_cached = _on_all_processes(accelerator, kept is not None)
    if not is_cached and not _on_all_processes(accelerator, file.fits_on_disk()):
        print_wrapped(
            f"frozen states of {name}: {_megabytes(file.size)} would fill the disk of "
            f"{file.path.parent} (cache.dir), so they are computed again in every epoch",
            mark="  ! ",
        )
        return None
    verb = "found" if is_cached else "computing"
    print_wrapped(
        f"frozen states of {name}: {verb} {_megabytes(file.size)} in {file.path.parent}",
        mark="       ",
    )
    if not is_cached:
        why = _write_states(file, prefix, model, table, plan, accelerator, cache)
        if why is not None:
            print_wrapped(
                f"frozen states of {name} are not kept, so they are computed again in every "
                f"epoch: {why}",
                mark="  ! ",
            )
            return None
        kept = file.newest()
    return kept or file


def _verify_on_local_main(
    file: StatesFile, name: str, accelerator: Accelerator
) -> StatesFile | None:
    """The kept file of this machine, which one of its processes has read."""
    machine = accelerator.process_index - accelerator.local_process_index
    verified = {}
    if accelerator.is_local_main_process:
        kept = file.verify(name)
        verified = {machine: None if kept is None else str(kept.path)}
    everywhere = {place: path for one in gather_object([verified]) for place, path in one.items()}
    path = everywhere[machine]
    return None if path is None else dataclasses.replace(file, path=Path(path))


def cache_dtype(recipe: schema.Recipe, plan: Hardware) -> str:
    """In what precision states of tokens are kept."""
    if recipe.cache.frozen_states != "auto":
        return recipe.cache.frozen_states
    return "bf16" if plan.precision == "bf16" else "fp32"


def _write_states(
    file: StatesFile,
    prefix: FrozenPrefix,
    model: torch.nn.Module,
    table: TokenTable,
    plan: Hardware,
    accelerator: Accelerator,
    cache: schema.Cache,
) -> str | None:
    """Each process of a machine writes its share into one file, which is put in place whole.

    Returns:
        Why that is not possible; else None.
    """
    # A name of this run's own on this machine: another may be at the same states.
    [own] = broadcast_object_list([cache_folder.aside_name(file.path.stem)])
    machine = accelerator.process_index - accelerator.local_process_index
    aside = dataclasses.replace(file, path=file.path.with_name(f"{own[:-4]}{machine:x}.new"))
    why = _on_local_main(accelerator, aside, lambda: _prepare(aside, cache))
    if why is not None:
        return why
    states = aside.map(shared=True)
    per_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    batches = micro_batches.split_rows(table, np.arange(len(table)), plan.micro_batch_tokens)
    was_training = model.training
    model.eval()
    with torch.no_grad(), accelerator.autocast(), kept_padding_masks(plan.device):
        for rows in batches[accelerator.local_process_index :: per_machine]:
            computed = prefix.states(model, table.batch(rows, accelerator.device))
            computed = computed.to("cpu", file.dtype)
            pieces = table.pieces(rows)
            if prefix.pooled:
                states[torch.from_numpy(pieces)] = computed
                continue
            for i, piece in enumerate(pieces):
                span = table.span(piece)
                states[span] = computed[i, : span.stop - span.start]
    model.train(was_training)
    del states  # a file that is mapped has its name for good on some systems
    accelerator.wait_for_everyone()
    return _on_local_main(accelerator, aside, lambda: _put_in_place(aside, file))


def _prepare(aside: StatesFile, cache: schema.Cache) -> str | None:
    """Create the file at its full size; why that is not possible."""
    folder = aside.path.parent
    folder.mkdir(parents=True, exist_ok=True)
    cache_folder.keep_own(aside.path.name)
    cache_folder.sweep(folder)
    if not cache_folder.make_room(folder, aside.size, cache.max_bytes()):
        return f"{_megabytes(aside.size)} are more than cache.max_gb={cache.max_gb:g}"
    aside.allocate()
    return None


def _put_in_place(aside: StatesFile, file: StatesFile) -> None:
    fsync_path(aside.path)
    name = f"{file.path.stem}-{cache_folder.checksum(aside.path)}.bin"
    move_into_place(aside.path, file.path.with_name(name))


def _on_local_main(
    accelerator: Accelerator, aside: StatesFile, call: Callable[[], str | None]
) -> str | None:
    """`call()` on a process of each machine; what it says, or why it failed, on all."""
    why = None
    if accelerator.is_local_main_process:
        try:
            why = call()
        except OSError as error:
            why = cache_folder.describe_failure(error, aside.path.parent)
            cache_folder.remove(aside.path)
    said = [one for one in gather_object([why]) if one is not None]
    return said[0] if said else None


def _key(common: Sequence[Any], table: TokenTable, dtype: torch.dtype) -> str:
    digest = hashlib.sha256(json.dumps([*common, str(dtype)], default=str).encode())
    for array in (table.ids, table.starts, table.seconds):
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:24]


def _on_all_processes(accelerator: Accelerator, here: bool) -> bool:
    """Whether something holds on every process."""
    lacking = torch.tensor([int(not here)], device=accelerator.device)
    return int(accelerator.reduce(lacking).item()) == 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.3g} MB" if size < 1e8 else f"{size / 1e9:,.1f} GB"
