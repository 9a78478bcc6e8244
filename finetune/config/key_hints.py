"""A key that no recipe has → the one that was probably meant."""

from finetune.config.schema import SECTIONS
from finetune.runtime.errors import closest_match

# What other trainers call these keys.
NAMES_ELSEWHERE = {
    "learning_rate": "optim.lr",
    "lr_scheduler_type": "optim.schedule",
    "warmup_ratio": "optim.warmup",
    "warmup_steps": "optim.warmup",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "per_device_train_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.micro_batch_tokens",
    "max_seq_length": "data.max_length",
    "model_name_or_path": "model.source",
    "base_model": "model.source",
    "dataset_name": "data.source",
    "text_column": "data.text",
    "label_column": "data.label",
    "metric_for_best_model": "score.monitor",
    "eval_steps": "score.every",
    "eval_strategy": "score.every",
    "output_dir": "run.dir",
    "report_to": "run.trackers",
    "hub_model_id": "publish.repo_id",
}


def closest_key(key: str) -> str | None:
    """`section.key` of a key that exactly one section has, or has another name elsewhere."""
    if key in NAMES_ELSEWHERE:
        return NAMES_ELSEWHERE[key]
    homes = [f"{name}.{key}" for name, section in SECTIONS.items() if key in section.model_fields]
    return homes[0] if len(homes) == 1 else None


def key_hint(key: str, section: str) -> str:
    """`; did you mean optim.lr?`, or the keys of the section where nothing is close."""
    home = closest_key(key)
    if home is not None:
        return f"; did you mean {home}?"
    guess = closest_match(key, SECTIONS[section].model_fields)
    if guess is not None:
        return f"; did you mean {section}.{guess}?"
    keys = {f"{name}.{k}" for name, part in SECTIONS.items() for k in part.model_fields}
    guess = closest_match(key, {k.split(".")[1] for k in keys})
    home = closest_key(guess) if guess is not None else None
    if home is not None:
        return f"; did you mean {home}?"
    return f"; the keys of {section} are: {', '.join(SECTIONS[section].model_fields)}"
