"""What `data.task: number` leaves of a recipe's other keys, and why."""

from typing import Any

from pydantic_core import PydanticCustomError

from finetune.config.section import conflict
from finetune.runtime.wording import show_value

# The metrics of numbers; the first is the default of `score.monitor`.
NUMBER_METRICS = ("r2", "mae", "rmse", "spearman")
_NO_LABELS = "which predicts no labels"
# section.key → why only its default makes sense.
_DEFAULT_ALONE = {
    "data.label_separator": _NO_LABELS,
    "data.label_lists": _NO_LABELS,
    "data.labels": _NO_LABELS,
    "data.label_probabilities": _NO_LABELS,
    "data.multi_label": _NO_LABELS,
    "data.rows_per_class": _NO_LABELS,
    "model.head": "whose scale architectures' own heads do not have",
    "train.loss": "whose loss is the squared error",
    "train.label_smoothing": "whose loss is the squared error",
    "train.class_weights": _NO_LABELS,
    "score.target_accuracy": "which has prediction intervals in place of abstaining",
    "score.abstain": "which has prediction intervals in place of abstaining",
    "score.explained_rows": "as explanations are of labels",
    "score.out_of_scope": "as every document has a number",
    "distil.teacher": "as teachers give probabilities of labels",
    "run.folds": "which is scored on one test split; run.seeds repeats it",
    "publish.onnx": "as the libraries that the branch is for give labels",
}


def check_number_task(recipe: Any) -> PydanticCustomError | None:
    """What is wrong with a recipe (`schema.Recipe`) of numbers; None: nothing."""
    task = "with data.task 'number',"
    for name, why in _DEFAULT_ALONE.items():
        section, key = name.split(".")
        of = getattr(recipe, section)
        default, value = type(of).model_fields[key].default, getattr(of, key)
        if value != default:
            return conflict(name, f"{show_value(default)} {task} {why}, got {show_value(value)}")
    if recipe.model.head_init not in ("zeros", "normal"):
        return conflict(
            "model.head_init",
            f"zeros or normal {task} whose head has no labels, got '{recipe.model.head_init}'",
        )
    if recipe.data.window_pooling == "softmax":
        return conflict("data.window_pooling", f"mean or max {task} {_NO_LABELS}, got 'softmax'")
    if recipe.train.sampling == "balanced":
        return conflict(
            "train.sampling", f"auto, uniform or stratified {task} {_NO_LABELS}, got 'balanced'"
        )
    given = recipe.score.model_fields_set
    for key, names in (("metrics", recipe.score.metrics), ("monitor", (recipe.score.monitor,))):
        wrong = [one for one in names if one not in (*NUMBER_METRICS, "loss")]
        if key in given and wrong:
            known = ", ".join(NUMBER_METRICS)
            return conflict(f"score.{key}", f"some of {known} {task} got '{wrong[0]}'")
    return None


def check_other_task(recipe: Any) -> PydanticCustomError | None:
    """What a recipe (`schema.Recipe`) of labels has that is of numbers alone; None: nothing."""
    for key, names in (("metrics", recipe.score.metrics), ("monitor", (recipe.score.monitor,))):
        wrong = [one for one in names if one in NUMBER_METRICS]
        if wrong:
            return conflict(
                f"score.{key}", f"no {wrong[0]} without data.task 'number', as it is of numbers"
            )
    default = type(recipe.score).model_fields["interval_coverage"].default
    if recipe.score.interval_coverage != default:
        return conflict(
            "score.interval_coverage",
            f"{default}, its default, without data.task 'number', got "
            f"{recipe.score.interval_coverage}",
        )
    return None
