"""A comparison of runs as one self-contained page."""

from finetune.reporting import charts, html_report
from finetune.reporting.comparison_model import Comparison
from finetune.reporting.comparison_text import describe_documents, format_names
from finetune.reporting.number_formats import percent, short_names, signed
from finetune.reporting.run_differences import format_setting

OPEN_PAIRS = 1  # whose labels and documents are shown at once; those of more are folded
LABELS = 15  # of a pair that are shown at once
DOCUMENTS = 10  # of each direction that are shown at once
MOST_DOCUMENTS = 200  # of each direction that are in the page at all


def render_comparison(comparison: Comparison) -> str:
    """The page."""
    folders = [run.run for run in comparison.runs]
    names = short_names(folders, 60)
    rows = [
        charts.Row(name, run.accuracy, run.accuracy_interval, "main", percent(run.accuracy))
        for name, run in zip(short_names(folders, 44), comparison.runs, strict=True)
    ]
    description = "; ".join(f"{row.name} {row.note}" for row in rows)
    return (
        html_report.template_environment()
        .get_template("compare.html")
        .render(
            comparison=comparison,
            names=dict(zip(folders, names, strict=True)),
            overview=charts.whiskers(
                "Accuracy of each run", description, rows, "accuracy", "{:.0%}"
            ),
            signed=signed,
            describe_documents=describe_documents,
            format_names=format_names,
            format_setting=format_setting,
            open_pairs=OPEN_PAIRS,
            most_labels=LABELS,
            most_documents=DOCUMENTS,
            limit=MOST_DOCUMENTS,
        )
    )
