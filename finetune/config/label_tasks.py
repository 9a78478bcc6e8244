"""What `data.tasks` leaves of a recipe's other keys, and why."""

from typing import Any

from pydantic_core import PydanticCustomError

from finetune.config.section import conflict
from finetune.runtime.wording import show_value

# The default metrics, each of every task and as the mean of all; the first picks the model.
TASKS_METRICS = ("f1_macro", "accuracy")
MARK = ": "  # between a task and its label, in the names of the label space
POINT = "."  # between a task and a metric: `topic.accuracy`

_SEVERAL = "which has labels of several columns"
_ALONE = "which is for models of one label a row so far"
# section.key → why only its default makes sense.
_DEFAULT_ALONE = {
    "data.task": "whose labels are classes",
    "data.hierarchy": _ALONE,
    "data.label_order": "whose labels have no order",
    "data.label_probabilities": _ALONE,
    "data.multi_label": "where a row has at most one label of each task",
    "data.rows_per_class": _SEVERAL,
    "model.head": "as architectures have no head of their own for it",
    "score.target_accuracy": _ALONE,
    "score.abstain": _ALONE,
    "score.explained_rows": _ALONE,
    "score.out_of_scope": _ALONE,
    "distil.teacher": _ALONE,
    "run.folds": _ALONE,
    "publish.onnx": "as the libraries that the branch is for have no head for it",
}
# What a prediction is called, or has beside its tasks.
_TAKEN = {
    *("id", "error", "probabilities", "explanation", "tokens", "tokens_read", "windows"),
    *("score", "labels", "scores", "levels", "level_scores", "number", "low", "high"),
    *("out_of_scope", "out_of_scope_score"),
}


def score_field(task: str) -> str:
    """What the probability of a task's label is called in predictions."""
    return f"{task}_score"


def base_metric(name: str, tasks: Any) -> str:
    """A metric without the task in front of it: accuracy, of topic.accuracy."""
    task, point, metric = name.rpartition(POINT)
    return metric if point and task in tasks else name


def check_tasks(recipe: Any) -> PydanticCustomError | None:
    """What is wrong with the tasks of a recipe (`schema.Recipe`); None: nothing."""
    if recipe.data.tasks is None:
        return _check_monitor(recipe.score, {})
    return _check_names(recipe.data) or _check_keys(recipe) or _check_metrics(recipe)


def _check_names(data: Any) -> PydanticCustomError | None:
    weights = data.task_weights()
    if not weights:
        return conflict("data.tasks", "two columns or more, got none")
    if data.label != tuple(weights):
        return conflict(
            "data.label",
            "no value with data.tasks, which names the columns of labels (or just these, "
            f"{[*weights]}), got {show_value(data.label)}",
        )
    if not any(weights.values()):
        return conflict("data.tasks", "a weight above 0 for one task or more, got 0 for all")
    if data.weight in weights:
        return conflict(
            "data.weight", f"another column than those of data.tasks, got '{data.weight}'"
        )
    fields = [*weights, *map(score_field, weights)]
    for name in weights:
        if MARK in name or not name.strip():
            return conflict("data.tasks", f"columns without '{MARK}' in their names, got '{name}'")
        if name in _TAKEN or fields.count(name) > 1:
            return conflict(
                "data.tasks",
                f"columns of other names than those that predictions have anyway, got '{name}'; "
                "rename the column",
            )
    return None


def _check_keys(recipe: Any) -> PydanticCustomError | None:
    for name, why in _DEFAULT_ALONE.items():
        section, key = name.split(".")
        of = getattr(recipe, section)
        default, value = type(of).model_fields[key].default, getattr(of, key)
        if value != default:
            expected = f"{show_value(default)} with data.tasks, {why}"
            return conflict(name, f"{expected}, got {show_value(value)}")
    for name, value, allowed, why in (
        (
            "model.head_init",
            recipe.model.head_init,
            ("zeros", "normal"),
            "whose head is of several label spaces",
        ),
        (
            "data.truncation",
            recipe.data.truncation,
            ("head", "tail", "head_tail"),
            "as the logits of windows are pooled for one label a row",
        ),
        (
            "train.sampling",
            recipe.train.sampling,
            ("auto", "uniform", "stratified"),
            _SEVERAL,
        ),
    ):
        if value not in allowed:
            words = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
            return conflict(name, f"{words} with data.tasks, {why}, got '{value}'")
    return None


def _check_metrics(recipe: Any) -> PydanticCustomError | None:
    weights, score = recipe.data.task_weights(), recipe.score
    for name in score.metrics:
        if base_metric(name, weights) != name:
            return conflict(
                "score.metrics",
                f"metrics alone with data.tasks, each of which is measured of every task, got "
                f"'{name}'",
            )
        if name.startswith(("hierarchical_", "level_")):
            return conflict("score.metrics", f"no {name} without data.hierarchy")
    return _check_monitor(score, weights)


def _check_monitor(score: Any, weights: dict[str, float]) -> PydanticCustomError | None:
    """That it is measured: `Score` looks at what is behind the point alone."""
    measured = (*score.metrics, "loss")
    if base_metric(score.monitor, weights) in measured:
        return None
    alone = ", or one of them of a task (topic.accuracy)" * bool(weights)
    names = ", ".join(score.metrics)
    return conflict(
        "score.monitor",
        f"one of score.metrics ({names}) or loss{alone}, got '{score.monitor}'",
    )
