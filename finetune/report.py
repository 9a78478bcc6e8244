"""Results → `results.json`, `metrics.jsonl`, `predictions/*.jsonl`, the saved recipe.

`results.json` holds one object; null stands for a number that could not be had:

    schema             1; raised when a key changes its meaning
    recipe             the recipe's name
    started            local time, ISO 8601
    num_processes      how many processes shared each step
    data               source; labels in order; fingerprint (sha256 of labels, texts and classes);
                       splits: of each its origin, rows, classes (rows of each label),
                       truncated_rows, cut_tokens; findings: of each its kind, split, count,
                       places (the first few), rule (what was done), other (a second split)
    model              source, parameters, trainable_parameters, max_length (tokens kept)
    train              steps, rows, tokens and seconds of the loop without scoring,
                       rows_per_second, tokens_per_second, clipped (share of steps)
    validation         the best model's: rows, step, loss, loss_se, and each metric by name
    test               rows, labelled; where it has labels, loss, loss_se and each metric by name,
                       scored once, and accuracy_interval: 95 % by Wilson, [low, high]
    baseline           label: train's most frequent; accuracy: on test, of always answering it
    hardware           device, name, precision, attention, micro_batch_tokens, threads, reasons
    machine            system, processor, cores
    versions           of Python and the libraries
"""

import dataclasses
import json
import math
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from finetune import recipe, recipe_file, sources
from finetune.corpus import Corpus, Split, class_counts, fingerprint, majority_baseline
from finetune.hardware import Hardware
from finetune.metrics import softmax
from finetune.problems import InputError, writing
from finetune.record import Record
from finetune.scoring import Scores
from finetune.tokens import TokenTable

SCHEMA = 1
LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "evaluate", "tokenizers")
# What a run writes: `run.overwrite` removes these and nothing else.
OWN_FILES = ("recipe.yaml", "metrics.jsonl", "results.json", "model", "predictions", "trackers")


def choose_folder(choices: recipe.Run, started: datetime) -> Path:
    """Where the run will write: `run.dir`, or a new folder named by the time.

    Raises:
        InputError: where something stands there that the run may not replace.
    """
    if choices.dir is None:
        return Path("runs") / (choices.name or "run") / started.strftime("%Y-%m-%d_%H-%M-%S")
    try:
        folder = Path(choices.dir).expanduser()
    except RuntimeError:
        raise InputError(f"run.dir: {choices.dir}: no such user") from None
    standing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not standing.is_dir():
        found = "a file" if standing.is_file() else "no folder"
        raise InputError(
            f"run.dir: {standing} is {found}; expected a folder, or a name that is free"
        )
    there = sorted(child.name for child in folder.iterdir()) if folder == standing else []
    if there and not choices.overwrite:
        raise InputError(
            f"run.dir: {folder} is not empty ({', '.join(there[:5])}{', …' * (len(there) > 5)}); "
            "choose another folder, or set run.overwrite=true to replace the run in it"
        )
    return folder


def claim_folder(chosen: Path, choices: recipe.Run, saved: recipe.Recipe) -> Path:
    """Create the run's folder, save the recipe in it, and return the folder.

    With `run.overwrite`, what an earlier run wrote there is removed; without it, nothing ever is:
    of two runs that chose one name at the same time, the later gets a name of its own.

    Raises:
        InputError: where it cannot be written, or where the run reads what would be removed.
    """
    folder = chosen
    with writing(folder):
        if choices.dir is None:
            copy = 1
            while not _made(folder):
                copy += 1
                folder = chosen.with_name(f"{chosen.name}-{copy}")
        else:
            choose_folder(choices, datetime.now())  # somebody may have come first
            folder.mkdir(parents=True, exist_ok=True)
            _remove_earlier_run(folder, saved)
    write_whole(folder / "recipe.yaml", recipe_file.to_yaml(saved))
    return folder


def _made(folder: Path) -> bool:
    """Create a folder that is not there yet; False where it is."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def _remove_earlier_run(folder: Path, saved: recipe.Recipe) -> None:
    own = [folder / name for name in OWN_FILES]
    for key, source in (("data", saved.data.source), ("model", saved.model.source)):
        read = Path(source).resolve()
        for old in own:
            if old.exists() and old.resolve() in (read, *read.parents):
                raise InputError(
                    f"run.overwrite: {old} would be removed, and {key}.source reads it; choose "
                    "another run.dir"
                )
    for old in own:
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)


def as_ran(
    choices: recipe.Recipe, plan: Hardware, max_length: int, model: PreTrainedModel
) -> recipe.Recipe:
    """The recipe with what this machine, the encoder and the Hub decided, to be run again.

    Local sources stand as whole paths, so that it runs from anywhere. It names no run folder: run
    again, it gets a new one.
    """

    def whole(source: str) -> str:
        path = None if source.startswith("package:") else sources.local_path(source)
        return source if path is None else str(path.absolute())

    encoder: Any = model.base_model.config
    return choices.model_copy(
        update={
            "data": choices.data.model_copy(
                update={"source": whole(choices.data.source), "max_length": max_length}
            ),
            "model": choices.model.model_copy(
                update={
                    "source": whole(choices.model.source),
                    "attention": encoder._attn_implementation or "eager",
                    "revision": getattr(encoder, "_commit_hash", None) or choices.model.revision,
                }
            ),
            "train": choices.train.model_copy(
                update={
                    "precision": plan.precision,
                    "micro_batch_tokens": plan.micro_batch_tokens,
                    "threads": plan.threads,
                }
            ),
            "run": choices.run.model_copy(update={"dir": None, "overwrite": False}),
        }
    )


def append(file: Path, line: Mapping[str, Any]) -> None:
    """Add a line to a .jsonl file, on disk when this returns."""
    with writing(file), file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(_plain(line), allow_nan=False, ensure_ascii=False) + "\n")


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write an object so that a person reads it too."""
    text = json.dumps(_plain(value), indent=2, allow_nan=False, ensure_ascii=False)
    write_whole(file, text + "\n")


def _plain(value: Any) -> Any:
    """Numbers that are not finite as null: JSON has no other word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def write_whole(file: Path, text: str) -> None:
    """Write a file aside and put it in place, so that nobody ever sees half of it.

    Raises:
        InputError: where it cannot be written; what stood there before stays.
    """
    aside = file.with_name(f".{file.name}.new")
    with writing(file):
        try:
            file.parent.mkdir(exist_ok=True)
            aside.write_text(text, encoding="utf-8")
            aside.replace(file)
        finally:
            aside.unlink(missing_ok=True)


def write_predictions(
    file: Path, split: Split, labels: Sequence[str], logits: NDArray[np.float32]
) -> None:
    """One line for each row: where it came from, its label, the answer and all probabilities."""
    lines = []
    for i, row in enumerate(softmax(logits)):
        line: dict[str, Any] = {"row": split.places.place(i)}
        if split.labels is not None:
            line["label"] = labels[split.labels[i]]
        line["predicted"] = labels[int(row.argmax())]
        line["probabilities"] = [round(float(chance), 6) for chance in row]
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_whole(file, "".join(lines))


def results(
    choices: recipe.Recipe,
    started: datetime,
    num_processes: int,
    plan: Hardware,
    corpus: Corpus,
    tables: Mapping[str, TokenTable],
    max_length: int,
    model: PreTrainedModel,
    record: Record,
    validation: Mapping[str, float],
    test: Scores,
) -> dict[str, Any]:
    """The whole of `results.json`, as this module's docstring lists it."""
    rows = len(corpus.test.texts)
    on_test: dict[str, Any] = {"rows": rows, "labelled": corpus.test.labels is not None}
    on_test |= test.values
    if "accuracy" in test.values:
        on_test["accuracy_interval"] = interval(test.values["accuracy"], rows)
    return {
        "schema": SCHEMA,
        "recipe": choices.run.name,
        "started": started.isoformat(timespec="seconds"),
        "num_processes": num_processes,
        "data": {
            "source": choices.data.source,
            "labels": list(corpus.labels),
            "fingerprint": fingerprint(corpus),
            "splits": {
                split.name: {
                    "origin": split.origin,
                    "rows": len(split.texts),
                    "classes": class_counts(split, corpus.labels),
                    "truncated_rows": tables[split.name].truncated,
                    "cut_tokens": tables[split.name].cut,
                }
                for split in corpus.splits()
            },
            "findings": [dataclasses.asdict(finding) for finding in corpus.findings],
        },
        "model": {
            "source": choices.model.source,
            "parameters": sum(p.numel() for p in model.parameters()),
            "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "max_length": max_length,
        },
        "train": {
            "steps": record.steps,
            "rows": record.rows,
            "tokens": record.tokens,
            "seconds": record.seconds,
            "rows_per_second": record.rows / record.seconds,
            "tokens_per_second": record.tokens / record.seconds,
            "clipped": record.clipped / record.steps,
        },
        "validation": {"rows": len(corpus.validation.texts)} | dict(validation),
        "test": on_test,
        "baseline": majority(corpus),
        "hardware": dataclasses.asdict(plan),
        "machine": machine(),
        "versions": versions(),
    }


def majority(corpus: Corpus) -> dict[str, Any]:
    """What always answering train's most frequent label scores on test."""
    counts = class_counts(corpus.train, corpus.labels)
    share = majority_baseline(corpus)
    return {
        "label": max(counts, key=counts.__getitem__),
        "accuracy": None if math.isnan(share) else share,
    }


def interval(share: float, rows: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share of independent rows (Wilson 1927): it never leaves 0 to 1."""
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows**2))
    return centre - half, centre + half


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
