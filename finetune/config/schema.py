"""What a recipe is: every choice of a run, typed, frozen, with its default.

Each section has a module of its own, and is imported from here. `loader.py` reads a recipe from a
YAML file and writes it back.
"""

from collections.abc import Collection
from typing import Literal, Self

from pydantic import model_validator

from finetune.config.data_section import LEAST_VALIDATION as LEAST_VALIDATION
from finetune.config.data_section import Data as Data
from finetune.config.distil_section import Distil as Distil
from finetune.config.label_tasks import TASKS_METRICS, check_tasks
from finetune.config.model_section import Model as Model
from finetune.config.number_task import NUMBER_METRICS, check_number_task, check_other_task
from finetune.config.run_sections import Cache as Cache
from finetune.config.run_sections import Checkpoint as Checkpoint
from finetune.config.run_sections import Publish as Publish
from finetune.config.run_sections import Run as Run
from finetune.config.run_sections import Score as Score
from finetune.config.section import Section as Section
from finetune.config.section import conflict
from finetune.config.training_sections import DEFAULT_LR as DEFAULT_LR
from finetune.config.training_sections import EPOCHS as EPOCHS
from finetune.config.training_sections import LEAST_STEPS as LEAST_STEPS
from finetune.config.training_sections import Optim as Optim
from finetune.config.training_sections import Stage as Stage
from finetune.config.training_sections import Train as Train

# The keys that decide how many steps there are, in the whole run or in a stage.
LENGTH = ("epochs", "max_steps", "min_steps")
# Those that mean something where labels have an order alone.
RANK_METRICS = ("quadratic_weighted_kappa", "rank_mae", "within_one_accuracy")
# The default metrics of each kind of task, and which of them picks the model.
TASK_METRICS = {
    "ordered": ((*RANK_METRICS, "accuracy"), "quadratic_weighted_kappa"),
    "hierarchy": (("accuracy", "f1_macro", "hierarchical_f1", "level_1_accuracy"), "accuracy"),
    "number": (NUMBER_METRICS, NUMBER_METRICS[0]),
    "multi_label": (("f1_micro", "f1_macro", "accuracy"), "f1_macro"),
    "tasks": (TASKS_METRICS, TASKS_METRICS[0]),
}


class Recipe(Section):
    """A whole run: every choice, with its default."""

    data: Data
    model: Model = Model()
    train: Train = Train()
    distil: Distil = Distil()
    optim: Optim = Optim()
    score: Score = Score()
    checkpoint: Checkpoint = Checkpoint()
    cache: Cache = Cache()
    run: Run = Run()
    publish: Publish = Publish()

    @model_validator(mode="after")
    def _folds_score_all_of_train(self) -> Self:
        if self.run.folds is None:
            return self
        if self.data.test not in ("auto", "carve"):
            raise conflict(
                "data.test",
                f"auto with run.folds, where train is scored, in parts, got '{self.data.test}'",
            )
        for key in ("test_fraction", "max_test_rows", "fold", "split_by_time"):
            default, value = Data.model_fields[key].default, getattr(self.data, key)
            if value != default:
                expected = "null" if default is None else f"{default}, its default,"
                raise conflict(
                    f"data.{key}",
                    f"{expected} with run.folds, which scores each row of train once, got {value}",
                )
        return self

    @model_validator(mode="after")
    def _teachers_have_not_seen_what_is_scored(self) -> Self:
        if self.distil.teacher is None:
            return self
        for key, value in (("run.folds", self.run.folds), ("data.fold", self.data.fold)):
            if value is not None:
                raise conflict(
                    "distil.teacher",
                    f"null with {key}: a teacher has learned from rows that the folds hold out",
                )
        if self.distil.unlabelled is not None and self.score.out_of_scope != "off":
            raise conflict(
                "score.out_of_scope",
                "off with distil.unlabelled, whose documents may fit no label, got "
                f"{self.score.out_of_scope}",
            )
        return self

    @model_validator(mode="after")
    def _slices_are_no_text_or_label(self) -> Self:
        label = self.data.label
        taken = {*self.data.columns(), self.data.text_pair}
        taken |= {label} if isinstance(label, str) else {*label}
        for column in self.score.slices or ():
            if column in taken:
                raise conflict(
                    "score.slices", f"other columns than those of text and label, got '{column}'"
                )
        return self

    @model_validator(mode="after")
    def _folds_leave_no_validation(self) -> Self:
        if self.run.folds is not None and self.score.out_of_scope != "off":
            raise conflict(
                "score.out_of_scope",
                "off with run.folds, which leaves no validation split to choose a detector on, "
                f"got {self.score.out_of_scope}",
            )
        return self

    @model_validator(mode="after")
    def _ranks_have_an_order(self) -> Self:
        if self.data.task != "ordered" and self.data.labels is None:
            for key, names in (("metrics", self.score.metrics), ("monitor", (self.score.monitor,))):
                for name in names:
                    if name in RANK_METRICS:
                        raise conflict(
                            f"score.{key}",
                            f"no {name} without the order of the labels, which data.task 'ordered' "
                            "or data.labels gives",
                        )
        return self

    @model_validator(mode="after")
    def _numbers_are_no_labels(self) -> Self:
        check = check_number_task if self.data.task == "number" else check_other_task
        if (problem := check(self)) is not None:
            raise problem
        return self

    @model_validator(mode="after")
    def _tasks_have_labels_alone(self) -> Self:
        if (problem := check_tasks(self)) is not None:
            raise problem
        return self

    @model_validator(mode="after")
    def _order_has_a_linear_head(self) -> Self:
        if self.data.task != "ordered":
            return self
        if self.model.head != "linear":
            raise conflict(
                "model.head",
                "linear with data.task 'ordered', as architectures have no head of their own for "
                f"it, got '{self.model.head}'",
            )
        if self.publish.onnx:
            raise conflict(
                "publish.onnx",
                "false with data.task 'ordered', as the libraries that the branch is for have no "
                "head for it, got true",
            )
        if self.model.head_init not in ("zeros", "normal"):
            raise conflict(
                "model.head_init",
                "zeros or normal with data.task 'ordered', whose head learns the steps between "
                f"labels, got '{self.model.head_init}'",
            )
        return self

    @model_validator(mode="after")
    def _layers_that_learn_have_rates(self) -> Self:
        frozen = {stage.freeze or self.model.freeze for stage in self.train.stages or (Stage(),)}
        if frozen == {"encoder"} and self.optim.layer_decay != 1:
            raise conflict(
                "optim.layer_decay",
                f"1.0 with model.freeze 'encoder', got {self.optim.layer_decay}",
            )
        return self

    @model_validator(mode="after")
    def _stages_leave_no_key_without_use(self) -> Self:
        """Else a sweep over it would try the same run again and again."""
        stages, train = self.train.stages, Train()
        if not stages:
            return self
        by_default: dict[str, tuple[object, ...]] = {
            "model.freeze": ("auto", self.freezes_by_default()),
            "optim.lr": (None, DEFAULT_LR[self.optim.name]),
            **{f"train.{key}": (getattr(train, key),) for key in LENGTH},
            "train.epochs": ("auto", EPOCHS),  # what auto means, unless rows are few
        }
        for name, defaults in by_default.items():
            section, key = name.split(".")
            value = getattr(getattr(self, section), key)
            if value not in defaults and all(getattr(s, key) is not None for s in stages):
                raise conflict(
                    name,
                    f"{defaults[0] or 'null'}, its default, as each of train.stages has its own, "
                    f"got {value}",
                )
        return self

    def freezes_by_default(self) -> Literal["none", "embeddings"]:
        """What model.freeze 'auto' means."""
        return "none" if self.model.is_static else self.optim.freezes()

    @model_validator(mode="after")
    def _static_embeddings_read_in_one_piece(self) -> Self:
        if not self.model.is_static:
            return self
        if self.data.truncation == "windows":
            raise conflict(
                "data.truncation",
                "head, tail or head_tail with static embeddings, which read documents of any "
                "length in one piece (data.max_length), got 'windows'",
            )
        if self.train.checkpointing == "on":
            raise conflict(
                "train.checkpointing",
                "auto or off with static embeddings, which have no layers to compute again, got "
                "'on'",
            )
        if any(isinstance(stage.freeze, int) for stage in self.train.stages):
            raise conflict(
                "train.stages",
                "freeze of none or embeddings with static embeddings, which have no layers",
            )
        return self

    def by_stage(self) -> tuple[Self, ...]:
        """The recipe as each stage has it, in order; without stages, itself alone."""
        if not self.train.stages:
            return (self,)
        return tuple(
            self.model_copy(
                update={
                    "model": self.model.model_copy(update=_given(stage, {"freeze"})),
                    "optim": self.optim.model_copy(update=_given(stage, {"lr"})),
                    "train": self.train.model_copy(
                        update=_given(stage, LENGTH)
                        | {"stages": ()}
                        | ({"average_last": None} if number < len(self.train.stages) else {})
                    ),
                }
            )
            for number, stage in enumerate(self.train.stages, 1)
        )

    def with_rate(self, rate: float | Literal["auto"], stage: int = 1) -> Self:
        """The same with another peak learning rate, of so many a stage where there are stages."""
        stages = [*self.train.stages]
        if not stages:
            return self.model_copy(update={"optim": self.optim.model_copy(update={"lr": rate})})
        stages[stage - 1] = stages[stage - 1].model_copy(update={"lr": rate})
        changes: dict[str, object] = {
            "train": self.train.model_copy(update={"stages": tuple(stages)})
        }
        if all(one.lr is not None for one in stages):  # then optim.lr is no stage's
            default = {"lr": DEFAULT_LR[self.optim.name]}
            changes["optim"] = self.optim.model_copy(update=default)
        return self.model_copy(update=changes)

    def with_steps(self, steps: int, scored_every: int | Literal["epoch"]) -> Self:
        """The same with so many steps, and validation scored every so many of them."""
        length = {"max_steps": steps, "min_steps": steps}
        return self.model_copy(
            update={
                "train": self.train.model_copy(update=length),
                "score": self.score.model_copy(update={"every": scored_every}),
            }
        )


SECTIONS: dict[str, type[Section]] = {
    name: field.annotation
    for name, field in Recipe.model_fields.items()
    if isinstance(field.annotation, type)
}


def _given(stage: Stage, keys: Collection[str]) -> dict[str, object]:
    return stage.model_dump(include={*keys}, exclude_none=True)


def for_task(recipe: Recipe, multi_label: bool = False) -> Recipe:
    """The recipe with the metrics that suit its task, where it names none.

    Args:
        multi_label: whether rows may have several labels, which the data say.
    """
    kind: str = "hierarchy" if recipe.data.hierarchy is not None else recipe.data.task
    if recipe.data.tasks is not None:
        kind = "tasks"
    elif multi_label:
        kind = "multi_label"
    found = TASK_METRICS.get(kind)
    if found is None:
        return recipe
    given, (names, monitor) = recipe.score.model_fields_set, found
    changes: dict[str, object] = {}
    if "metrics" not in given:
        changes["metrics"] = names
    if given.isdisjoint({"metrics", "monitor"}):
        changes["monitor"] = monitor
    return recipe.model_copy(update={"score": recipe.score.model_copy(update=changes)})
