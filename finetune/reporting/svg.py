"""Shapes, texts and axes → inline SVG that follows the page's colours, light, dark or printed.

Charts are drawn 360 wide, so that their text can be read on a phone, and scale with their column.
Every text goes through `Markup.format`, which escapes it. Colours are the page's CSS classes.
"""

import math
import zlib
from collections.abc import Callable, Sequence
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

    def format(self, tick: float) -> str:
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


def chart(title: str, description: str, height: float, body: Sequence[Markup]) -> Markup:
    """A chart with its text alternative."""
    name = f"c{zlib.crc32((title + description).encode()):x}"
    return Markup(
        '<svg class="chart" viewBox="0 0 {w:g} {h:g}" role="img" aria-labelledby="{n}t {n}d">'
        '<title id="{n}t">{title}</title><desc id="{n}d">{description}</desc>{body}</svg>'
    ).format(
        w=WIDTH, h=height, n=name, title=title, description=description, body=Markup("").join(body)
    )


def text(x: float, y: float, content: str, style: str = "tick", anchor: str = "middle") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>').format(
        x, y, style, anchor, content
    )


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(
        x1, y1, x2, y2, style
    )


def path(points: Sequence[Point], style: str, closed: bool = False) -> Markup:
    steps = "L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup('<path d="M{}{}" class="{}"/>').format(steps, "Z" * closed, style)


def dot(x: float, y: float, radius: float, style: str, tooltip: str = "") -> Markup:
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" class="{}">{}</circle>').format(
        x, y, radius, style, _tooltip(tooltip)
    )


def box(x: float, y: float, width: float, height: float, style: str, tooltip: str = "") -> Markup:
    return Markup(
        '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}">{}</rect>'
    ).format(
        x,
        y,
        max(0.0, width),
        max(0.0, height),
        style,
        _tooltip(tooltip),
    )


def _tooltip(content: str) -> Markup | str:
    return Markup("<title>{}</title>").format(content) if content else ""


def frame(x: Axis, y: Axis, x_label: str, y_label: str) -> list[Markup]:
    """Axes: grid lines at y's ticks, x's ticks below, y's name above its numbers."""
    drawn = [line(x.start, y(tick), x.end, y(tick), "grid") for tick in y.ticks]
    drawn += [text(x.start - 6, y(tick) + 3.5, y.format(tick), anchor="end") for tick in y.ticks]
    drawn.append(line(x.start, y.start, x.end, y.start, "axis"))
    for tick in x.ticks:
        drawn.append(line(x(tick), y.start, x(tick), y.start + 4, "axis"))
        drawn.append(text(x(tick), y.start + 16, x.format(tick)))
    drawn.append(text((x.start + x.end) / 2, y.start + 31, x_label, "label"))
    drawn.append(text(2, y.end - 10, y_label, "label", "start"))
    return drawn


def legend(names: Sequence[tuple[str, str]], mark: Callable[[float, str], Markup]) -> list[Markup]:
    """Names with their styles, from the right end of a chart's top.

    Args:
        mark: draws the sample of a style, from a position 20 wide.
    """
    drawn, at = [], WIDTH - 10
    for name, style in reversed(names):
        drawn.append(text(at, 12, name, f"legend {style}", "end"))
        at -= 7.2 * len(name) + 26
        drawn.append(mark(at, style))
    return drawn
