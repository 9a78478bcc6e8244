"""The model against its baselines, by the metric that picks the model: the verdict, in words."""

from dataclasses import dataclass

from finetune.evaluation.analysis_model import Interval
from finetune.reporting.number_formats import is_share, name_metric, signed
from finetune.reporting.results_model import Results

MAJORITY = "the majority-class baseline"
MEAN = "the mean of train's numbers"
TFIDF = "the TF-IDF baseline"


@dataclass(frozen=True)
class Comparison:
    """The model against a baseline, paired by document.

    Attributes:
        baseline: its name in a sentence.
        metric: in words.
        difference, interval: in hundredths; above 0 where the model is better.
        is_share: whether the metric is a share, whose hundredths are points.
    """

    baseline: str
    metric: str
    difference: float
    interval: Interval
    is_share: bool = True

    @property
    def is_better(self) -> bool:
        return self.interval[0] > 0

    @property
    def is_worse(self) -> bool:
        return self.interval[1] < 0

    @property
    def unit(self) -> str:
        """What stands behind a difference in a sentence."""
        return f"{'points of' if self.is_share else 'in'} {self.metric}"

    def show(self, hundredths: float, plain: bool = False) -> str:
        """A difference: of shares in points, of other metrics in their own numbers.

        Args:
            plain: without a sign in front of what is above 0.
        """
        if self.is_share:
            return f"{hundredths:.1f}" if plain else signed(hundredths)
        return f"{hundredths / 100:.3f}" if plain else signed(hundredths / 100, 3)


def compared_metric(results: Results) -> str:
    """The metric that picks the model, where it scores predictions; else accuracy or micro-F1."""
    baselines = results.baselines
    assert baselines is not None
    if results.monitor is not None and results.monitor in baselines.tfidf.paired_difference:
        return results.monitor
    if results.numbers is not None:
        return "r2"
    return "f1_micro" if "f1_micro" in baselines.tfidf.paired_difference else "accuracy"


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
    if results.numbers is not None and majority_is_better:
        name, gap = MEAN, to_majority[key]
    elif majority_is_better and to_majority["f1_macro"].interval[0] <= 0:
        name, gap = MAJORITY, to_majority[key]
    low, high = gap.interval
    ends = 100 * low, 100 * high
    return Comparison(name, metric, 100 * gap.difference, ends, is_share(key))


def summarize_comparison(results: Results) -> str:
    """The model against the better baseline, in one sentence."""
    gap = compare_to_baseline(results)
    interval = f"(95 % interval {gap.show(gap.interval[0])} to {gap.show(gap.interval[1])})"
    amount = f"{gap.show(abs(gap.difference), plain=True)} {gap.unit}"
    if gap.is_better:
        return f"The model beats {gap.baseline} by {amount} {interval}."
    if gap.is_worse:
        return f"The model is worse than {gap.baseline} by {amount} {interval}."
    return (
        f"The model does not clearly differ from {gap.baseline}: {gap.show(gap.difference)} "
        f"{gap.unit} {interval}."
    )


def judge_encoder(results: Results) -> str:
    """Whether the encoder earns its cost, for the report's introduction."""
    gap = compare_to_baseline(results)
    low, high = gap.interval
    paired = "95 % interval, paired by document"
    if gap.is_better:
        start = "" if gap.baseline in (MAJORITY, MEAN) else "The encoder earns its cost: "
        return (
            f"{start}{'the' if start else 'The'} model beats {gap.baseline} by "
            f"{gap.show(low, plain=True)} to {gap.show(high, plain=True)} {gap.unit} ({paired})."
        )
    if gap.is_worse:
        return (
            f"The model is worse than {gap.baseline} by {gap.show(-high, plain=True)} to "
            f"{gap.show(-low, plain=True)} {gap.unit} ({paired})."
        )
    return (
        f"The model is not clearly better than {gap.baseline}: the difference is between "
        f"{gap.show(low)} and {gap.show(high)} {gap.unit} ({paired})."
    )
