"""A run's best model ↔ disk. The folder is whole at every moment, or not there."""

import os
import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune import model as models
from finetune.problems import writing


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model folder aside, sync it, then put it in the place of the one before.

    Raises:
        InputError: where it cannot be written; the one before stays.
    """
    aside, before = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (aside, before):
        shutil.rmtree(leftover, ignore_errors=True)
    with writing(folder):
        try:
            models.save(model, tokenizer, aside)
            for file in aside.rglob("*"):
                if file.is_file():
                    with file.open("rb") as handle:
                        os.fsync(handle.fileno())
            if folder.exists():
                folder.rename(before)
            try:
                aside.rename(folder)
            except OSError:
                before.rename(folder)
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(before, ignore_errors=True)


def restore_model(model: torch.nn.Module, folder: Path, trust_remote_code: bool) -> None:
    """Put the weights of a saved folder into a model.

    They come through `from_pretrained`, as any user's will, so what is scored after this is what
    the folder holds.
    """
    saved, _ = models.load(folder, trust_remote_code=trust_remote_code)
    model.load_state_dict(saved.state_dict())
