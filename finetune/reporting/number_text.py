"""Results of a model of numbers → what they say, in sentences."""

from collections.abc import Iterator

from finetune.data.number_scale import format_number
from finetune.evaluation.analysis_model import Analysis, NumberAnalysis
from finetune.reporting.number_formats import count_documents, percent

NO_INTERVAL = (
    "The model gives no prediction interval: there was no validation split, or one with too few "
    "documents for the share that was asked."
)


def explain_interval(found: Analysis, where: str | None = None) -> str:
    """Which share of the documents the prediction interval was to hold, and how many it does.

    Args:
        where: what to call the analysed split; None: by its name.
    """
    numbers = found.numbers
    assert numbers is not None
    one = numbers.interval
    if one is None:
        return NO_INTERVAL
    low, high = (percent(end) for end in one.reached_interval)
    return (
        f"Each prediction comes with an interval of ± {format_number(one.half_width)}, which the "
        f"errors on validation chose so that it holds the true number of {percent(one.asked)} of "
        f"the documents (split conformal). It holds {percent(one.reached)} of those of "
        f"{where or found.analysed} (95 % interval {low} to {high})."
    )


def explain_errors(numbers: NumberAnalysis, scores: Analysis) -> str:
    """How far predictions are off, beside the spread of the numbers."""
    error = scores.scores.metric("mae") if scores.scores.has("mae") else None
    text = f"Predictions are {_describe_bias(numbers.bias)}."
    if error is None:
        return text
    beside = ""
    if numbers.deviation is not None:
        beside = (
            f"; the numbers of train have a standard deviation of "
            f"{format_number(numbers.deviation)}"
        )
    return f"Predictions are off by {format_number(error)} on average{beside}. {text}"


def _describe_bias(bias: float) -> str:
    way = "too high" if bias > 0 else "too low"
    return f"{format_number(abs(bias))} {way} on average"


def explain_numbers(
    numbers: NumberAnalysis, found: Analysis, where: str | None = None
) -> Iterator[str]:
    """How far predictions are off, and how often their interval holds the true number."""
    yield explain_errors(numbers, found)
    yield explain_interval(found, where)


def explain_length(numbers: NumberAnalysis) -> str:
    """Whether truncated documents are predicted worse."""
    cut, whole = numbers.truncated, numbers.whole
    if cut is None:
        return "No document was truncated."
    text = (
        f"{count_documents(cut.rows)} lost tokens; the mean absolute error on them is "
        f"{format_number(cut.mae)}"
    )
    if whole is None:
        return f"{text}; there are no others."
    return f"{text}, on the {whole.rows:,} others {format_number(whole.mae)}."
