"""The model against its baselines, by the metric that picks the model: the verdict, in words."""

from dataclasses import dataclass

from finetune.evaluation.analysis_model import Interval
from finetune.reporting.number_formats import signed
from finetune.reporting.results_model import Results

MAJORITY = "the majority-class baseline"
TFIDF = "the TF-IDF baseline"


@dataclass(frozen=True)
class Comparison:
    """The model against a baseline, paired by document.

    Attributes:
        baseline: its name in a sentence.
        metric: in words.
        difference, interval: in points; above 0 where the model is better.
    """

    baseline: str
    metric: str
    difference: float
    interval: Interval

    @property
    def is_better(self) -> bool:
        return self.interval[0] > 0

    @property
    def is_worse(self) -> bool:
        return self.interval[1] < 0


def name_metric(key: str) -> str:
    """A metric in words: macro-F1, Matthews correlation."""
    kind, _, average = key.rpartition("_")
    if average in ("macro", "micro", "weighted"):
        return f"{average}-{kind.replace('f1', 'F1')}"
    return key.replace("_", " ").capitalize() if key.startswith("matthews") else key


def compared_metric(results: Results) -> str:
    """The metric that picks the model, where it scores predictions; else accuracy or micro-F1."""
    baselines = results.baselines
    assert baselines is not None
    if results.monitor is not None and results.monitor in baselines.tfidf.paired_difference:
        return results.monitor
    return "f1_micro" if results.data.multi_label else "accuracy"


def compare_to_baseline(results: Results) -> Comparison:
    """The model against the better baseline, on a test split with labels.

    They are compared by the metric that picks the model, where it is one of predictions, else by
    accuracy (multi-label: micro-F1). The better baseline is TF-IDF; or the majority class, where
    that does better still, and the model is not clearly better than it by macro-F1 either:
    accuracy says little of rare labels.
    """
    baselines = results.baselines
    assert baselines is not None
    to_tfidf, to_majority = (one.paired_difference for one in (baselines.tfidf, baselines.majority))
    key = compared_metric(results)
    metric = name_metric(key)
    name, gap = TFIDF, to_tfidf[key]
    majority_is_better = to_majority[key].difference < gap.difference
    if majority_is_better and to_majority["f1_macro"].interval[0] <= 0:
        name, gap = MAJORITY, to_majority[key]
    low, high = gap.interval
    return Comparison(name, metric, 100 * gap.difference, (100 * low, 100 * high))


def summarize_comparison(results: Results) -> str:
    """The model against the better baseline, in one sentence."""
    gap = compare_to_baseline(results)
    interval = f"(95 % interval {signed(gap.interval[0])} to {signed(gap.interval[1])})"
    points = f"{abs(gap.difference):.1f} points of {gap.metric}"
    if gap.is_better:
        return f"The model beats {gap.baseline} by {points} {interval}."
    if gap.is_worse:
        return f"The model is worse than {gap.baseline} by {points} {interval}."
    return (
        f"The model does not clearly differ from {gap.baseline}: {signed(gap.difference)} points "
        f"of {gap.metric} {interval}."
    )


def judge_encoder(results: Results) -> str:
    """Whether the encoder earns its cost, for the report's introduction."""
    gap = compare_to_baseline(results)
    low, high = gap.interval
    paired = "95 % interval, paired by document"
    if gap.is_better:
        start = "" if gap.baseline == MAJORITY else "The encoder earns its cost: "
        return (
            f"{start}{'the' if start else 'The'} model beats {gap.baseline} by {low:.1f} to "
            f"{high:.1f} points of {gap.metric} ({paired})."
        )
    if gap.is_worse:
        return (
            f"The model is worse than {gap.baseline} by {-high:.1f} to {-low:.1f} points of "
            f"{gap.metric} ({paired})."
        )
    return (
        f"The model is not clearly better than {gap.baseline}: the difference is between "
        f"{signed(low)} and {signed(high)} points of {gap.metric} ({paired})."
    )
