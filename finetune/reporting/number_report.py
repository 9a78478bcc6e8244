"""Results of a model of numbers → what their pages have in place of the sections on labels."""

from typing import Any

from markupsafe import Markup

from finetune.data.number_scale import format_number
from finetune.evaluation.analysis_model import Analysis, NumberAnalysis
from finetune.reporting import charts, number_text
from finetune.reporting.slices_text import slice_values


def section_values(found: Analysis, where: str, main: str) -> dict[str, Any]:
    """What `section_numbers.html` shows.

    Args:
        where: what to call the analysed split.
        main: the metric that the model is judged by.
    """
    numbers = found.numbers
    assert numbers is not None
    return {
        "numbers": numbers,
        "on": where,
        "scatter": draw_scatter(numbers),
        "interval_text": number_text.explain_interval(found, where),
        "error_text": number_text.explain_errors(numbers, found),
        "length_text": number_text.explain_length(numbers),
        "format_number": format_number,
        **slice_values(found, main),
    }


def draw_scatter(numbers: NumberAnalysis) -> Markup:
    """Predicted over true numbers; on the diagonal, predictions are right."""
    half = None if numbers.interval is None else numbers.interval.half_width
    description = (
        f"{len(numbers.points):,} documents; predictions are "
        f"{format_number(numbers.bias)} above the true numbers on average"
    )
    return charts.scatter("Predicted and true numbers", description, numbers.points, half)
