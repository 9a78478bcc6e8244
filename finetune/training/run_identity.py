"""What makes a run that run: recipe, documents, tokens, encoder. Compared when one is taken up."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from finetune.config import schema
from finetune.data.corpus import Corpus, split_hash
from finetune.runtime.errors import InputError, shorten
from finetune.runtime.wording import show_value
from finetune.tokenization.token_table import TokenTable
from finetune.training.checkpoint import step_of
from finetune.training.schedule import average_begin, resolve_sampling

# What decides no number.
NO_EFFECT = {
    "train.log_every",
    "train.checkpointing",
    "data.id",
    *(f"run.{key}" for key in ("name", "dir", "overwrite", "resume", "seeds", "folds")),
    *("run.trackers", "run.mlflow_model", "run.hang_minutes"),
    *(f"checkpoint.{key}" for key in schema.Checkpoint.model_fields),
    *("cache.dir", "cache.keep", "cache.tokens", "cache.max_gb"),
    *(f"publish.{key}" for key in schema.Publish.model_fields),
}
# What may change on the way, as it only decides how long the run goes on.
LENGTH = {"train.epochs", "train.max_steps", "train.min_steps"}
ENDING = {"train.on_divergence", "score.patience", "score.min_improvement"}
REPORTING = {
    *("score.target_accuracy", "score.abstain", "score.slices"),
    *("score.explained_rows", "score.out_of_scope", "score.out_of_scope_rate"),
}
# Compared by what is in them, as folders move.
BY_CONTENT = {"data.source", "model.source"}
# Compared by what it comes to, as `auto` follows from rows and epochs.
SAMPLING = "train.sampling"
# The same mathematics, with floats added in another order.
ORDER_OF_SUMS = {
    *("train.micro_batch_tokens", "train.packing", "train.threads", "train.compile"),
    *("model.attention", "run.deterministic"),
}


def run_identity(
    resolved: schema.Recipe,
    corpus: Corpus,
    model: PreTrainedModel,
    *,
    tokens: str,
    start: str,
    ends: Sequence[int],
    derived: Sequence[str],
) -> dict[str, Any]:
    """What a checkpoint says of the run that it belongs to.

    Args:
        resolved: the recipe as recipe.yaml holds it.
        model: as it was built; its encoder's config decides what the weights compute.
        tokens: `tokens_hash` of all splits.
        start: the hash of the weights before the first step.
        ends: the last step of each stage but the last.
        derived: keys that follow from how long the run is, as nobody set them.
    """
    encoder: Any = model.base_model.config
    config = json.loads(json.dumps(encoder.to_dict(), default=str))  # as it will be read back
    return {
        "recipe": resolved.model_dump(mode="json"),
        "derived": [*derived],
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


def compare_identities(
    then: Mapping[str, Any], now: Mapping[str, Any], point: Path, rates_found: bool = False
) -> list[str]:
    """Compare a checkpoint's identity with this run's: what may have changed, as notes.

    Args:
        rates_found: whether rates that were `auto` then may be numbers now, as this process has
            found them since.

    Raises:
        InputError: with all that differs and may not.
    """
    recipe_now = (
        _without_rates_found(then["recipe"], now["recipe"]) if rates_found else now["recipe"]
    )
    notes, problems = _compare_keys(then, recipe_now, now)
    problems += [
        *_compare_data(then, now),
        *_compare_model(then, now),
        *_compare_stages(then, now),
        *_compare_average(then, now, step_of(point)),
    ]
    if problems:
        raise InputError(
            f"run.resume: {problem} when {point} was written; set it back, or start a new run "
            "without run.resume"
            for problem in problems
        )
    return notes


def _compare_keys(
    then: Mapping[str, Any], recipe_now: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Of the recipe's keys: what may have changed, and what may not."""
    notes, problems = [], []
    # A key that is newer than the checkpoint did then what it does by default.
    keys_then, keys_now = _defaults() | flat_keys(then["recipe"]), flat_keys(recipe_now)
    if each_has_its_rate(now["recipe"]) and keys_then["train.stages"] == keys_now["train.stages"]:
        keys_then["optim.lr"] = keys_now["optim.lr"]  # it is no stage's
    for key, value in keys_now.items():
        was = keys_then[key]
        if was == value or key in NO_EFFECT | ENDING | REPORTING | BY_CONTENT | {SAMPLING}:
            continue
        change = f"{key} was {format_key(was)} until here, and is {format_key(value)} from here on"
        if key in ORDER_OF_SUMS:
            notes.append(
                f"{change}: the same but for the order in which floats are added, and what dropout "
                "draws"
            )
        elif key in now["derived"]:
            notes.append(f"{change}: the same but for rounding")
        elif key in LENGTH:
            notes.append(f"{change}; the learning rate follows the new length")
        else:
            problems.append(f"{key} is {format_key(value)}, and was {format_key(was)}")
    return notes, problems


def _defaults() -> dict[str, Any]:
    """Of each key of the recipe that has one, its default, as JSON holds it."""
    recipe = schema.Recipe(data=schema.Data(source="any"))
    return flat_keys(recipe.model_dump(mode="json"))


def _compare_data(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Labels, documents and tokens that are not the same."""
    problems = []
    if then["data"]["labels"] != now["data"]["labels"]:
        was, value = then["data"]["labels"], now["data"]["labels"]
        problems.append(f"the labels are {shorten(value)}, and were {shorten(was)}")
    for name, split in now["data"]["splits"].items():
        old = then["data"]["splits"][name]
        if old != split:
            problems.append(
                f"the {name} documents are not the same ({split['rows']:,} rows, and were "
                f"{old['rows']:,}; {now['recipe']['data']['source']})"
            )
    same_length = then["recipe"]["data"]["max_length"] == now["recipe"]["data"]["max_length"]
    if then["data"] == now["data"] and same_length and then["tokens"] != now["tokens"]:
        problems.append(
            f"the tokenizer of {now['recipe']['model']['source']} makes other tokens of the same "
            "documents"
        )
    return problems


def _compare_model(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings of the encoder, and weights to begin with, that are not the same."""
    problems = []
    configs = then["encoder"], now["encoder"]
    for key in sorted(configs[0].keys() | configs[1].keys()):
        was, value = (config.get(key) for config in configs)
        if was != value:
            problems.append(
                f"{key} in the encoder's config.json is {show_value(value)}, and was "
                f"{show_value(was)},"
            )
    if then["start"] != now["start"]:
        model, earlier = now["recipe"]["model"], then["recipe"]["model"]
        problems.append(
            f"the weights it began with are not those of {model['source']} (revision "
            f"{show_value(model['revision'])}, and was {show_value(earlier['revision'])})"
        )
    return problems


def _compare_stages(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Ends of stages, and how the rows of a step are drawn, that are not the same."""
    if then["recipe"]["train"]["stages"] != now["recipe"]["train"]["stages"]:
        return []
    problems = []
    if then["ends"] != now["ends"]:
        problems.append(
            f"the stages before the last end at steps {now['ends']}, and ended at {then['ends']}"
        )
    was, value = (", ".join(_sampling(one)) for one in (then, now))
    if was != value:
        problems.append(f"{SAMPLING} is {value}, and was {was}")
    return problems


def _compare_average(then: Mapping[str, Any], now: Mapping[str, Any], done: int) -> list[str]:
    """A mean of the weights that has begun at another step than it would have."""
    if not now["recipe"]["train"].get("average_last"):
        return []
    was, value = (_average_from(one) for one in (then, now))
    if was == value or done <= value:
        return []
    return [
        f"train.average_last: with this length, the mean of the weights is of the steps after "
        f"{value:,}, and it was of those after {was:,}"
    ]


def _average_from(identity: Mapping[str, Any]) -> int:
    """The first step, counted through all stages, whose weights are averaged."""
    rows, ends = identity["data"]["splits"]["train"]["rows"], identity["ends"]
    return (ends[-1] if ends else 0) + average_begin(rows, _stage_settings(identity)[-1])


def recipe_rates(sections: Mapping[str, Any]) -> list[Any]:
    """The rate of each stage of a recipe that was written down: a number, or auto still."""
    own = [stage["lr"] for stage in sections["train"].get("stages") or [{"lr": None}]]
    return [sections["optim"]["lr"] if rate is None else rate for rate in own]


def each_has_its_rate(sections: Mapping[str, Any]) -> bool:
    stages = sections["train"].get("stages")
    return bool(stages) and all(stage["lr"] is not None for stage in stages)


def _without_rates_found(then: Mapping[str, Any], now: Mapping[str, Any]) -> Mapping[str, Any]:
    """A recipe, with the rates that had not been found when another was written down taken out."""
    rates, stages = recipe_rates(then), now["train"]["stages"]
    if "auto" not in rates or len(rates) != len(stages):
        return now
    olds = then["train"]["stages"]
    stages = [
        {**new, "lr": old["lr"]} if rate == "auto" else new
        for old, new, rate in zip(olds, stages, rates, strict=True)
    ]
    return {**now, "train": {**now["train"], "stages": stages}}


def format_key(value: object) -> str:
    """A key's value; of stages, what each sets."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        return show_value(value)
    stages = [
        ", ".join(f"{key}: {of}" for key, of in one.items() if of is not None) for one in value
    ]
    return "[" + ", ".join(f"{{{stage}}}" for stage in stages) + "]"


def _sampling(identity: Mapping[str, Any]) -> Sequence[str]:
    """How each stage of a run draws the rows of its steps."""
    rows = identity["data"]["splits"]["train"]["rows"]
    return [resolve_sampling(rows, train) for train in _stage_settings(identity)]


def _stage_settings(identity: Mapping[str, Any]) -> list[schema.Train]:
    """The settings of each stage's training."""
    train, found = identity["recipe"]["train"], []
    for stage in train.get("stages") or [{}]:
        said = {key: value for key, value in stage.items() if value is not None}
        found.append(schema.Train.model_construct(**train | said))
    return found


def recipe_hash(saved: schema.Recipe) -> str:
    """SHA-256 of all that decides a run's numbers, but for its sources, which have hashes."""
    keys = flat_keys(saved.model_dump(mode="json"))
    deciding = {key: keys[key] for key in sorted(keys.keys() - NO_EFFECT - BY_CONTENT)}
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()


def flat_keys(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"{section}.{key}": value
        for section, keys in sections.items()
        for key, value in keys.items()
    }
