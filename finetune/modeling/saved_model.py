"""Classifier ↔ folder: saved, loaded, replaced as a whole."""

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from finetune.modeling import model_identity
from finetune.modeling.model_identity import check_identity
from finetune.modeling.pretrained import (
    encoder_config,
    load_pretrained,
    read_checked_config,
    set_attention,
    silence_loading,
    validate_weights,
)
from finetune.modeling.tokenizer_fit import align_padding, read_tokenizer
from finetune.runtime.atomic_files import (
    link_folder,
    replace_folder,
)

Tensors = dict[str, torch.Tensor]


def replace_model_folder(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, weights: Tensors
) -> None:
    """Write a model folder beside the old one, sync it, then replace the old one.

    Args:
        weights: all of the model's, which in the model itself may be sharded.

    Raises:
        InputError: where it cannot be written; the old one stays.
    """
    replace_folder(folder, lambda aside: save_classifier(model, tokenizer, aside, weights))


def rewrite_weights(folder: Path, weights: Tensors) -> bool:
    """Replace some weights of a model folder; False where it lacks one of them.

    Hard links to the folder's files keep their contents.

    Raises:
        InputError: where it cannot be written; the folder stays as it was.
    """
    of_file = {file.name: _names(file) for file in sorted(folder.glob("*.safetensors"))}
    if not set().union(*of_file.values()) >= weights.keys():
        return False

    def fill(aside: Path) -> None:
        link_folder(folder, aside)
        for file, names in of_file.items():
            if names & weights.keys():
                now = load_file(folder / file)
                now |= {name: weights[name].contiguous() for name in names & weights.keys()}
                (aside / file).unlink()
                save_file(now, aside / file, metadata={"format": "pt"})
        model_identity.update_weights(aside)

    replace_folder(folder, fill)
    return True


def _names(file: Path) -> set[str]:
    with safe_open(file, framework="pt") as tensors:
        return set(tensors.keys())


def save_classifier(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write weights (safetensors), config, tokenizer and, for the linear head, its code.

    Last comes the identity of tokenizer and weights, which whoever loads the folder compares.

    Args:
        weights: the model's by name, where the model itself holds only a shard of them.
    """
    with silence_loading():
        model.save_pretrained(folder, state_dict=weights)
        save_tokenizer(tokenizer, folder)
    model_identity.write_identity(folder, tokenizer, model.config)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer's files, with what releases of transformers disagree on.

    That is the class of one that is all in tokenizer.json, which version 4 must know too, what
    the tokenizer makes beside ids, and the sides where it truncates and pads, which they leave out
    where the encoder's own tokenizer did.
    """
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return
    settings = json.loads(file.read_text("utf-8"))
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["model_input_names"] = list(tokenizer.model_input_names)
    settings["truncation_side"] = tokenizer.truncation_side
    settings["padding_side"] = tokenizer.padding_side
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", "utf-8")


def load_classifier(
    source: Path | str,
    attention: str = "sdpa",
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A saved classifier, in fp32 on the CPU, in eval mode, and its tokenizer.

    Args:
        source: a folder or a Hub id.

    Raises:
        InputError: where the folder is not a whole model folder, or the Hub has no such model;
            where the tokenizer does not fit the weights; where tokenizer, labels or weights are
            not those that were saved.
    """
    key = source = str(source)
    hub: dict[str, Any] = {"trust_remote_code": trust_remote_code, "revision": revision}
    config = read_checked_config(source, key, classifier=True, **hub)
    with silence_loading():
        model, info = load_pretrained(
            AutoModelForSequenceClassification, source, key, attention, config=config, **hub
        )
        validate_weights(model, info, "", source, key)
        set_attention(model, attention, asked=False)
        tokenizer = read_tokenizer(source, key, encoder_config(model.config), **hub)
    check_identity(source, key, model.config, tokenizer, tell=True, revision=revision)
    align_padding(model, tokenizer)
    return model, tokenizer


def weightless_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy without weights: sharding changes a model's own class, and what is saved of it."""
    bare = copy.deepcopy(model)
    torch.nn.Module.to(bare, "meta")
    return bare


def weights_hash(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of weights by name: the same for the same numbers, on every machine."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
