"""Numbers → small charts as inline SVG: intervals, lines, reliability, shares of a whole."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from finetune.evaluation.analysis_model import ReliabilityBin
from finetune.reporting.svg import (
    WIDTH,
    Axis,
    Point,
    box,
    chart,
    dot,
    frame,
    legend,
    line,
    path,
    text,
)

FEW = 10  # rows of a bin


@dataclass(frozen=True)
class Row:
    """A value with its interval, under its name."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    style: str = "main"
    note: str = ""
    strong: bool = False


def whiskers(
    title: str, description: str, rows: Sequence[Row], x_label: str, form: str, low: float = 0.0
) -> Markup:
    """Values as dots on one axis, their intervals as lines; each under its name.

    Args:
        low: the lowest possible value; below 0, they are differences, and 0 is marked.
    """
    ends = [end for row in rows for end in (row.value, *(row.interval or ()))]
    ends += [0.0] * (low < 0)
    pitch, top = 38.0, 4.0
    bottom = top + pitch * len(rows)
    spread = max(max(ends) - min(ends), 0.02)
    x = Axis(
        max(low, min(ends) - 0.06 * spread), min(1.0, max(ends) + 0.06 * spread), 8, WIDTH - 8, form
    )
    drawn = [line(x(tick), top, x(tick), bottom, "grid") for tick in x.ticks]
    drawn += [text(x(tick), bottom + 16, x.format(tick)) for tick in x.ticks]
    drawn += [
        line(x.start, bottom, x.end, bottom, "axis"),
        text((x.start + x.end) / 2, bottom + 31, x_label, "label"),
    ]
    if low < 0:
        drawn.append(line(x(0), top, x(0), bottom, "rule"))
    for i, row in enumerate(rows):
        y = top + pitch * i + 26
        name = Markup('{}<tspan class="note" dx="6">{}</tspan>').format(row.name, row.note)
        drawn.append(text(x.start, y - 12, name, "name main" if row.strong else "name", "start"))
        if row.interval is not None:
            drawn.append(line(x(row.interval[0]), y, x(row.interval[1]), y, f"whisker {row.style}"))
        drawn.append(dot(x(row.value), y, 4.5, f"dot {row.style}", f"{row.name}: {row.note}"))
    return chart(title, description, bottom + 38, drawn)


def spark(value: float, interval: tuple[float, float], low: float) -> Markup:
    """A value between `low` and 1 with its interval, as small as a word."""
    x = Axis(low, 1, 4, 116, rounded=False)
    drawn = [
        line(x(low), 8, x(1), 8, "grid"),
        line(x(interval[0]), 8, x(interval[1]), 8, "whisker main"),
        dot(x(value), 8, 3.5, "dot main"),
    ]
    return Markup('<svg class="spark" viewBox="0 0 120 16" aria-hidden="true">{}</svg>').format(
        Markup("").join(drawn)
    )


@dataclass(frozen=True)
class Series:
    """A line, and a band around it where it has one."""

    points: Sequence[Point]
    name: str = ""
    style: str = "main"
    band: Sequence[tuple[float, float, float]] = ()  # x, low, high
    marked: bool = False


@dataclass(frozen=True)
class AxisSpec:
    """What an axis shows.

    Attributes:
        label: its name.
        form: how a tick is written, as of `str.format`.
        low, high: its ends; None: those of the data.
    """

    label: str = ""
    form: str = "{:g}"
    low: float | None = None
    high: float | None = None
    log: bool = False


@dataclass(frozen=True)
class Marks:
    """Lines across a chart, each with its name.

    Attributes:
        across: y and name of horizontal lines.
        down: x and name of vertical lines.
    """

    across: Sequence[tuple[float, str]] = ()
    down: Sequence[tuple[float, str]] = ()


def lines(
    title: str,
    description: str,
    series: Sequence[Series],
    x_axis: AxisSpec,
    y_axis: AxisSpec,
    marks: Marks = Marks(),  # it is frozen
) -> Markup:
    """Series over x, with a legend where they have names."""
    top = 38.0 if y_axis.label or any(one.name for one in series) else 12.0
    height = 186.0 + top
    xs = [at for one in series for at, _ in one.points]
    low = min(xs) if x_axis.low is None else x_axis.low
    high = max(xs) if x_axis.high is None else x_axis.high
    x = Axis(low, high, 46, WIDTH - 10, x_axis.form, rounded=False)
    ys = _shown_values(series, marks, y_axis.log)
    low = min(ys) if y_axis.low is None else y_axis.low
    high = max(ys) if y_axis.high is None else y_axis.high
    y = Axis(low, high, height - 40, top, y_axis.form, log=y_axis.log, most=4)
    drawn = frame(x, y, x_axis.label, y_axis.label)
    drawn += _draw_marks(x, y, marks)
    for one in series:
        drawn += _draw_series(x, y, one)
    names = [(one.name, one.style) for one in series if one.name]
    drawn += legend(names, lambda at, style: line(at + 8, 8, at + 20, 8, f"stroke {style}"))
    return chart(title, description, height, drawn)


def _shown_values(series: Sequence[Series], marks: Marks, log: bool) -> list[float]:
    """All that the y axis must have room for."""
    values = [value for one in series for _, value in one.points]
    values += [value for value, _ in marks.across]
    values += [end for one in series for _, *ends in one.band for end in ends]
    return [y for y in values if math.isfinite(y) and (y > 0 or not log)] or [0.0, 1.0]


def _draw_marks(x: Axis, y: Axis, marks: Marks) -> list[Markup]:
    drawn = []
    for value, name in marks.across:
        drawn.append(line(x.start, y(value), x.end, y(value), "rule"))
        drawn.append(text(x.start + 4, y(value) - 4, name, "note", "start"))
    for value, name in marks.down:
        drawn.append(line(x(value), y.start, x(value), y.end, "rule"))
        is_right = x(value) > WIDTH * 0.6
        at = x(value) + (-4 if is_right else 4)
        drawn.append(text(at, y.start - 7, name, "note", "end" if is_right else "start"))
    return drawn


def _draw_series(x: Axis, y: Axis, series: Series) -> list[Markup]:
    drawn = []
    if series.band:
        upper = [(x(at), y(most)) for at, _, most in series.band]
        lower = [(x(at), y(max(least, y.low))) for at, least, _ in reversed(series.band)]
        drawn.append(path([*upper, *lower], f"band {series.style}", closed=True))
    pixels = [(x(at), y(value)) for at, value in series.points]
    if len(pixels) > 1:
        drawn.append(path(pixels, f"stroke {series.style}"))
    if series.marked or len(pixels) == 1:
        drawn += [
            dot(px, py, 3.2, f"dot {series.style}", f"{x.format(at)}: {value:.4g}")
            for (px, py), (at, value) in zip(pixels, series.points, strict=True)
        ]
    return drawn


def reliability(title: str, description: str, bins: Sequence[ReliabilityBin]) -> Markup:
    """A reliability diagram: accuracy over confidence; on the diagonal, probabilities are honest.

    Dots are larger where there are more rows, and pale where there are fewer than ten; the bars
    below show how many there are, and say it.
    """
    x = Axis(0, 1, 46, WIDTH - 10, "{:.0%}")
    y = Axis(0, 1, 262, 28, "{:.0%}")
    drawn = frame(x, y, "confidence: probability of the prediction", "accuracy")
    drawn.append(line(x(0), y(0), x(1), y(1), "rule"))
    most, rows = max(one.rows for one in bins), sum(one.rows for one in bins)
    for one in bins:
        height = 46 * one.rows / most
        width = x(one.high) - x(one.low) - 2
        tooltip = f"{one.rows:,} of {rows:,} documents"
        drawn.append(box(x(one.low) + 1, y.start - height, width, height, "bar soft", tooltip))
        shown = f"{one.rows:,}" if one.rows < 1000 else f"{one.rows / 1000:.0f}k"
        at = (x(one.low) + x(one.high)) / 2
        drawn.append(text(at, y.start - height - 3, shown, "count"))
    for one in bins:
        px, py = x(one.confidence), y(one.accuracy)
        # Of a few documents, the share that is right is a matter of chance.
        faint = " faint" if one.rows < FEW else ""
        drawn.append(line(px, y(one.confidence), px, py, f"gap{faint}"))
        tooltip = (
            f"confidence {one.confidence:.1%}, accuracy {one.accuracy:.1%}, {one.rows:,} documents"
        )
        radius = 2.5 + 5 * math.sqrt(one.rows / most)
        drawn.append(dot(px, py, radius, f"dot main{faint}", tooltip))
    return chart(title, description, 300, drawn)


def parts(title: str, description: str, shares: Sequence[tuple[str, float, str]]) -> Markup:
    """One bar of parts with a legend below.

    Args:
        shares: name, size, and the size as text.
    """
    whole = sum(size for _, size, _ in shares) or 1.0
    drawn, at = [], 0.0
    for i, (name, size, label) in enumerate(shares):
        width = WIDTH * size / whole
        drawn.append(box(at, 0, max(width - 1, 0.6), 22, f"part part{i % 7}", f"{name}: {label}"))
        at += width
    for i, (name, size, label) in enumerate(shares):
        x, y = WIDTH / 2 * (i % 2), 42 + 19 * (i // 2)
        drawn.append(box(x, y - 9, 10, 10, f"part part{i % 7}"))
        drawn.append(text(x + 16, y, f"{name}", "name", "start"))
        drawn.append(
            text(x + WIDTH / 2 - 14, y, f"{label} ({size / whole:.0%})", "note", "end"),
        )
    return chart(title, description, 52 + 19 * ((len(shares) + 1) // 2 - 1), drawn)


def scatter(
    title: str, description: str, points: Sequence[Point], half_width: float | None = None
) -> Markup:
    """Predicted over true numbers, with the diagonal.

    Args:
        points: true and predicted.
        half_width: of a prediction interval, which is drawn around the diagonal; None: none.
    """
    ends = [value for point in points for value in point]
    x = Axis(min(ends), max(ends), 46, WIDTH - 10, "{:.4g}")
    y = Axis(min(ends), max(ends), 262, 28, "{:.4g}")
    drawn = frame(x, y, "true number", "predicted")
    for shift in (0.0,) if half_width is None else (-half_width, 0.0, half_width):
        low, high = max(x.low, y.low - shift), min(x.high, y.high - shift)
        if low < high:
            drawn.append(line(x(low), y(low + shift), x(high), y(high + shift), "rule"))
    for true, predicted in points:
        tooltip = f"true {true:.4g}, predicted {predicted:.4g}"
        drawn.append(dot(x(true), y(predicted), 2.2, "dot main faint", tooltip))
    return chart(title, description, 300, drawn)
