"""A model folder here, and a copy of it from elsewhere → whether both give the same logits.

The copy is loaded in a process of its own, which cannot import this package: as a stranger would.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from finetune.hub import isolated_load, model_files
from finetune.modeling import modeling_document_classifier, pretrained, saved_model
from finetune.runtime.errors import InputError, shorten

MADE = 16  # rows from the vocabulary
LONGEST = 256  # tokens in them


def verify_logits(run: Path, here: Path, there: Path, trust_remote_code: bool = False) -> int:
    """Score sample rows with both folders; how many they are.

    The rows: the documents that the run's report shows, and some drawn from the vocabulary, which
    reach every part of it, and every length up to the longest that is read.

    Args:
        run: a run's folder, or a model folder, which has no documents.
        here: the model folder.
        there: the copy of it.
        trust_remote_code: let code run that is not this package's modelling file.

    Raises:
        InputError: where the copy does not load, or says anything else.
    """
    if not trust_remote_code:
        _refuse_foreign_code(there)
    ours, tokenizer = saved_model.load_classifier(here, trust_remote_code=trust_remote_code)
    known = run / "results.json"
    shown = json.loads(known.read_text("utf-8"))["mistakes"] if known.is_file() else []
    texts = [*(mistake["text"] for mistake in shown), *_made(tokenizer)]
    expected = np.array(isolated_load.score(ours, tokenizer, texts))
    labels, found = _as_stranger(there, texts)
    names = isolated_load.labels(ours)
    if labels != names:
        raise InputError(
            f"the downloaded model has other labels: {pretrained.list_names(labels)}, not "
            f"{pretrained.list_names(names)}; push {here} again"
        )
    other = (expected != found).any(axis=1)
    if other.any():
        raise InputError(
            f"the downloaded model gives other logits on {other.sum():,} of {len(texts):,} sample "
            f"rows than {here}, by up to {np.abs(expected - found).max():.3g}; push that again"
        )
    return len(texts)


def _refuse_foreign_code(folder: Path) -> None:
    """Run this package's own modelling file unasked, and no other."""
    elsewhere = model_files.foreign_code(folder)
    if elsewhere:
        raise InputError(
            f"its files name code of another repository ({shorten(elsewhere)}), which does not "
            "run unasked: the model is not verified; read that code, and verify again with "
            "--trust-remote-code"
        )
    own = Path(modeling_document_classifier.__file__)
    for file in sorted(folder.glob("*.py")):
        if file.name != own.name or file.read_bytes() != own.read_bytes():
            raise InputError(
                f"{file.name} is not the modelling file of this version, and other code does not "
                "run unasked: the model is not verified; read that file, and verify again with "
                "--trust-remote-code"
            )


def _as_stranger(folder: Path, texts: list[str]) -> tuple[list[str], np.ndarray]:
    """Labels and logits (rows, classes) by a process that knows the folder alone."""
    given, out = folder.parent / "rows.json", folder.parent / "logits.json"
    given.write_text(json.dumps(texts), "utf-8")
    kept = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    done = subprocess.run(
        [sys.executable, "-P", isolated_load.__file__, str(folder), str(given), str(out)],
        cwd=folder.parent,
        env=kept
        | {
            "HF_HUB_OFFLINE": "1",
            "HF_MODULES_CACHE": str(folder.parent / "modules"),
            "CUDA_VISIBLE_DEVICES": "",  # as here
            "OMP_NUM_THREADS": str(torch.get_num_threads()),  # another number adds otherwise
        },
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise InputError(f"the downloaded model does not load without this package ({last})")
    found = json.loads(out.read_text("utf-8"))
    return found["labels"], np.array(found["logits"])


def _made(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    draw = np.random.default_rng(0)
    longest = min(int(tokenizer.model_max_length), LONGEST)
    lengths = np.linspace(1, longest, MADE).round().astype(int)
    return [
        str(tokenizer.decode(draw.integers(len(tokenizer), size=length).tolist()))
        for length in lengths
    ]
