"""A model folder here, and a copy of it from elsewhere → whether both give the same logits.

The copy is loaded in a process of its own, which cannot import this package, as its users may.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from finetune.hub import isolated_load, model_files
from finetune.inference import onnx_engine
from finetune.inference.engines import EngineOptions, ModelSource, pick_engine
from finetune.inference.sample_texts import draw_texts
from finetune.modeling import load_errors, modeling_document_classifier, saved_model
from finetune.reporting.results_model import FILE, read_results
from finetune.runtime import telemetry
from finetune.runtime.errors import InputError, shorten

SAMPLES = 16  # rows drawn from the vocabulary


def verify_logits(run: Path, here: Path, there: Path, trust_remote_code: bool = False) -> int:
    """Score sample rows with both folders; returns their number.

    The rows: the mistakes that the run's report shows, and some drawn from the whole vocabulary, of
    every length up to 256 tokens.

    Args:
        run: a run's folder, or a model folder, which has no documents.
        here: the model folder.
        there: the copy of it.
        trust_remote_code: let code run that is not this package's modelling file.

    Raises:
        InputError: where the copy does not load, or gives other labels or logits.
    """
    if not trust_remote_code:
        _refuse_foreign_code(there)
    texts, expected, expected_labels = _score_here(run, here, trust_remote_code)
    engine = pick_engine(None, str(here))
    labels, logits = _score_isolated(there, engine, texts)
    if labels != expected_labels:
        raise InputError(
            f"the downloaded model has other labels: {load_errors.format_files(labels)}, not "
            f"{load_errors.format_files(expected_labels)}; push {here} again"
        )
    differs = (expected != logits).any(axis=1)
    if differs.any():
        raise InputError(
            f"the downloaded model's logits differ from those of {here} on {differs.sum():,} of "
            f"{len(texts):,} sample rows, by up to {np.abs(expected - logits).max():.3g}; push "
            "that folder again"
        )
    return len(texts)


def _score_here(
    run: Path, here: Path, trust_remote_code: bool
) -> tuple[list[str], np.ndarray, list[str]]:
    """The sample rows, their logits (rows, classes), and the labels."""
    if pick_engine(None, str(here)) == "onnx":
        telemetry.import_silently("onnxruntime")
        loaded = onnx_engine.load(ModelSource(str(here)), EngineOptions())
        texts = draw_texts(loaded.tokenizer, SAMPLES)
        logits = isolated_load.score_graphs(str(here), loaded.tokenizer, texts)
        return texts, np.array(logits), isolated_load.labels(loaded.config)
    model, tokenizer = saved_model.load_classifier(here, trust_remote_code=trust_remote_code)
    mistakes = read_results(run).mistakes if (run / FILE).is_file() else []
    texts = [*(mistake.text for mistake in mistakes), *draw_texts(tokenizer, SAMPLES)]
    logits = isolated_load.score(model, tokenizer, texts)
    return texts, np.array(logits), isolated_load.labels(model.config)


def _refuse_foreign_code(folder: Path) -> None:
    """Run this package's own modelling file, and no other code."""
    elsewhere = model_files.find_foreign_code(folder)
    if elsewhere:
        raise InputError(
            f"its files load code of another repository ({shorten(elsewhere)}), so the model was "
            "not verified; review that code, then verify with --trust-remote-code"
        )
    own = Path(modeling_document_classifier.__file__)
    for file in sorted(folder.glob("*.py")):
        if file.name != own.name or file.read_bytes() != own.read_bytes():
            raise InputError(
                f"{file.name} differs from this version's modelling file, so the model was not "
                "verified; review that file, then verify with --trust-remote-code"
            )


def _score_isolated(folder: Path, engine: str, texts: list[str]) -> tuple[list[str], np.ndarray]:
    """Labels and logits (rows, classes), by a process without this package."""
    rows, out = folder.parent / "rows.json", folder.parent / "logits.json"
    rows.write_text(json.dumps(texts), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    done = subprocess.run(  # noqa: S603 # this interpreter, our file, folders that we made
        [sys.executable, "-P", isolated_load.__file__, str(folder), engine, str(rows), str(out)],
        cwd=folder.parent,
        env=kept
        | {
            "HF_HUB_OFFLINE": "1",
            "ORT_DISABLE_TELEMETRY": "1",
            "HF_MODULES_CACHE": str(folder.parent / "modules"),
            "CUDA_VISIBLE_DEVICES": "",  # as here
            "OMP_NUM_THREADS": str(torch.get_num_threads()),  # another number adds otherwise
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"the downloaded model does not load without this package ({last})")
    scored = json.loads(out.read_text("utf-8"))
    return scored["labels"], np.array(scored["logits"])
