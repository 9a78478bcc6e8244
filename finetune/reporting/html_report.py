"""Results → `report.html`: one self-contained page for people to read.

    write_report(results, folder)

It asks nothing of any network, and a policy in it forbids the browser to. All text from data is
escaped: by jinja2 in the templates of `templates/`, by markupsafe in the charts.
"""

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from finetune.config.label_tasks import MARK
from finetune.evaluation.analysis_model import Analysis, Mistake
from finetune.reporting import charts, figures, narrative, number_formats, number_report
from finetune.reporting.baseline_comparison import summarize_comparison
from finetune.reporting.marked_text import Segment, mark_words, split_segments
from finetune.reporting.next_steps import suggest_next_steps
from finetune.reporting.number_formats import format_metric
from finetune.reporting.out_of_scope_text import explain_out_of_scope
from finetune.reporting.parent_text import explain_parent
from finetune.reporting.results_model import LrRange, Results
from finetune.reporting.seeds_report import SeedsSummary
from finetune.reporting.slices_text import (
    COMPARED,
    divide_slices,
    format_gap,
    format_p,
    slice_values,
)
from finetune.reporting.tasks_text import each_task, tabulate_tasks
from finetune.runtime import atomic_files
from finetune.runtime.visible_text import visible

PAGES = Path(__file__).parent / "templates"


def write_report(results: Results, folder: Path) -> None:
    """Draw a run's page, with what else is in its folder: metrics.jsonl and recipe.yaml."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    recipe = (folder / "recipe.yaml").read_text(encoding="utf-8")
    page = render(results, [json.loads(line) for line in lines], recipe)
    atomic_files.write_text(folder / "report.html", page)


def render(results: Results, log: figures.Log, recipe: str = "") -> str:
    """The page of a run.

    Args:
        log: the lines of metrics.jsonl.
        recipe: the text of recipe.yaml.
    """
    if results.numbers is not None:
        return _render_numbers(results, log, recipe)
    if results.tasks:
        return _render_tasks(results, log, recipe)
    return (
        template_environment()
        .get_template("report.html")
        .render(
            **_common_values(results, log, recipe),
            **_label_values(results),
            macro_note=narrative.explain_macro(results),
            differences=figures.paired_differences(results),
            parent_summary=" ".join(explain_parent(results.parent) if results.parent else ()),
            out_of_scope_text=[*explain_out_of_scope(results.out_of_scope, results.analysed)],
            out_of_scope_curve=figures.out_of_scope_curve(results.out_of_scope),
        )
    )


def _label_values(results: Results) -> dict[str, Any]:
    """What the sections on labels, calibration and errors show."""
    return {
        "spark_from": lowest_f1(results),
        "confusion_matrix": figures.confusion_matrix(results),
        "calibration": narrative.explain_calibration(results),
        "reliability": [*figures.reliability(results)],
        "abstention": narrative.explain_abstention(results),
        "coverage": figures.coverage(results, narrative.explain_abstention(results)),
        "lengths": figures.lengths(results),
        "truncation": narrative.explain_truncation(results),
        **slice_values(results, narrative.main_metric(results)),
    }


def lowest_f1(found: Analysis) -> float:
    """Where the scale of the F1 of labels begins: below the lowest end of an interval."""
    lowest = min((one.f1_interval[0] for one in found.classes if one.support), default=0.0)
    return math.floor(10 * lowest) / 10


def _render_tasks(results: Results, log: figures.Log, recipe: str) -> str:
    """The page of a run of several tasks: a section for each."""
    sections = [
        {
            "name": task.name,
            "prefix": f"task-{number}-",  # a name may hold what no address does
            "r": alone,
            "sentences": [summarize_comparison(alone)] if alone.baselines else [],
            **_label_values(alone),
        }
        for number, (task, alone) in enumerate(each_task(results), 1)
    ]
    return (
        template_environment()
        .get_template("tasks_report.html")
        .render(
            **_common_values(results, log, recipe),
            on=results.analysed,
            score_table=tabulate_tasks(results),
            task_sections=sections,
        )
    )


def _render_numbers(results: Results, log: figures.Log, recipe: str) -> str:
    """The page of a run whose model predicts numbers."""
    return (
        template_environment()
        .get_template("number_report.html")
        .render(
            **_common_values(results, log, recipe),
            **number_report.section_values(
                results, results.analysed, narrative.main_metric(results)
            ),
        )
    )


def _common_values(results: Results, log: figures.Log, recipe: str) -> dict[str, Any]:
    """What the pages of all runs show."""
    main = narrative.main_metric(results)
    return {
        "r": results,
        "main": main,
        "names": [*results.metric_names, "loss"],
        "headline": narrative.headline(results),
        "introduction": [*narrative.introduce(results)],
        "overview": figures.overview(results, main),
        "steps": suggest_next_steps(results, log),
        "training": [*figures.training(results, log)],
        "loading_code": loading_code(results),
        "recipe": recipe,
    }


def write_seeds_report(summary: SeedsSummary, folder: Path) -> None:
    """Draw the page of a recipe's runs with several seeds."""
    main, scores = summary.main, summary.scores
    spread = summary.main_spread
    rows = [
        charts.Row(f"seed {seed}", value, None, "main", format_metric(main, value))
        for seed, value in zip(summary.seeds, spread.values, strict=True)
    ]
    description = "; ".join(f"{row.name} {row.note}" for row in rows)
    chart = charts.whiskers(f"{main} of each seed", description, rows, main, "{:.3f}")
    deviation = "" if spread.sd is None else f" ± {format_metric(main, spread.sd)}"
    text = (
        template_environment()
        .get_template("seeds.html")
        .render(
            summary=summary,
            scores=scores,
            names=[*(name for name in scores if name != "loss"), "loss"],
            headline=f"{main.capitalize()} {format_metric(main, spread.mean)}{deviation} on "
            f"{summary.split}",
            overview=chart if 0 <= spread.low <= spread.high <= 1 else None,
        )
    )
    atomic_files.write_text(folder / "report.html", text)


def write_range_report(test: Mapping[str, Any], name: str, file: Path) -> None:
    """Draw the page of a learning rate range test.

    Args:
        test: the fields of `lr_finder.LrRangeTest`.
        name: of the recipe.
    """
    found = LrRange.model_validate({"stage": 1, **test})
    text = (
        template_environment()
        .get_template("lr_range.html")
        .render(test=found, name=name, chart=figures.lr_range_chart(found))
    )
    atomic_files.write_text(file, text)


def template_environment() -> Environment:
    """The templates, with autoescape, and what they use."""
    environment = Environment(
        loader=FileSystemLoader(PAGES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
        finalize=_show_controls,
    )
    script = (PAGES / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "style": Markup((PAGES / "style.css").read_text(encoding="utf-8")),  # noqa: S704 # ours
        "script": Markup(script),  # noqa: S704 # ours
        "script_hash": f"sha256-{digest}",
        "spark": charts.spark,
        "metric_name": number_formats.name_metric,
    }
    environment.globals |= {"mark_mistake": mark_mistake, "split_segments": split_segments}
    environment.globals |= {
        "divide_slices": divide_slices,
        "format_gap": format_gap,
        "compared_words": COMPARED,
    }
    environment.filters |= {
        "score": number_formats.format_score,
        "interval": number_formats.format_interval,
        "p_value": format_p,
        "seconds": number_formats.format_seconds,
        "bytes": number_formats.format_bytes,
        "percent": number_formats.percent,
        "code": mark_code,
        "thousands": lambda number: f"{number:,}",
    }
    return environment


def mark_mistake(one: Mistake) -> list[Segment]:
    """The text of a mistake with the words that spoke for it."""
    return mark_words(one.text, [(word.start, word.end, word.score) for word in one.words])


def relative_link(file: Path, start: Path = Path()) -> str:
    """The file from a folder, as pages and notebooks open links; from another drive its address."""
    try:
        return quote(Path(os.path.relpath(file, start)).as_posix())
    except ValueError:
        return file.absolute().as_uri()


def _show_controls(value: object) -> object:
    """What a template inserts, without what would turn the direction of the page's text."""
    return type(value)(visible(value)) if isinstance(value, str) else value


def mark_code(text: str) -> Markup:
    """A sentence for HTML: escaped, with what is between backticks as code."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(marked)  # noqa: S704 # escaped in the line above


def loading_code(results: Results, folder: str = "model") -> str:
    """Three lines that load the model."""
    code = ", trust_remote_code=True" if results.model.custom_code else ""
    document = '"A document."'
    if results.data.reading.text_pair is not None:
        document = '{"text": "A text.", "text_pair": "Its second text."}'
    if results.numbers is not None:
        return (
            "from transformers import pipeline\n\n"
            f'predict = pipeline("text-classification", model="{folder}"{code})\n'
            f"[found] = predict([{document}], truncation=True)\n"
            'found["score"]  # the number'
        )
    if results.tasks:
        return (
            "from transformers import pipeline\n\n"
            f'classify = pipeline("text-classification", model="{folder}", top_k=None{code})\n'
            f"[scores] = classify([{document}], truncation=True)\n"
            "best = {}  # of each task the most probable label; the scores come in order\n"
            "for one in scores:\n"
            f'    task, label = one["label"].split("{MARK}", 1)\n'
            "    best.setdefault(task, label)\n"
            "best"
        )
    if results.data.multi_label:
        return (
            "from transformers import pipeline\n\n"
            f'classify = pipeline("text-classification", model="{folder}", top_k=None{code})\n'
            "config = classify.model.config  # each label has a threshold of its own\n"
            'thresholds = dict(zip(config.id2label.values(), config.document["thresholds"]))\n'
            f"[scores] = classify([{document}], truncation=True)\n"
            '[one["label"] for one in scores if one["score"] >= thresholds[one["label"]]]'
        )
    load = (
        "from transformers import pipeline\n\n"
        f'classify = pipeline("text-classification", model="{folder}"{code})\n'
    )
    if results.abstention is not None and results.abstention.saved:
        return (
            f"{load}[best] = classify([{document}], truncation=True)\n"
            'below = classify.model.config.document["abstain_below"]  # pipeline does not abstain\n'
            'best["label"] if best["score"] >= below else None'
        )
    return f"{load}classify({document}, truncation=True)"
