"""Documents → their token table, cached on disk: tokenized once, then mapped into memory.

A cached table is found by a hash of all that decides its ids: the texts, the tokenizer's whole
state, the document format, and the version of the cache. So a changed text, tokenizer or setting
never meets an old entry. The ids go to the file while they are made, so that neither they nor a
second copy of the texts need to fit into memory.

    ~/.cache/finetune-documents/tokens-<hash>-<checksum of table.safetensors>/
        ids.bin              int32, one piece after the other
        table.safetensors    where pieces and documents begin, and a checksum of the ids

A damaged table is made anew. Where the folder is full or cannot be written, there is no cache.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from finetune.data.corpus import texts_hash
from finetune.runtime import cache_folder
from finetune.runtime.atomic_files import move_into_place
from finetune.runtime.console import print_wrapped
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.token_table import Ids, TokenTable

VERSION = 2
WORTH_CACHING = 1_000_000  # characters; fewer are tokenized sooner than they are hashed and found
IDS, TABLE = "ids.bin", "table.safetensors"
ARRAYS = ("starts", "full", "first", "kept", "seconds")


def encode(
    document_format: DocumentFormat,
    texts: Sequence[str],
    seconds: Sequence[str] | None,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path | None,
    max_bytes: float | None = None,
) -> TokenTable:
    """The table of some documents, found in the cache or made and put there.

    Where the folder cannot be written, or the table is small, it stays in memory.

    Args:
        folder: None: nothing is cached.
        max_bytes: that the cache may take; None: no limit.
    """
    state = _state(tokenizer)
    long_enough = sum(map(len, texts)) + sum(map(len, seconds or ())) >= WORTH_CACHING
    if folder is None or state is None or not long_enough:
        return document_format.encode(texts, seconds, tokenizer)
    versions = [VERSION, tokenizers.__version__]
    hashes = [texts_hash(texts), texts_hash(seconds or ())]
    identity = [versions, state, _settings(document_format), hashes]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]
    table: TokenTable | None = None
    aside = folder / cache_folder.aside_name(f"tokens-{key}")
    try:
        table = _find(folder, key, document_format)
        if table is None:
            cache_folder.sweep(folder)
            _write(aside, document_format, texts, seconds, tokenizer)
            _keep(aside, folder, key, max_bytes)
            table = _find(folder, key, document_format)
    except (OSError, SafetensorError) as error:
        why = cache_folder.describe_failure(error, folder)
        print_wrapped(f"tokens are not kept for later runs: {why}", mark="  ! ")
    finally:
        cache_folder.remove(aside)
    return document_format.encode(texts, seconds, tokenizer) if table is None else table


def _keep(aside: Path, folder: Path, key: str, max_bytes: float | None) -> None:
    """Put a table that was made aside into the cache."""
    size = cache_folder.size_of(aside)
    if not cache_folder.make_room(folder, size, max_bytes):
        print_wrapped(
            f"tokens are not kept for later runs: {size / 1e9:,.3g} GB are more than "
            f"cache.max_gb={(max_bytes or 0) / 1e9:g}",
            mark="  ! ",
        )
        return
    place = folder / f"tokens-{key}-{cache_folder.checksum(aside / TABLE)}"
    if not place.is_dir():  # else another process was faster
        move_into_place(aside, place)


def _find(folder: Path, key: str, document_format: DocumentFormat) -> TokenTable | None:
    """The table that is cached for a key; damaged ones are removed.

    Raises:
        OSError: where one cannot be read now. It may be whole, and stays.
    """
    for place in sorted(folder.glob(f"tokens-{key}-*")):
        table = _read(place, document_format)
        if table is not None:
            cache_folder.touch(place)
            return table
        print_wrapped(f"{place} is damaged: its tokens are made anew", mark="  ! ")
        cache_folder.remove(place)
    return None


def _state(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """All that decides what a tokenizer makes of a text; None where that cannot be known."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    # Left over from the last call, and set anew in each.
    whole.update(truncation=None, padding=None)
    state = [whole, tokenizer.pad_token_id, tokenizer.model_input_names]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _settings(document_format: DocumentFormat) -> list[Any]:
    """What of a document format decides the ids and their places."""
    return [
        document_format.max_length,
        document_format.truncation,
        document_format.stride,
        document_format.max_windows,
    ]


def _write(
    aside: Path,
    document_format: DocumentFormat,
    texts: Sequence[str],
    seconds: Sequence[str] | None,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    aside.mkdir(parents=True)
    checksum = 0
    with (aside / IDS).open("wb") as out:

        def write_chunk(ids: Ids) -> None:
            nonlocal checksum
            content = ids.astype("<i4").tobytes()
            checksum = zlib.crc32(content, checksum)
            out.write(content)

        table = document_format.encode(texts, seconds, tokenizer, write_chunk)
        out.flush()
        os.fsync(out.fileno())
    arrays = {name: getattr(table, name) for name in ARRAYS if getattr(table, name) is not None}
    numbers = np.array([table.pad_id, checksum], dtype=np.int64)
    save_file(arrays | {"pad_id, checksum": numbers}, aside / TABLE)


def _read(place: Path, document_format: DocumentFormat) -> TokenTable | None:
    """The table that is cached there; None where it is missing or damaged.

    Raises:
        OSError: where it cannot be read.
    """
    try:
        if not place.name.endswith(cache_folder.checksum(place / TABLE)):
            return None
        arrays: dict[str, Any] = load_file(place / TABLE)
        ids: Ids = np.memmap(place / IDS, dtype="<i4", mode="r")
        pad_id, checksum = arrays.pop("pad_id, checksum").tolist()
        table = TokenTable(
            ids=ids, pad_id=pad_id, window_pooling=document_format.window_pooling, **arrays
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    whole = len(ids) == table.starts[-1] and _checksum(ids) == checksum
    return table if whole else None


def _checksum(ids: Ids) -> int:
    checksum, chunk = 0, 2**22
    for start in range(0, len(ids), chunk):
        checksum = zlib.crc32(np.ascontiguousarray(ids[start : start + chunk]).data, checksum)
    return checksum
