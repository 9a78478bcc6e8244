"""A finished run in a few lines: as text, and as HTML for notebooks.

All text from data is escaped: by jinja2 in the templates, by `html.escape` in attributes.
"""

import html
from collections.abc import Sequence
from pathlib import Path

from finetune.reporting import narrative
from finetune.reporting.console_report import score_line
from finetune.reporting.html_report import relative_link, template_environment
from finetune.reporting.number_formats import format_interval, format_score
from finetune.reporting.results_model import Results
from finetune.reporting.seeds_report import SeedsSummary


class EmbeddedPage:
    """A page of its own within a notebook's: shown where it is a cell's last value.

    Args:
        page: a whole HTML document.
        height: of the frame, in pixels.
    """

    def __init__(self, page: str, height: int) -> None:
        self._page, self._height = page, height

    def _repr_html_(self) -> str:
        # Without allow-same-origin, its script has no way to the notebook.
        return (
            f'<iframe srcdoc="{html.escape(self._page)}" sandbox="allow-scripts allow-popups" '
            f'style="width:100%;height:{self._height:d}px;border:1px solid #ccc"></iframe>'
        )


def describe_run(results: Results) -> str:
    """The score in a line, with its interval and on how many documents."""
    return f"{score_line(results)}, {results.scores.rows:,} documents"


def describe_seeds(summary: SeedsSummary) -> str:
    """Mean and standard deviation in a line."""
    spread = summary.main_spread
    deviation = "" if spread.sd is None else f" ± {spread.sd:.4f}"
    return (
        f"{summary.split.capitalize()} {summary.main} {spread.mean:.4f}{deviation} (mean and "
        f"standard deviation of {len(summary.seeds)} seeds)"
    )


def run_html(results: Results, folder: Path) -> str:
    """A run's scores beside the baseline's, what they mean, and a link to its report."""
    tuned, baselines, test = results.is_tuned, results.baselines, results.test
    columns = ["", *["validation"] * tuned]
    if baselines is not None:
        columns += ["test", "95 % interval", "TF-IDF"]
    rows = []
    for name in results.scores.intervals:
        row = [name]
        if tuned:
            row.append(format_score(results.validation.metric(name)))
        if baselines is not None:
            row += [
                format_score(test.metric(name)),
                format_interval(test.intervals[name]),
                format_score(baselines.tfidf.metric(name)),
            ]
        rows.append(row)
    return _summary(
        narrative.headline(results), columns, rows, list(narrative.summarize(results)), folder
    )


def seeds_html(summary: SeedsSummary, folder: Path) -> str:
    """The scores of several seeds together, and a link to their report."""
    columns = ["", "mean", "sd", "lowest", "highest"]
    rows = [
        [name, *(format_score(value) for value in (one.mean, one.sd, one.low, one.high))]
        for name, one in summary.scores.items()
    ]
    return _summary(describe_seeds(summary), columns, rows, [], folder)


def _summary(
    headline: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    sentences: Sequence[str],
    folder: Path,
) -> str:
    report = folder / "report.html"
    return (
        template_environment()
        .get_template("run_summary.html")
        .render(
            headline=headline,
            columns=columns,
            rows=rows,
            sentences=sentences,
            report=relative_link(report) if report.is_file() else "",
        )
    )
