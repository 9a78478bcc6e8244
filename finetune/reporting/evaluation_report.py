"""An evaluation of a model on new labelled rows → sentences, the terminal, and `report.html`.

The sections that a run's report has too are the same templates.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from finetune.evaluation.drift import Change, Drift
from finetune.reporting import charts, figures, html_report, narrative, number_report
from finetune.reporting.evaluation_model import WHERE, Evaluation
from finetune.reporting.number_formats import (
    count_documents,
    format_interval,
    format_metric,
    format_score,
    name_metric,
    percent,
    shown_difference,
    signed,
)
from finetune.reporting.number_text import explain_numbers
from finetune.reporting.out_of_scope_text import explain_scope
from finetune.reporting.slices_text import explain_slices, slice_values, tabulate_slices
from finetune.reporting.tasks_text import each_task, tabulate_tasks
from finetune.runtime import atomic_files, console
from finetune.runtime.wording import count_of

MOST = 5  # labels named in a sentence


def headline(found: Evaluation) -> str:
    """The score of the report's title."""
    main = narrative.main_metric(found)
    value = format_metric(main, found.test.metric(main))
    name = main.capitalize() if main == "accuracy" else main
    if found.numbers is not None or found.tasks:
        name = name_metric(main)
    return f"{name} {value} on {count_documents(found.test.rows)}"


def introduce(found: Evaluation) -> Iterator[str]:
    """How certain the score is, and what has changed since the run's test split."""
    main = narrative.main_metric(found)
    interval = found.test.intervals[main]
    if interval is not None:
        low, high = (format_metric(main, end) for end in interval)
        yield (
            f"The 95 % interval is {low} to {high}: on many more documents of this kind, the score "
            "would most likely lie in it."
        )
    yield from explain_scope(found.scope)
    if found.is_test_of_run:
        yield "These are the documents of the run's own test split, and no new ones."
    if found.drift is not None:
        yield from describe_drift(found.drift, found.data.multi_label)


def describe_drift(drift: Drift, multi_label: bool) -> Iterator[str]:
    """What has changed since the old test split by more than chance, a sentence each."""
    accuracy = "Exact-match accuracy" if multi_label else "Accuracy"
    change = drift.accuracy
    numbers = (
        f"{percent(change.after.share)}, and was {percent(change.before.share)} on the "
        f"{drift.before:,} documents of the run's test split (difference in points, 95 % interval: "
        f"{_points(change)}; p = {change.p:.2g})"
    )
    if change.is_clear:
        direction = "lower" if change.difference < 0 else "higher"
        yield f"{accuracy} is clearly {direction}: {numbers}."
    else:
        yield f"{accuracy} has not clearly changed: {numbers}."
    for what, changes in (
        ("The share of documents has changed for", drift.shares),
        ("The accuracy by label (recall) has changed for", drift.recalls),
    ):
        found = sorted((one for one in changes if one.is_clear), key=lambda one: one.p)
        if found:
            listed = "; ".join(
                f"‘{one.label}’ from {percent(one.before.share)} to {percent(one.after.share)}"
                for one in found[:MOST]
            )
            more = f"; and {len(found) - MOST:,} more" if len(found) > MOST else ""
            yield f"{what} {count_of(len(found), 'label')}: {listed}{more}."
    lengths = drift.lengths
    if lengths.is_clear:
        yield (
            f"Documents have other lengths: {lengths.median_after:,} tokens in the median, "
            f"{lengths.median_before:,} before (p = {lengths.p:.2g})."
        )
    clear = [one.is_clear for one in (*drift.shares, *drift.recalls)]
    if not any(clear) and not lengths.is_clear:
        yield "Label shares, accuracy by label and lengths have not changed by more than chance."


def _points(change: Change) -> str:
    low, high = change.interval
    difference = shown_difference(change.before.share, change.after.share)
    return f"{difference}, {signed(100 * low)} to {signed(100 * high)}"


def explain_calibration(found: Evaluation) -> str:
    """The calibration error, and what the run's temperature did to it."""
    calibration = found.calibration
    before, after = calibration.on("test").before, calibration.on("test").after
    text = (
        f"On {WHERE}, the expected calibration error (ECE) is {after.ece:.3f}; perfectly "
        f"calibrated probabilities would show about {after.ece_by_chance:.3f} on so many documents."
    )
    if calibration.temperature == 1:
        return text
    return (
        f"{text} The logits are divided by {calibration.temperature:.2f}, as the run chose; "
        f"without that it would be {before.ece:.3f}."
    )


def explain_abstention(found: Evaluation) -> str:
    """Which share of the documents is answered at the model's threshold, and how well."""
    abstention = found.abstention
    if abstention is None:
        return "Each label has its own threshold, so there is no single prediction to abstain from."
    here = abstention.on("test")
    if abstention.threshold is None:
        return "The model has no threshold below which it abstains."
    target = ""
    if abstention.target is not None:
        target = f", which the run chose for an accuracy of {percent(abstention.target)}"
    reached = "" if here.accuracy is None else f" with an accuracy of {percent(here.accuracy)}"
    return (
        f"Where the model abstains below a probability of {abstention.threshold:.3f}{target}, it "
        f"covers {percent(here.coverage or 0.0)} of {WHERE}{reached}."
    )


def write_report(found: Evaluation, folder: Path) -> None:
    """Write the page."""
    atomic_files.write_text(folder / "report.html", render(found))


def render(found: Evaluation) -> str:
    """The page of an evaluation."""
    if found.numbers is not None:
        return _render_numbers(found)
    if found.tasks:
        return _render_tasks(found)
    main = narrative.main_metric(found)
    return (
        html_report.template_environment()
        .get_template("evaluation.html")
        .render(
            r=found,
            on=WHERE,
            main=main,
            names=[*found.metric_names, "loss"],
            headline=headline(found),
            introduction=[*introduce(found)],
            overview=_overview(found, main),
            **_label_values(found),
            signed=signed,
            shown_difference=shown_difference,
        )
    )


def _label_values(found: Evaluation) -> dict[str, Any]:
    """What the sections on labels, calibration and errors show."""
    abstention = explain_abstention(found)
    return {
        "spark_from": html_report.lowest_f1(found),
        "confusion_matrix": figures.confusion_matrix(found),
        "calibration": explain_calibration(found),
        "reliability": [*figures.reliability(found, WHERE)],
        "abstention": abstention,
        "coverage": figures.coverage(found, abstention, WHERE),
        "lengths": figures.lengths(found),
        "truncation": narrative.explain_truncation(found),
        **slice_values(found, narrative.main_metric(found)),
    }


def _render_tasks(found: Evaluation) -> str:
    sections = [
        {
            "name": task.name,
            "prefix": f"task-{number}-",
            "r": alone,
            "sentences": [],
            **_label_values(alone),
        }
        for number, (task, alone) in enumerate(each_task(found), 1)
    ]
    return (
        html_report.template_environment()
        .get_template("tasks_evaluation.html")
        .render(
            r=found,
            on=WHERE,
            headline=headline(found),
            introduction=[*introduce(found)],
            score_table=tabulate_tasks(found),
            task_sections=sections,
        )
    )


def _render_numbers(found: Evaluation) -> str:
    return (
        html_report.template_environment()
        .get_template("number_evaluation.html")
        .render(
            r=found,
            names=[*found.metric_names, "loss"],
            headline=headline(found),
            introduction=[*introduce(found)],
            **number_report.section_values(found, WHERE, narrative.main_metric(found)),
        )
    )


def _overview(found: Evaluation, main: str) -> Markup | None:
    """The main metric; and the accuracy of both, where the run's is known."""
    rows = [figures.metric_row("new documents", found.test, main, "main")]
    if found.drift is not None and main == "accuracy":
        before = found.drift.accuracy.before
        rows.append(
            charts.Row("test split", before.share, before.interval, "third", percent(before.share))
        )
    values = [end for row in rows for end in (row.value, *(row.interval or ()))]
    if not all(0 <= value <= 1 for value in values):
        return None
    description = "; ".join(f"{row.name} {row.note}" for row in rows)
    form = "{:.0%}" if main == "accuracy" else "{:.2f}"
    return charts.whiskers(f"{main} with 95 % intervals", description, rows, main, form)


def _print_slices(found: Evaluation) -> None:
    """The tables of the slices, of each task."""
    for task, alone in [("", found)] if not found.tasks else [
        (f"{task.name}, ", alone) for task, alone in each_task(found)
    ]:  # fmt: skip
        for slicing in alone.slices:
            header, *rows = tabulate_slices(slicing, narrative.main_metric(alone))
            header[0] = f"{task}{header[0]}"
            console.print_line(console.format_table([header, *rows]))
            console.print_line()


def print_evaluation(found: Evaluation, folder: Path) -> None:
    """The scores, what has changed, what was wrong with rows, the files; last of all the score."""
    console.print_line()
    console.print_line(console.format_table(_score_table(found)))
    console.print_line()
    if found.drift is not None:
        console.print_line(console.format_table(_drift_table(found.drift)))
        console.print_line()
    _print_slices(found)
    of_task = [*explain_slices(found.slices)]
    if found.numbers is None:
        of_task += [
            f"{task.name}: {sentence}"
            for task, alone in each_task(found)
            for sentence in (*explain_slices(alone.slices), explain_calibration(alone))
        ] or [explain_calibration(found)]
    else:
        of_task += explain_numbers(found.numbers, found, WHERE)
    for sentence in (*introduce(found), *of_task):
        console.print_wrapped(sentence, mark="  ")
    for finding in found.data.findings:
        console.print_wrapped(finding.message, mark="  ")
    console.print_line(f"\nWritten to {folder}: report.html, results.json, predictions.jsonl\n")
    main = narrative.main_metric(found)
    interval = found.test.intervals[main]
    certainty = "" if interval is None else f" (95 % interval {format_interval(interval)})"
    score = f"{main} {format_score(found.test.metric(main))}{certainty}"
    console.print_line(
        f"{score[0].upper()}{score[1:]} on {count_documents(found.test.rows)}", even_if_quiet=True
    )
    console.print_line(f"Report: {folder / 'report.html'}", even_if_quiet=True)


def _score_table(found: Evaluation) -> Sequence[Sequence[str]]:
    rows = [["", "score", "95 % interval"]]
    for name, interval in found.test.intervals.items():
        rows.append([name[:32], format_score(found.test.metric(name)), format_interval(interval)])
    return [*rows, ["rows", f"{found.test.rows:,}", ""]]


def _drift_table(drift: Drift, most: int = 12) -> Sequence[Sequence[str]]:
    """Each label's share and recall, before and now; the clearest changes first."""
    recalls = {one.label: one for one in drift.recalls}

    def p_of(share: Change) -> float:
        recall = recalls.get(share.label)
        return min(share.p, 1.0 if recall is None else recall.p)

    rows = [["label", "share of test", "now", "recall on test", "now", ""]]
    for share in sorted(drift.shares, key=p_of)[:most]:
        recall = recalls.get(share.label)
        marks = [word for word, one in (("share", share), ("recall", recall))
                 if one is not None and one.is_clear]  # fmt: skip
        of_recall = ["–", "–"]
        if recall is not None:
            of_recall = [percent(recall.before.share), percent(recall.after.share)]
        rows.append(
            [
                (share.label or "")[:22],
                percent(share.before.share),
                percent(share.after.share),
                *of_recall,
                "changed: " + ", ".join(marks) if marks else "",
            ]
        )
    if len(drift.shares) > most:
        rows.append([f"and {len(drift.shares) - most:,} more", "", "", "", "", ""])
    return rows
