"""`run.resume` → the run folder and the checkpoint to go on from, if all else is as it was."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from finetune.config import loader, schema
from finetune.data.corpus import Corpus, split_hash
from finetune.runtime import folder_lock
from finetune.runtime.errors import InputError, shorten
from finetune.runtime.folder_lock import FolderLock
from finetune.tokenization.token_table import TokenTable
from finetune.training import checkpoint, loop, run_folder
from finetune.training.run_folder import Start

# What decides no number.
NO_EFFECT = {
    "train.log_every",
    *(f"run.{key}" for key in ("name", "dir", "overwrite", "resume", "seeds", "folds", "trackers")),
    *(f"checkpoint.{key}" for key in schema.Checkpoint.model_fields),
    *("cache.dir", "cache.keep", "cache.tokens"),
    *(f"publish.{key}" for key in schema.Publish.model_fields),
}
# What may change on the way, as it only decides how long the run goes on.
LENGTH = {"train.epochs", "train.max_steps", "train.min_steps"}
ENDING = {"train.on_divergence", "score.patience", "score.min_improvement"}
REPORTING = {"score.target_accuracy"}
# Compared by what is in them, as folders move.
BY_CONTENT = {"data.source", "model.source"}
# Compared by what it comes to, as `auto` follows from rows and epochs.
SAMPLING = "train.sampling"
# The same mathematics, with floats added in another order.
ORDER_OF_SUMS = {
    *("train.micro_batch_tokens", "train.packing", "train.threads", "model.attention"),
}


def locate_start(choices: schema.Run, started: datetime, hold: FolderLock) -> Start:
    """The folder that `run.dir` and `run.resume` mean, and the newest good checkpoint in it.

    A run that is taken up is held from here on, so that what is read of it stays so.

    Raises:
        InputError: where there is none though one was named, or none of those there is good, or
            something else stands there.
    """
    if choices.resume is None:
        return Start(run_folder.choose_folder(choices, started))
    if choices.resume == "auto":
        folder = _unfinished(choices) if choices.dir is None else Path(choices.dir).expanduser()
        if folder is None or not (folder / "recipe.yaml").is_file():
            return Start(run_folder.choose_folder(choices, started))
        points = checkpoint.list_checkpoints(folder)
    else:
        folder, points = _named(Path(choices.resume).expanduser())
        if choices.dir is not None and Path(choices.dir).expanduser().resolve() != folder.resolve():
            raise InputError(
                f"run.resume: {choices.resume} is of the run in {folder}, and run.dir is "
                f"{choices.dir}; leave run.dir out"
            )
    hold.take(folder)
    # An earlier checkpoint that is named asks for what came after it to be done again.
    newest = [point.name for point in checkpoint.list_checkpoints(folder)[:1]]
    finished = (folder / "results.json").is_file() and newest == [p.name for p in points[:1]]
    damages: list[str] = []
    for point in points:
        try:
            checkpoint.read_checkpoint(point)
        except InputError as error:
            damages += error.problems
            continue
        notes = tuple(f"{damage}; the one before is used" for damage in damages)
        return Start(folder, point, finished=finished, notes=notes)
    if finished and choices.resume == "auto":
        return Start(folder, finished=True, notes=tuple(damages))
    if damages:  # they may be mended, and hours of work stand beside them: nothing is removed
        raise InputError(damages)
    if choices.resume != "auto":
        raise InputError(
            f"run.resume: {folder} has no checkpoint; expected step-… in its {checkpoint.FOLDER}/"
        )
    return Start(folder, replaces=True, notes=(f"{folder} starts from the beginning",))


def _unfinished(choices: schema.Run) -> Path | None:
    """The newest run of the recipe's name that has a checkpoint, no results, and no process."""
    home = Path("runs") / (choices.name or "run")
    folders = home.iterdir() if home.is_dir() else ()
    open_ones = [
        folder
        for folder in folders
        if checkpoint.list_checkpoints(folder)
        and not (folder / "results.json").exists()
        and folder_lock.is_unlocked(folder)
    ]
    return max(
        open_ones, key=lambda folder: (folder / checkpoint.FOLDER).stat().st_mtime, default=None
    )


def _named(path: Path) -> tuple[Path, list[Path]]:
    """The run folder, and the checkpoints in question, of a path that the user named."""
    if not path.is_dir():
        near = (
            checkpoint.list_checkpoints(path.parent.parent)
            if checkpoint.NAME.fullmatch(path.name)
            else []
        )
        have = f"; there are {shorten([str(p) for p in near])}" if near else ""
        raise InputError(
            f"run.resume: {path}: no such folder; expected auto, a run folder or a checkpoint{have}"
        )
    if checkpoint.NAME.fullmatch(path.name):
        return Path(os.path.normpath(path.absolute())).parents[1], [path]
    if not (path / "recipe.yaml").is_file():
        raise InputError(
            f"run.resume: {path} is neither a run folder nor a checkpoint; expected a folder with "
            "recipe.yaml, or a step-… folder in its checkpoints/"
        )
    return path, checkpoint.list_checkpoints(path)


def run_identity(
    choices: schema.Recipe,
    saved: schema.Recipe,
    corpus: Corpus,
    tokens: str,
    model: PreTrainedModel,
    start: str,
    ends: Sequence[int] = (),
) -> dict[str, Any]:
    """What a checkpoint says of the run that it belongs to.

    Args:
        choices: the recipe as it was given.
        saved: the recipe as it ran.
        tokens: `tokens_hash` of all splits.
        model: as it was built; its encoder's config decides what the weights compute.
        start: the hash of the weights before the first step.
        ends: the last step of each stage but the last.
    """
    encoder: Any = model.base_model.config
    config = json.loads(json.dumps(encoder.to_dict(), default=str))  # as it will be read back
    return {
        "recipe": saved.model_dump(mode="json"),
        # Follows from how long the run is, unless it was asked for.
        "derived": ["cache.prefix"] if choices.cache.prefix == "auto" else [],
        "data": {
            "labels": list(corpus.labels),
            "splits": {
                split.name: {"rows": len(split), "hash": split_hash(split)}
                for split in corpus.splits()
            },
        },
        "tokens": tokens,
        "encoder": {
            key: value
            for key, value in config.items()
            # Where it came from, and what the recipe says anyway.
            if not key.startswith("_") and key not in ("transformers_version", "dtype")
        },
        "start": start,
        "ends": [*ends],
    }


def tokens_hash(tables: Mapping[str, TokenTable]) -> str:
    """SHA-256 of the tokens of all splits: of what the model is given."""
    digest = hashlib.sha256()
    for _, table in sorted(tables.items()):
        for part in (table.ids, table.starts, table.first, table.seconds):
            if part is not None:
                digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def with_recorded_rates(choices: schema.Recipe, start: Start) -> schema.Recipe:
    """The recipe; where a rate is `auto`, with the one that the run which goes on has found.

    Raises:
        InputError: where what was recorded cannot be read.
    """
    if all(one.optim.lr != "auto" for one in choices.by_stage()):
        return choices
    if start.point is not None:
        return _with_rates(choices, checkpoint.read_plain(start.point)["identity"]["recipe"])
    if start.replaces or start.finished:
        return _with_rates(choices, _as_saved(start.folder))
    return choices


def _as_saved(folder: Path) -> dict[str, Any]:
    return loader.load(folder / "recipe.yaml").model_dump(mode="json")


def _with_rates(choices: schema.Recipe, then: Mapping[str, Any]) -> schema.Recipe:
    """A recipe; where a rate is `auto`, with that of another which was written down."""
    found = zip(choices.by_stage(), _rates(then), strict=False)  # of other stages, `check` tells
    for number, (one, rate) in enumerate(found, 1):
        if one.optim.lr == "auto" and rate != "auto":
            choices = choices.with_rate(rate, number)
    return choices


def _rates(sections: Mapping[str, Any]) -> list[Any]:
    """The rate of each stage of a recipe that was written down: a number, or auto still."""
    own = [stage["lr"] for stage in sections["train"].get("stages") or [{"lr": None}]]
    return [sections["optim"]["lr"] if rate is None else rate for rate in own]


def _each_has_its_rate(sections: Mapping[str, Any]) -> bool:
    stages = sections["train"].get("stages")
    return bool(stages) and all(stage["lr"] is not None for stage in stages)


def _left_open(then: Mapping[str, Any], now: Mapping[str, Any]) -> Mapping[str, Any]:
    """A recipe, with the rates that had not been found when another was written down taken out."""
    rates, stages = _rates(then), now["train"]["stages"]
    if "auto" not in rates or len(rates) != len(stages):
        return now
    olds = then["train"]["stages"]
    stages = [
        {**new, "lr": old["lr"]} if rate == "auto" else new
        for old, new, rate in zip(olds, stages, rates, strict=True)
    ]
    return {**now, "train": {**now["train"], "stages": stages}}


def has_nothing_left(
    start: Start, saved: schema.Recipe, now: Mapping[str, Any], steps: int
) -> bool:
    """Whether a finished run, taken up again, has nothing more to do. Nothing is written here.

    Args:
        saved: the recipe as it is to run.
        now: the identity of that run.
        steps: of the whole run.

    Raises:
        InputError: where the checkpoint is of another recipe, data or model.
    """
    if start.point is not None:
        plain = checkpoint.read_plain(start.point)
        compare_identities(plain["identity"], now, start.point)
    elif start.replaces or start.finished:
        _check_replaced(start, saved, now["derived"])
    if not start.finished:
        return False
    # Not only the last checkpoint's steps and rates: there may be none of the end.
    done = json.loads((start.folder / "results.json").read_text(encoding="utf-8"))
    ran = _with_rates(saved, _as_saved(start.folder))
    if done["hashes"]["recipe"] == recipe_hash(ran) or done["train"]["steps"] >= steps:
        return True
    if start.point is None:
        raise InputError(
            f"run.resume: {start.folder} is finished after {done['train']['steps']:,} steps, this "
            f"recipe asks for {steps:,}, and there is no checkpoint to go on from; leave "
            "run.resume out, and choose another run.dir"
        )
    asked = saved.score.patience
    return asked is not None and bool(plain["standing"]["waited"] >= asked)


def _check_replaced(start: Start, saved: schema.Recipe, derived: Sequence[str]) -> None:
    """Refuse another run than the one in a folder, which left no checkpoint to compare."""
    folder, then = start.folder, _flat(_as_saved(start.folder))
    # A finished run is not run again: what is in its sources, its results have hashes of.
    spared = REPORTING | BY_CONTENT if start.finished else set()
    if then["optim.head_scale"] is None:
        then["optim.head_scale"] = 1.0  # before it could be chosen
    now = _flat(saved.model_dump(mode="json"))
    differs = [
        f"{key} is {_said(now[key])}, and was {_said(then[key])}"
        for key in now
        if now[key] != then[key]
        and key not in NO_EFFECT | ENDING | LENGTH | ORDER_OF_SUMS | spared | {*derived}
    ]
    if differs:
        raise InputError(
            f"run.resume: {folder} holds a run of another recipe ({shorten(differs)}); choose "
            "another "
            "run.dir, or leave run.resume out and set run.overwrite=true to replace it"
        )


def compare_identities(
    then: Mapping[str, Any], now: Mapping[str, Any], point: Path, rates_found: bool = False
) -> list[str]:
    """Compare two identities: what may have changed, as notes; refuse what may not.

    Args:
        rates_found: whether rates that were `auto` then may be numbers now, as this process has
            found them since.

    Raises:
        InputError: that says all that differs.
    """
    notes, problems = [], []
    keys_then = _flat(then["recipe"])
    recipe_now = _left_open(then["recipe"], now["recipe"]) if rates_found else now["recipe"]
    keys_now = _flat(recipe_now)
    # A key that came later stood at its default.
    defaults = schema.Recipe(data=schema.Data(source="")).model_dump(mode="json")
    defaults["optim"]["head_scale"] = 1.0  # before it could be chosen
    keys_then = _flat(defaults) | keys_then
    if _each_has_its_rate(now["recipe"]) and keys_then["train.stages"] == keys_now["train.stages"]:
        keys_then["optim.lr"] = keys_now["optim.lr"]  # it is no stage's
    for key in keys_now:
        was, value = keys_then.get(key), keys_now[key]
        if was == value or key in NO_EFFECT | ENDING | REPORTING | BY_CONTENT | {SAMPLING}:
            continue
        said = f"{key} was {was} until here, and is {value} from here on"
        if key in ORDER_OF_SUMS:
            notes.append(
                f"{said}: the same but for the order in which floats are added, and what dropout "
                "draws"
            )
        elif key in now["derived"]:
            notes.append(f"{said}: the same but for rounding")
        elif key in LENGTH:
            notes.append(f"{said}; the learning rate follows the new length")
        else:
            problems.append(f"{key} is {_said(value)}, and was {_said(was)}")
    if then["data"]["labels"] != now["data"]["labels"]:
        was, value = then["data"]["labels"], now["data"]["labels"]
        problems.append(f"the labels are {shorten(value)}, and were {shorten(was)}")
    for name, split in now["data"]["splits"].items():
        old = then["data"]["splits"][name]
        if old != split:
            problems.append(
                f"the {name} documents are not the same ({split['rows']:,} rows, and were "
                f"{old['rows']:,}; {keys_now['data.source']})"
            )
    same_texts = then["data"] == now["data"]
    same_length = keys_then["data.max_length"] == keys_now["data.max_length"]
    if same_texts and same_length and then["tokens"] != now["tokens"]:
        problems.append(
            f"the tokenizer of {keys_now['model.source']} makes other tokens of the same documents"
        )
    configs = then["encoder"], now["encoder"]
    for key in sorted(configs[0].keys() | configs[1].keys()):
        was, value = (config.get(key) for config in configs)
        if was != value:
            problems.append(f"{key} in the encoder's config.json is {value}, and was {was},")
    if then["start"] != now["start"]:
        problems.append(
            f"the weights it began with are not those of {keys_now['model.source']} (revision "
            f"{keys_now['model.revision']}, and was {keys_then['model.revision']})"
        )
    if keys_then["train.stages"] == keys_now["train.stages"]:
        were, are = then.get("ends", []), now["ends"]
        if were != are:
            problems.append(f"the stages before the last end at steps {are}, and ended at {were}")
        drew, draw = (", ".join(_sampling(one)) for one in (then, now))
        if drew != draw:
            problems.append(f"{SAMPLING} is {draw}, and was {drew}")
    if problems:
        raise InputError(
            f"run.resume: {problem} when {point} was written; set it back, or start a new run "
            "without run.resume"
            for problem in problems
        )
    return notes


def _said(value: object) -> str:
    """A key's value; of stages, what each sets."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        return str(value)
    stages = [
        ", ".join(f"{key}: {of}" for key, of in one.items() if of is not None) for one in value
    ]
    return "[" + ", ".join(f"{{{stage}}}" for stage in stages) + "]"


def _sampling(identity: Mapping[str, Any]) -> Sequence[str]:
    """How each stage of a run draws the rows of its steps."""
    train, rows = identity["recipe"]["train"], identity["data"]["splits"]["train"]["rows"]
    found = []
    for stage in train.get("stages") or [{}]:
        said = {key: value for key, value in stage.items() if value is not None}
        found.append(loop.resolve_sampling(rows, schema.Train.model_construct(**train | said)))
    return found


def recipe_hash(saved: schema.Recipe) -> str:
    """SHA-256 of all that decides a run's numbers, but for its sources, which have hashes."""
    keys = _flat(saved.model_dump(mode="json"))
    deciding = {key: keys[key] for key in sorted(keys.keys() - NO_EFFECT - BY_CONTENT)}
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()


def _flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"{section}.{key}": value
        for section, keys in sections.items()
        for key, value in keys.items()
    }
