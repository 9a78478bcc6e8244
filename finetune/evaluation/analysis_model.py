"""What an analysis of a run's model holds: scores, calibration, weak spots. The types of its keys.

`analysis.py` fills them in; `results.json` holds them beside the sections of `results_model.py`.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _finite_or_none(value: Any) -> Any:
    """JSON has no nan and no infinity: null in place of both."""
    if isinstance(value, (list, tuple)):
        return None if any(_finite_or_none(end) is None for end in value) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


Interval = tuple[float, float]  # low and high end, 95 %
Number = Annotated[float | None, BeforeValidator(_finite_or_none)]
MetricInterval = Annotated[Interval | None, BeforeValidator(_finite_or_none)]


class Section(BaseModel):
    """A part of `results.json`: it cannot be changed, and knows every key that it may have."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class MetricValues(Section):
    """Metrics by name, each a key of its own, with their intervals."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number] = Field(init=False)

    loss: Number = Field(
        None,
        description="mean cross-entropy of the rows, in nats; of numbers the mean squared error, "
        "as a multiple of the variance of train's numbers",
    )
    loss_se: Number = Field(None, description="standard error of the loss")
    intervals: dict[str, MetricInterval] = Field(
        {},
        description="95 % interval of the loss and of each metric, over documents; null for a "
        "metric of `evaluate.load`, and for the loss of rows that say nothing of its spread",
    )

    def metric(self, name: str) -> float | None:
        """The value of `loss` or of a metric; None where it is not a finite number.

        Raises:
            KeyError: where no such metric was measured.
        """
        if name == "loss":
            return self.loss
        return (self.model_extra or {})[name]  # type: ignore[no-any-return]

    def values(self) -> dict[str, float]:
        """Each metric and the loss by name, where they are numbers."""
        every = {"loss": self.loss, "loss_se": self.loss_se} | (self.model_extra or {})
        return {name: value for name, value in every.items() if value is not None}

    def has(self, name: str) -> bool:
        return name == "loss" or name in (self.model_extra or {})


class SplitScores(MetricValues):
    """The saved model's scores on a split."""

    rows: int = Field(description="rows of the split")
    labelled: bool = Field(description="whether the split has labels; without, it has no scores")


class PairedDifference(Section):
    difference: float = Field(description="the model's score minus the baseline's")
    interval: Interval = Field(description="its 95 % interval, paired by row")


class BaselineScores(MetricValues):
    """The scores of a classifier without pretraining."""

    label: str | None = Field(
        None,
        description="majority: the label that train has most often, of numbers their mean; else "
        "null",
    )
    train_rows: int = Field(description="train rows that it was fitted on")
    seconds: float = Field(description="time that fitting and predicting took")
    paired_difference: dict[str, PairedDifference] = Field(
        description="by how much the model is better, by accuracy, f1_macro (multi-label: also "
        "f1_micro) and each metric of the confusion matrix that is better when higher; of numbers "
        "by r2"
    )


class Baselines(Section):
    majority: BaselineScores = Field(
        description="always predicts the label that train has most; of numbers, their mean"
    )
    tfidf: BaselineScores = Field(
        description="TF-IDF of words and word pairs under a logistic regression; of numbers, a "
        "ridge regression"
    )


class ReliabilityBin(Section):
    low: float = Field(description="lowest probability of the bin")
    high: float = Field(description="highest probability of the bin")
    rows: int = Field(description="rows in the bin (multi-label: decisions)")
    confidence: float = Field(description="mean probability of the predictions")
    accuracy: float = Field(description="share of the predictions that are right")


class CalibrationQuality(Section):
    ece: float = Field(description="expected calibration error over 15 bins of probability")
    ece_by_chance: float = Field(
        description="the error that perfectly calibrated probabilities would show on so many rows"
    )
    log_loss: Number = Field(description="mean cross-entropy, in nats")
    bins: list[ReliabilityBin] = Field(description="the bins that hold rows")


class CalibrationChange(Section):
    before: CalibrationQuality = Field(description="as trained")
    after: CalibrationQuality = Field(description="as saved, divided by the temperature")


class Calibration(Section):
    temperature: float = Field(description="what the saved head's logits were divided by; 1: kept")
    why: str = Field(description="why that temperature was chosen")
    validation: CalibrationChange | None = Field(description="null without labels or rows")
    test: CalibrationChange | None = Field(description="null without labels")

    def on(self, split: str) -> CalibrationChange:
        """The calibration on a split that has labels."""
        found = self.test if split == "test" else self.validation
        assert found is not None
        return found


class CoveragePoint(Section):
    coverage: float = Field(description="share of the rows that are answered")
    accuracy: float = Field(description="accuracy on those")
    rows: int = Field(description="how many rows those are")


class Coverage(Section):
    curve: list[CoveragePoint] = Field(description="accuracy over coverage, for every threshold")
    rows: int | None = Field(None, description="rows answered at the chosen threshold")
    coverage: float | None = Field(None, description="their share of all rows")
    accuracy: float | None = Field(None, description="accuracy on those rows")
    accuracy_interval: MetricInterval = Field(None, description="its 95 % interval (Wilson)")


class Abstention(Section):
    target: float | None = Field(
        description="accuracy that answers should have; null: rows of `finetune evaluate`, for a "
        "model that does not say which"
    )
    threshold: float | None = Field(
        description="probability below which to abstain, chosen on validation; null: none reaches "
        "the target"
    )
    guaranteed: bool = Field(
        False,
        description="whether validation has enough rows to say, with a confidence of 95 %, that "
        "predictions above the threshold reach the target",
    )
    saved: bool = Field(
        False,
        description="whether the saved model abstains below the threshold (score.target_accuracy "
        "with score.abstain)",
    )
    validation: Coverage | None = Field(description="null without labels")
    test: Coverage | None = Field(description="null without labels")

    def on(self, split: str) -> Coverage:
        """The coverage on a split that has labels."""
        found = self.test if split == "test" else self.validation
        assert found is not None
        return found


class ClassScores(Section):
    label: str = Field(description="name of the label")
    support: int = Field(description="rows that have the label")
    predicted: int = Field(description="rows that are given the label")
    precision: float | None = Field(
        description="share of the rows given the label that have it; null: it is never predicted"
    )
    precision_interval: Interval = Field(description="95 % interval (Wilson)")
    recall: float | None = Field(
        description="share of the rows with the label that are given it; null: no row has it"
    )
    recall_interval: Interval = Field(description="95 % interval (Wilson)")
    f1: float | None = Field(
        description="harmonic mean of precision and recall; null: no row has the label"
    )
    f1_interval: Interval = Field(description="95 % interval (of Wilson's)")


class ConfusedPair(Section):
    label: str = Field(description="the true label")
    predicted: str = Field(description="the label that was predicted in its place")
    rows: int = Field(description="how often")
    share: float = Field(description="share of the rows with the true label")


class Accuracy(Section):
    rows: int = Field(description="rows of the group")
    accuracy: float = Field(description="share of them that is right (multi-label: all labels)")
    accuracy_interval: Interval = Field(description="95 % interval (Wilson)")


class LengthBucket(Accuracy):
    shortest: int = Field(description="tokens of the shortest whole text in the bucket")
    longest: int = Field(description="tokens of the longest whole text in the bucket")
    truncated: int = Field(description="rows of the bucket that lost tokens")


class TruncationAccuracy(Section):
    truncated: Accuracy | None = Field(description="rows that lost tokens; null: there are none")
    whole: Accuracy | None = Field(description="rows read as a whole; null: there are none")


class MarkedWord(Section):
    start: int = Field(description="its first character in `text`")
    end: int = Field(description="the character behind its last")
    score: float = Field(description="by how much it raises the log-odds of the prediction")


class StrongWord(Section):
    word: str = Field(description="in lower case")
    rows: int = Field(description="explained documents that have it")
    score: float = Field(description="by how much it raises the label's log-odds, their mean")


class LabelWords(Section):
    label: str = Field(description="name of the label")
    rows: int = Field(description="explained documents that are given the label")
    words: list[StrongWord] = Field(
        description="the strongest: those that say most clearly more in these documents than in "
        "those of other labels (Welch's t), where rare words count more"
    )


class Mistake(Section):
    row: str = Field(description="where the row comes from")
    id: str | int | float | bool | None = Field(
        None, description="its identifier; null without `data.id`, or where it has none"
    )
    label: str = Field(description="true label")
    predicted: str = Field(description="predicted label")
    confidence: float = Field(
        description="probability of the prediction (multi-label: of the decision)"
    )
    label_probability: float = Field(description="probability of the true label")
    text: str = Field(description="first 800 characters of the text")
    decision: str | None = Field(
        None, description="multi-label: the decision that was most surely wrong; else null"
    )
    words: list[MarkedWord] = Field(
        [], description="the words that spoke most for it; empty without `score.explained_rows`"
    )


class SliceScores(MetricValues):
    """The scores of some documents of the split."""

    value: str = Field(description="what these documents have in common")
    rows: int = Field(description="how many there are")
    difference: float | None = Field(
        description="their accuracy (multi-label: all labels right), or what else is `compared`, "
        "less that of the other documents; null: there are no others"
    )
    difference_interval: Interval | None = Field(
        description="its 95 % interval (of accuracies Newcombe 1998, method 10, of errors Welch "
        "1947); null: too few documents"
    )
    p_value: float | None = Field(
        description="of Fisher's exact test that both accuracies are the same, or of a "
        "permutation test that both errors are, corrected by Holm 1979 for all slices of the run"
    )


class Slicing(Section):
    by: str = Field(description="the column, or `length` or `file`")
    kind: Literal["column", "length", "file"] = Field(description="which of these")
    compared: Literal["accuracy", "rank_mae", "mae"] = Field(
        "accuracy",
        description="what slices are compared by: accuracy, or the mean absolute error, of ordered "
        "labels in ranks",
    )
    slices: list[SliceScores] = Field(
        description="the most frequent value first; numbers, times and lengths in their order"
    )
    worst: str | None = Field(
        description="of the slices that are worse than the others, that with the smallest p-value; "
        "null: none is"
    )


class LevelScores(Section):
    """A level of label names that have several."""

    level: int = Field(description="counted from 1, the coarsest")
    nodes: int = Field(description="how many names it has")
    accuracy: float = Field(description="share of the rows whose node of the level is right")
    accuracy_interval: Interval = Field(description="its 95 % interval (Wilson)")
    f1_macro: float = Field(description="macro-F1 of the level's nodes")
    f1_macro_interval: Interval = Field(description="its 95 % interval")
    classes: list[ClassScores] = Field(
        description="scores of each node; empty for the finest level, whose are the labels'"
    )


class LabelChange(Section):
    """A label that the parent knows, before and after."""

    label: str = Field(description="name of the label")
    support: int = Field(description="test rows that have the label")
    before: float = Field(description="recall of the parent")
    after: float = Field(description="recall of this model")
    difference: float = Field(description="after less before")
    interval: Interval = Field(description="its 95 % interval, paired by row")
    p_value: float = Field(
        description="of McNemar's exact test that both are the same, corrected by Holm 1979 for "
        "all labels"
    )


class ParentComparison(Section):
    """This model beside the one whose head it kept, on the same test rows."""

    source: str = Field(description="model.source, the parent")
    kept: list[str] = Field(description="labels that both know")
    new: list[str] = Field(description="labels that the parent does not know")
    gone: list[str] = Field(description="labels of the parent that the data lack")
    metric: str = Field(
        description="what the two are compared by: accuracy on the rows of the labels that both "
        "know; multi-label: f1_micro over those labels"
    )
    rows: int = Field(description="test rows that are compared")
    before: float = Field(description="score of the parent, whatever it says of its own labels")
    after: float = Field(description="score of this model, which may also predict new labels")
    difference: float = Field(description="after less before")
    interval: Interval = Field(description="its 95 % interval, paired by row")
    taken_by_new: int = Field(
        description="rows that the parent has right and this model gives a new label (multi-label: "
        "always 0)"
    )
    new_rows: int = Field(description="test rows that have a new label")
    new_recall: float | None = Field(
        description="share of them that are given it; null: there are none"
    )
    labels: list[LabelChange] = Field(
        description="the labels that both know and some test row has, the greatest loss first"
    )


class Flagged(Section):
    """How many documents are called out of scope."""

    rows: int = Field(description="documents")
    flagged: int = Field(description="of these, how many are called out of scope")
    share: float = Field(description="their share")
    interval: Interval = Field(description="its 95 % interval (Wilson)")


class GivenRows(Flagged):
    source: str = Field(description="the file of documents out of scope, `score.out_of_scope`")
    auroc: float = Field(
        description="the chance that one of them has a higher score than a document of test "
        "(validation without test)"
    )
    auroc_interval: Interval = Field(description="its 95 % interval (DeLong)")


class TriedDetector(Section):
    kind: str = Field(description="max_probability, energy, neighbours or mahalanobis")
    auroc: float = Field(
        description="the chance that a document of a held-out label has a higher score than one of "
        "another, mean over the groups"
    )
    interval: Interval = Field(description="its 95 % interval, over groups of labels (Student)")


class CurvePoint(Section):
    flagged: float = Field(description="share of the documents of known labels that are found too")
    found: float = Field(description="share of those of held-out labels that are found")


class OutOfScope(Section):
    kind: str = Field(description="the detector: the best of those tried")
    rate: float = Field(description="`score.out_of_scope_rate`")
    threshold: float = Field(description="score above which a document is out of scope")
    states: int = Field(description="train documents that it keeps and compares with")
    validation_rows: int = Field(description="documents that the threshold is chosen on")
    groups: int = Field(description="how often labels were held out, each once")
    tried: list[TriedDetector] = Field(description="the detectors, by labels held out in turn")
    curve: list[CurvePoint] = Field(description="what the best finds, mean over the groups")
    test: Flagged | None = Field(
        description="documents of test, whose labels are known; null: none"
    )
    given: GivenRows | None = Field(description="documents that the recipe names; null: none")


class IntervalCoverage(Section):
    """The prediction interval: each prediction less and plus half a width."""

    asked: float = Field(description="`score.interval_coverage`, the share that it should hold")
    half_width: float = Field(description="in the unit of the numbers, chosen on validation")
    reached: float = Field(description="share of the analysed rows whose number it holds")
    reached_interval: Interval = Field(description="its 95 % interval (Wilson)")


class NumberGroup(Section):
    """Errors on some of the rows."""

    low: float = Field(description="the lowest true number, or the tokens of the shortest text")
    high: float = Field(description="the highest, or the tokens of the longest")
    rows: int = Field(description="how many rows")
    mae: float = Field(description="mean absolute error")
    bias: float = Field(description="mean of prediction less true number")


class NumberError(Section):
    row: str = Field(description="where the row comes from")
    id: str | int | float | bool | None = Field(
        None, description="its identifier; null without `data.id`, or where it has none"
    )
    true: float = Field(description="the number of the data")
    predicted: float = Field(description="the number that was predicted")
    text: str = Field(description="first 800 characters of the text")


class NumberAnalysis(Section):
    """Where a model of numbers is how far off, on the analysed rows."""

    column: str = Field(description="data.label, the column of the numbers")
    mean: float | None = Field(description="of train's numbers; null: not known")
    deviation: float | None = Field(description="their standard deviation; null: not known")
    bias: float = Field(description="mean of prediction less true number")
    interval: IntervalCoverage | None = Field(
        description="the saved model's prediction interval; null: there was no validation split, "
        "or one with too few rows for the share that was asked"
    )
    points: list[tuple[float, float]] = Field(
        description="true and predicted number of rows, of more than 400 as many drawn at random"
    )
    ranges: list[NumberGroup] = Field(description="fifths of the rows, by their true number")
    lengths: list[NumberGroup] = Field(description="buckets of rows, by the tokens of the text")
    truncated: NumberGroup | None = Field(description="rows that lost tokens; null: there are none")
    whole: NumberGroup | None = Field(description="rows read as a whole; null: there are none")
    largest: list[NumberError] = Field(description="the largest errors first")


class TaskAnalysis(Section):
    """How good a model is at a task, how far to believe it, and where it fails."""

    validation: SplitScores = Field(description="scores of the saved model on validation")
    test: SplitScores = Field(description="scores of the saved model on test, which is scored once")
    baselines: Baselines | None = Field(
        description="scores on test without an encoder; null where test has no labels"
    )
    monitor: str | None = Field(
        None, description="score.monitor, the metric that picks the model and that it is judged by"
    )
    thresholds: dict[str, float] | None = Field(
        description="multi-label: the probability from which on each label is given, chosen on "
        "validation, or else on train; else null"
    )
    calibration: Calibration = Field(
        description="how well probabilities are calibrated (multi-label: of the decisions on each "
        "row and label)"
    )
    abstention: Abstention | None = Field(
        description="accuracy over coverage where the model abstains below a threshold; null: "
        "multi-label, or no validation split"
    )
    analysed: str = Field(
        description="the split that the next keys describe: test, or validation where test has no "
        "labels"
    )
    classes: list[ClassScores] = Field(description="scores of each label, in the labels' order")
    confusion: list[list[int]] | None = Field(
        description="confusion matrix: rows by true label (first index) and predicted label; null "
        "above 200 labels, and multi-label"
    )
    confused_pairs: list[ConfusedPair] = Field(
        description="the most frequent confusions (multi-label: a label is missed where another is "
        "wrongly given)"
    )
    lengths: list[LengthBucket] = Field(
        description="accuracy by length, from shortest to longest texts"
    )
    truncation: TruncationAccuracy = Field(description="accuracy of truncated and of whole texts")
    parent: ParentComparison | None = Field(
        None,
        description="with `model.head_init: keep`, what is forgotten of the labels that "
        "`model.source` knows; else null",
    )
    levels: list[LevelScores] = Field(
        [], description="with `data.hierarchy`, the scores of each level; else empty"
    )
    slices: list[Slicing] = Field(
        [],
        description="scores by the values of each column of `score.slices`, by length and by file; "
        "empty without these",
    )
    strongest_words: list[LabelWords] = Field(
        [],
        description="the words that spoke most for each label, in the documents that were "
        "explained (`score.explained_rows`); empty without",
    )
    out_of_scope: OutOfScope | None = Field(
        None, description="the detector of documents that no label fits; null: there is none"
    )
    numbers: NumberAnalysis | None = Field(
        None, description="with `data.task: number`, how far predictions are off; else null"
    )
    mistakes: list[Mistake] = Field(description="wrong predictions of the highest confidence")

    @property
    def scores(self) -> SplitScores:
        """The scores of the analysed split."""
        return self.test if self.analysed == "test" else self.validation

    @property
    def metric_names(self) -> list[str]:
        """The metrics that were measured, without the loss."""
        return [name for name in self.scores.intervals if name != "loss"]


class ColumnAnalysis(TaskAnalysis):
    """A task of `data.tasks`."""

    name: str = Field(description="the column of its labels")
    weight: float = Field(description="its weight in the loss")


class Analysis(TaskAnalysis):
    """The same of a whole run."""

    tasks: list[ColumnAnalysis] = Field(
        [],
        description="with `data.tasks`, each task by itself, over the rows that have a label of "
        "it; the metrics of the keys above are then the means of the tasks', and `task.metric` "
        "those of one; else empty",
    )
