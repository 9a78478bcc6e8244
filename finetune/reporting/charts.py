"""Numbers → small charts, as inline SVG that follows the page's colours, light, dark or printed.

All are drawn 360 wide, so that their text can be read on a phone, and scale with their column.
Every text goes through `Markup.format`, which escapes it. Colours are the page's CSS classes.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

WIDTH = 360.0
Point = tuple[float, float]


@dataclass
class Axis:
    """A scale from data to pixels, with ticks at round numbers.

    Attributes:
        low, high: the data's range; widened to round numbers where `rounded`.
        start, end: pixels.
        form: how a tick is written, as of `str.format`.
    """

    low: float
    high: float
    start: float
    end: float
    form: str = "{:g}"
    log: bool = False
    most: int = 5
    rounded: bool = True
    ticks: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not self.high > self.low:
            pad = abs(self.low) / 2 or 0.5
            self.low, self.high = self.low - pad, self.high + pad
        if self.log:
            self.low, self.high = max(self.low, 1e-12), max(self.high, 1e-11)
            self.ticks, self.low, self.high = _log_ticks(self.low, self.high, self.most)
            return
        step = _round_step((self.high - self.low) / self.most)
        if self.rounded:
            self.low = step * math.floor(self.low / step + 1e-9)
            self.high = step * math.ceil(self.high / step - 1e-9)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        self.ticks = [i * step for i in range(first, last + 1)]
        if self.form.endswith(".0%}") and abs(100 * step - round(100 * step)) > 1e-6:
            self.form = self.form.replace(".0%", ".1%")

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = (math.log10(max(v, 1e-12)) for v in (value, low, high))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def said(self, tick: float) -> str:
        return self.form.format(0.0 if abs(tick) < 1e-12 else tick)


def _log_ticks(low: float, high: float, most: int) -> tuple[list[float], float, float]:
    """Round numbers from below `low` to above `high`: 1, 2, 5, 10, or powers of ten alone."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1, 2, 5), (1, 3), (1,)):
        every = [m * 10.0**power for power in range(first, last + 1) for m in steps]
        start = max(tick for tick in every if tick <= low * 1.001)
        end = min((tick for tick in every if tick >= high * 0.999), default=every[-1])
        ticks = [tick for tick in every if start <= tick <= end]
        if len(ticks) <= most + 4:
            return ticks, start, end
    return ticks[:: math.ceil(len(ticks) / most)], start, end


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next((m * power for m in (1, 2, 2.5, 5) if m * power >= rough * 0.999), 10 * power)


def svg(title: str, description: str, height: float, body: Sequence[Markup]) -> Markup:
    """A chart with its text alternative."""
    name = f"c{zlib.crc32((title + description).encode()):x}"
    return Markup(
        '<svg class="chart" viewBox="0 0 {w:g} {h:g}" role="img" aria-labelledby="{n}t {n}d">'
        '<title id="{n}t">{title}</title><desc id="{n}d">{description}</desc>{body}</svg>'
    ).format(
        w=WIDTH, h=height, n=name, title=title, description=description, body=Markup("").join(body)
    )


def text(x: float, y: float, said: str, style: str = "tick", anchor: str = "middle") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>').format(
        x, y, style, anchor, said
    )


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(
        x1, y1, x2, y2, style
    )


def path(points: Sequence[Point], style: str, closed: bool = False) -> Markup:
    steps = "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup('<path d="M{}{}" class="{}"/>').format(steps, "Z" * closed, style)


def dot(x: float, y: float, radius: float, style: str, says: str = "") -> Markup:
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" class="{}">{}</circle>').format(
        x, y, radius, style, Markup("<title>{}</title>").format(says) if says else ""
    )


def box(x: float, y: float, width: float, height: float, style: str, says: str = "") -> Markup:
    return Markup(
        '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}">{}</rect>'
    ).format(
        x,
        y,
        max(0.0, width),
        max(0.0, height),
        style,
        Markup("<title>{}</title>").format(says) if says else "",
    )


def frame(x: Axis, y: Axis, x_label: str, y_label: str) -> list[Markup]:
    """Axes: grid lines at y's ticks, x's ticks below, y's name above its numbers."""
    drawn = [line(x.start, y(tick), x.end, y(tick), "grid") for tick in y.ticks]
    drawn += [text(x.start - 6, y(tick) + 3.5, y.said(tick), anchor="end") for tick in y.ticks]
    drawn.append(line(x.start, y.start, x.end, y.start, "axis"))
    for tick in x.ticks:
        drawn.append(line(x(tick), y.start, x(tick), y.start + 4, "axis"))
        drawn.append(text(x(tick), y.start + 16, x.said(tick)))
    drawn.append(text((x.start + x.end) / 2, y.start + 31, x_label, "label"))
    drawn.append(text(2, y.end - 10, y_label, "label", "start"))
    return drawn


@dataclass(frozen=True)
class Row:
    """A value with its interval, under its name."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    style: str = "main"
    note: str = ""
    strong: bool = False


def whiskers(title: str, description: str, rows: Sequence[Row], x_label: str, form: str) -> Markup:
    """Values as dots on one axis, their intervals as lines; each under its name."""
    ends = [end for row in rows for end in (row.value, *(row.interval or ()))]
    pitch, top = 38.0, 4.0
    bottom = top + pitch * len(rows)
    spread = max(max(ends) - min(ends), 0.02)
    x = Axis(
        max(0.0, min(ends) - 0.06 * spread), min(1.0, max(ends) + 0.06 * spread), 8, WIDTH - 8, form
    )
    drawn = [line(x(tick), top, x(tick), bottom, "grid") for tick in x.ticks]
    drawn += [text(x(tick), bottom + 16, x.said(tick)) for tick in x.ticks]
    drawn += [
        line(x.start, bottom, x.end, bottom, "axis"),
        text((x.start + x.end) / 2, bottom + 31, x_label, "label"),
    ]
    for i, row in enumerate(rows):
        y = top + pitch * i + 26
        said = Markup('{}<tspan class="note" dx="6">{}</tspan>').format(row.name, row.note)
        drawn.append(text(x.start, y - 12, said, "name main" if row.strong else "name", "start"))
        if row.interval is not None:
            low, high = row.interval
            drawn.append(line(x(low), y, x(high), y, f"whisker {row.style}"))
        drawn.append(dot(x(row.value), y, 4.5, f"dot {row.style}", f"{row.name}: {row.note}"))
    return svg(title, description, bottom + 38, drawn)


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


def lines(
    title: str,
    description: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    x_form: str = "{:g}",
    y_form: str = "{:g}",
    log: bool = False,
    y_from: float | None = None,
    y_to: float | None = None,
    rules: Sequence[tuple[float, str]] = (),
    marks: Sequence[tuple[float, str]] = (),
    x_range: tuple[float, float] | None = None,
) -> Markup:
    """Series over x, with legends where they have names.

    Args:
        rules: y and name of horizontal lines.
        marks: x and name of vertical lines.
    """
    top = 38.0 if y_label or any(one.name for one in series) else 12.0
    height = 186.0 + top
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points] + [y for y, _ in rules]
    ys += [end for one in series for _, *ends in one.band for end in ends]
    ys = [y for y in ys if math.isfinite(y) and (y > 0 or not log)] or [0.0, 1.0]
    low, high = x_range or (min(xs), max(xs))
    x = Axis(low, high, 46, WIDTH - 10, x_form, rounded=False)
    y = Axis(
        min(ys) if y_from is None else y_from,
        max(ys) if y_to is None else y_to,
        height - 40,
        top,
        y_form,
        log=log,
        most=4,
    )
    drawn = frame(x, y, x_label, y_label)
    for value, said in rules:
        drawn.append(line(x.start, y(value), x.end, y(value), "rule"))
        drawn.append(text(x.start + 4, y(value) - 4, said, "note", "start"))
    for value, said in marks:
        drawn.append(line(x(value), y.start, x(value), y.end, "rule"))
        near = "end" if x(value) > WIDTH * 0.6 else "start"
        drawn.append(
            text(x(value) + (4 if near == "start" else -4), y.start - 7, said, "note", near)
        )
    for one in series:
        if one.band:
            upper = [(x(at), y(most)) for at, _, most in one.band]
            lower = [(x(at), y(max(least, y.low))) for at, least, _ in reversed(one.band)]
            drawn.append(path([*upper, *lower], f"band {one.style}", closed=True))
        pixels = [(x(at), y(value)) for at, value in one.points]
        if len(pixels) > 1:
            drawn.append(path(pixels, f"stroke {one.style}"))
        if one.marked or len(pixels) == 1:
            drawn += [
                dot(px, py, 3.2, f"dot {one.style}", f"{x.said(at)}: {value:.4g}")
                for (px, py), (at, value) in zip(pixels, one.points, strict=True)
            ]
    at = WIDTH - 10
    for one in reversed([one for one in series if one.name]):
        drawn.append(text(at, 12, one.name, f"legend {one.style}", "end"))
        at -= 7.2 * len(one.name) + 26
        drawn.append(line(at + 8, 8, at + 20, 8, f"stroke {one.style}"))
    return svg(title, description, height, drawn)


def reliability(title: str, description: str, bins: Sequence[dict[str, float]]) -> Markup:
    """How right answers are against how sure: on the diagonal they are honest.

    Dots are larger where there are more rows; below stands where the rows are.
    """
    x = Axis(0, 1, 46, WIDTH - 10, "{:.0%}")
    y = Axis(0, 1, 262, 28, "{:.0%}")
    drawn = frame(x, y, "how sure: probability of the answer", "how right: accuracy")
    drawn.append(line(x(0), y(0), x(1), y(1), "rule"))
    most = max(part["rows"] for part in bins)
    rows = sum(part["rows"] for part in bins)
    for part in bins:
        height = 46 * part["rows"] / most
        says = f"{part['rows']:,.0f} of {rows:,.0f} documents"
        drawn.append(
            box(
                x(part["low"]) + 1,
                y.start - height,
                x(part["high"]) - x(part["low"]) - 2,
                height,
                "bar soft",
                says,
            )
        )
    for part in bins:
        px, py = x(part["confidence"]), y(part["accuracy"])
        drawn.append(line(px, y(part["confidence"]), px, py, "gap"))
        drawn.append(
            dot(
                px,
                py,
                2.5 + 5 * math.sqrt(part["rows"] / most),
                "dot main",
                f"sure {part['confidence']:.1%}, right {part['accuracy']:.1%}, "
                f"{part['rows']:,.0f} documents",
            )
        )
    return svg(title, description, 300, drawn)


def parts(title: str, description: str, shares: Sequence[tuple[str, float, str]]) -> Markup:
    """One bar of parts, with a legend below: name, size, and how it is said."""
    whole = sum(size for _, size, _ in shares) or 1.0
    drawn, at = [], 0.0
    for i, (name, size, said) in enumerate(shares):
        width = WIDTH * size / whole
        drawn.append(box(at, 0, max(width - 1, 0.6), 22, f"part part{i % 7}", f"{name}: {said}"))
        at += width
    for i, (name, size, said) in enumerate(shares):
        x, y = WIDTH / 2 * (i % 2), 42 + 19 * (i // 2)
        drawn.append(box(x, y - 9, 10, 10, f"part part{i % 7}"))
        drawn.append(text(x + 16, y, f"{name}", "name", "start"))
        drawn.append(
            text(x + WIDTH / 2 - 14, y, f"{said} ({size / whole:.0%})", "note", "end"),
        )
    return svg(title, description, 52 + 19 * ((len(shares) + 1) // 2 - 1), drawn)
