"""An encoder → a table of static embeddings, distilled by its own vocabulary; kept in the cache.

    folder = distil_static("package:…/model", options, cache, max_bytes, torch.bfloat16)

Each token of the vocabulary goes through the encoder alone, between the special tokens. The mean of
its states is centred, reduced to the directions of most variance (PCA) and half whitened; frequent
tokens count less, by their place in the vocabulary, which stands for their frequency (Zipf's law,
and the smooth inverse frequency of Arora et al. 2017, ICLR). The method is that of
model2vec (Tulkens & van Dongen 2024), but for the whitening: along directions of small variance SGD
would learn slowly.

The folder holds an ordinary encoder (`StaticEncoder`), with the tokenizer of its source.
"""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from finetune.config.schema import Model
from finetune.modeling.model_identity import hash_file, tokenizer_hash
from finetune.modeling.modeling_document_classifier import (
    DocumentClassifier,
    DocumentClassifierConfig,
    StaticEncoder,
)
from finetune.modeling.pretrained import (
    encoder_config,
    hub_arguments,
    load_pretrained,
    load_tokenizer,
    read_config,
    silence_loading,
    static_config,
    validate_weights,
)
from finetune.modeling.saved_model import save_tokenizer
from finetune.modeling.source_checks import find_file, list_weight_files
from finetune.runtime import cache_folder
from finetune.runtime.atomic_files import move_into_place, share_weights
from finetune.runtime.console import print_line, print_wrapped
from finetune.runtime.errors import InputError
from finetune.tokenization.encoding import special_tokens

VERSION = 1  # of the method
AT_ONCE = 1024  # tokens of the vocabulary
LENGTH = 10.0  # mean length of an embedding, from which the optimizers' default rates learn well
RARE = 1e-4  # a: the weight of a token of frequency p is a / (a + p)
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def distil_static(
    source: str, options: Model, cache: Path, max_bytes: float | None, dtype: torch.dtype
) -> str:
    """The folder of an encoder's static embeddings, found in the cache or made and put there.

    Args:
        source: of the encoder, a folder or a Hub id.
        cache: the folder of the cache.
        max_bytes: that the cache may take; None: no limit.
        dtype: of the encoder's matrix products.

    Raises:
        InputError: where there is no such encoder, or the cache cannot be written.
    """
    tokenizer = load_tokenizer(source, options)
    key = _hash_source(source, options, tokenizer)
    if (found := _find(cache, key)) is not None:
        return str(found)
    aside = cache / cache_folder.aside_name(f"static-{key[:24]}")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        cache_folder.sweep(cache)
        table, config = _compute_table(source, options, tokenizer, dtype)
        with silence_loading():
            made = StaticEncoder(static_config(config, key))
            made.embeddings.weight.data.copy_(table)
            made.save_pretrained(aside)
            save_tokenizer(tokenizer, aside)
            share_weights(aside)
        cache_folder.make_room(cache, cache_folder.size_of(aside), max_bytes)
        place = cache / f"static-{key[:24]}-{cache_folder.checksum(aside / WEIGHTS)}"
        if not place.is_dir():  # else another process was faster
            move_into_place(aside, place)
    except (OSError, SafetensorError) as error:
        why = cache_folder.describe_failure(error, cache)
        raise InputError(f"model.source: the static embeddings cannot be written: {why}") from None
    finally:
        cache_folder.remove(aside)
    return str(place)


def _find(cache: Path, key: str) -> Path | None:
    """The folder that is cached for a key; damaged ones are removed."""
    for place in sorted(cache.glob(f"static-{key[:24]}-*")):
        weights = place / WEIGHTS
        if weights.is_file() and place.name.endswith(cache_folder.checksum(weights)):
            cache_folder.touch(place)
            return place
        print_wrapped(f"{place} is damaged: static embeddings are distilled anew", mark="  ! ")
        cache_folder.remove(place)
    return None


def _hash_source(source: str, options: Model, tokenizer: PreTrainedTokenizerBase) -> str:
    """What decides the embeddings, but for rounding."""
    files = list_weight_files(source, "model.source", options.revision)
    config = find_file(source, CONFIG, options.revision)
    files += [] if config is None else [config]
    parts = [VERSION, tokenizer_hash(tokenizer), *(hash_file(file) for file in files)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _load_encoder(source: str, options: Model) -> PreTrainedModel:
    """
    Raises:
        InputError: where it cannot be loaded, or its weights are not whole.
    """
    config = read_config(source, options)
    ours = isinstance(config, DocumentClassifierConfig)
    inner, more = encoder_config(config), hub_arguments(options)
    auto: Any = DocumentClassifier if ours else AutoModel
    with silence_loading():
        model, info = load_pretrained(
            auto, source, "model.source", "sdpa", config=config if ours else inner, **more
        )
        validate_weights(model, info, "", source, "model.source", ("pooler",))
    whole: Any = model
    encoder: PreTrainedModel = whole.encoder if ours else whole
    encoder.eval()
    return encoder


@torch.inference_mode()
def _compute_table(
    source: str, options: Model, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype
) -> tuple[torch.Tensor, PretrainedConfig]:
    """The table, (vocabulary, size) fp32, and the encoder's config."""
    encoder = _load_encoder(source, options)
    config: Any = encoder.config
    if isinstance(encoder, StaticEncoder):
        raise InputError(
            f"model.source: '{source}' is static already; name it without 'static:' to train it on"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.nn.Module.to(encoder, device)
    size = int(config.vocab_size)
    print_line(f"Static  distilling {size:,} tokens of {source}")
    before, after = special_tokens(tokenizer)
    ids = torch.arange(size)
    states = torch.empty(size, int(config.hidden_size))
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
        for some in ids.split(AT_ONCE):
            around = [torch.full_like(some, one) for one in (*before, -1, *after)]
            around[len(before)] = some
            inputs = torch.stack(around, dim=1).to(device)
            found = encoder(input_ids=inputs, attention_mask=torch.ones_like(inputs))
            states[some] = found.last_hidden_state.float().mean(dim=1).cpu()
    columns = static_config(config, None).hidden_size
    table = _reduce(states.double(), columns)
    table *= _frequency_weights(size)[:, None]
    table[[one for one in tokenizer.all_special_ids if one < size]] = 0  # say nothing of a text
    mean = table.norm(dim=1).mean().clamp(min=torch.finfo(torch.double).tiny)
    return (LENGTH / mean * table).float(), config


def _reduce(states: torch.Tensor, size: int) -> torch.Tensor:
    """Centred states along their first principal components, half whitened: (tokens, size)."""
    centred = states - states.mean(dim=0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    variances, directions = variances.flip(0)[:size], directions.flip(1)[:, :size]
    # Eigenvectors have no sign of their own: the largest number of each is positive.
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    floor = variances[0] * 1e-9
    turned = centred @ (directions * largest.sign())
    scaled: torch.Tensor = turned / variances.clamp(min=floor) ** 0.25
    return scaled


def _frequency_weights(size: int) -> torch.Tensor:
    """What each token counts, if the vocabulary begins with the frequent ones. (size,)"""
    frequencies = 1 / torch.arange(1, size + 1, dtype=torch.double)
    frequencies /= frequencies.sum()
    return RARE / (RARE + frequencies)
