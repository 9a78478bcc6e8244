"""A study → `sweep.json`, and one page: history, importance, parallel coordinates, cost.

recipe, metric, direction, seed, pruner, sampler
space       the search space: the values of each key
trials      number, state (complete, pruned, running), value on validation, scorings, seconds,
            settings (key → value), why it was pruned
best        the number of the best trial; null where none is complete
importance  key → share of the metric's variance that it explains (PED-ANOVA, Watanabe et al. 2023);
            empty with fewer than 4 complete trials or where all have the same score
winner      the best recipe's runs with several seeds, as in `seeds.json`; null where there are none
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from markupsafe import Markup
from optuna.trial import FrozenTrial, TrialState

from finetune.reporting import html_report, svg
from finetune.reporting.number_formats import format_seconds
from finetune.reporting.seeds_report import SeedsSummary
from finetune.reporting.svg import WIDTH, Axis
from finetune.runtime import atomic_files
from finetune.runtime.console import format_table
from finetune.tuning.search_space import Dimension
from finetune.tuning.study import Sweep
from finetune.tuning.sweep import format_setting

ENOUGH = 4  # complete trials from which importance says something
TOP = 5  # trials that parallel coordinates draw in the main colour
Results = Mapping[str, Any]


def describe_sweep(sweep: Sweep) -> str:
    """What a sweep is about to do, in a few lines."""
    many = "as many trials as there is time for" if sweep.trials is None else f"{sweep.trials}"
    lines = [f"Sweep  {sweep.folder}", f"  by {sweep.metric} on validation; trials: {many}"]
    lines += [f"  {one.describe()}" for one in sweep.dimensions]
    return "\n".join([*lines, ""])


def summarize_sweep(study: optuna.Study, sweep: Sweep, winner: Results | None) -> dict[str, Any]:
    """What `sweep.json` holds."""
    trials = study.get_trials(deepcopy=False)
    whole = [one for one in trials if one.state == TrialState.COMPLETE]
    return {
        "recipe": sweep.name,
        "metric": sweep.metric,
        "direction": sweep.direction,
        "seed": sweep.seed,
        "pruner": sweep.pruner,
        "sampler": "TPE",
        "space": {one.key: {one.kind: list(one.values)} for one in sweep.dimensions},
        "trials": [_trial(one) for one in trials],
        "best": study.best_trial.number if whole else None,
        "importance": _importance(study, whole),
        "winner": winner,
    }


def _trial(one: FrozenTrial) -> dict[str, Any]:
    return {
        "number": one.number,
        "state": one.state.name.lower(),
        "value": one.value if one.state == TrialState.COMPLETE else None,
        "scorings": [value for _, value in sorted(one.intermediate_values.items())],
        "seconds": one.user_attrs.get("seconds"),
        "settings": dict(one.params),
        "why": one.user_attrs.get("why"),
    }


def _importance(study: optuna.Study, whole: Sequence[FrozenTrial]) -> dict[str, float]:
    if len(whole) < ENOUGH or len({one.value for one in whole}) == 1:
        return {}
    try:
        found = optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError):  # as where a key took a single value
        return {}
    return {key: float(share) for key, share in found.items() if math.isfinite(share)}


def format_sweep(found: Results) -> str:
    """The best trials, and what the winner scored."""
    low = found["direction"] == "minimize"
    whole = [one for one in found["trials"] if one["value"] is not None]
    best = sorted(whole, key=lambda one: one["value"] if low else -one["value"])[:TOP]
    keys = list(found["space"])
    rows = [("trial", found["metric"], "time", *keys)]
    for one in best:
        settings = [format_setting(one["settings"][key]) for key in keys]
        rows.append(
            (
                f"{one['number']}",
                f"{one['value']:.4f}",
                format_seconds(one["seconds"]),
                *settings,
            )
        )
    lines = [format_table(rows), "", f"  {count_trials(found)}"]
    if found["winner"]:
        lines.append(f"  Best recipe, {_summarize_winner(found['winner'])}")
    return "\n".join(lines)


def count_trials(found: Results) -> str:
    """How many trials were made, and how long they took."""
    trials = found["trials"]
    of = {state: sum(one["state"] == state for one in trials) for state in ("complete", "pruned")}
    spent = format_seconds(sum(one["seconds"] or 0 for one in trials))
    return f"{of['complete']} trials complete, {of['pruned']} pruned, {spent} in all"


def _summarize_winner(winner: Results) -> str:
    summary = SeedsSummary.model_validate({key: winner[key] for key in SeedsSummary.model_fields})
    spread = summary.main_spread
    deviation = "" if spread.sd is None else f" ± {spread.sd:.4f}"
    seeds = f"{len(summary.seeds)} seed{'s' * (len(summary.seeds) != 1)}"
    return f"{seeds}: {summary.split} {summary.main} {spread.mean:.4f}{deviation}"


def write_sweep_report(found: Results, folder: Path) -> None:
    """Write `sweep.json` and draw `report.html`."""
    atomic_files.write_json(folder / "sweep.json", found)
    plain = atomic_files.finite_json(found)
    atomic_files.write_text(folder / "report.html", render_sweep_report(plain))


def render_sweep_report(found: Results) -> str:
    """The page of a sweep, from what `sweep.json` holds."""
    whole = [one for one in found["trials"] if one["value"] is not None]
    best = next((one for one in whole if one["number"] == found["best"]), None)
    headline = f"{len(found['trials'])} trials"
    if best is not None:
        headline = (
            f"{found['metric'].capitalize()} {best['value']:.4f} on validation, best of {headline}"
        )
    return (
        html_report.template_environment()
        .get_template("sweep.html")
        .render(
            found=found,
            best=best,
            headline=headline,
            counts=count_trials(found),
            winner=None if not found["winner"] else _summarize_winner(found["winner"]),
            history=history(found) if whole else None,
            importance=importance(found) if found["importance"] else None,
            parallel=parallel(found, whole) if len(whole) > 1 else None,
            cost=cost(found),
            keys=list(found["space"]),
            short=format_setting,
        )
    )


def history(found: Results) -> Markup:
    """The score of each trial, and the best so far (optimization history)."""
    metric, low = found["metric"], found["direction"] == "minimize"
    whole = [one for one in found["trials"] if one["value"] is not None]
    left = [one for one in found["trials"] if one["value"] is None and one["scorings"]]
    last = found["trials"][-1]["number"]
    x = Axis(0, max(1, last), 46, WIDTH - 10, rounded=False)
    x.ticks = [tick for tick in x.ticks if tick == round(tick)]
    shown = [one["value"] for one in whole] + [one["scorings"][-1] for one in left]
    y = Axis(min(shown), max(shown), 190, 38, most=4)
    drawn = svg.frame(x, y, "trial", metric)
    steps: list[svg.Point] = []
    best = math.inf if low else -math.inf
    for one in whole:
        best = min(best, one["value"]) if low else max(best, one["value"])
        if steps:
            steps.append((x(one["number"]), steps[-1][1]))
        steps.append((x(one["number"]), y(best)))
    steps.append((x(last), steps[-1][1]))
    drawn.append(svg.path(steps, "stroke main"))
    for style, some in (("third", left), ("main", whole)):
        for one in some:
            value = one["value"] if one["value"] is not None else one["scorings"][-1]
            tooltip = f"trial {one['number']}: {value:.4f}"
            drawn.append(svg.dot(x(one["number"]), y(value), 3.2, f"dot {style}", tooltip))
    drawn += _legend([("best so far", "main"), ("pruned", "third")])
    description = f"Best of {len(whole)} complete trials: {best:.4f}, of {last + 1} in all."
    return svg.chart(f"{metric} of each trial", description, 226, drawn)


def _legend(names: Sequence[tuple[str, str]]) -> list[Markup]:
    return svg.legend(names, lambda at, style: svg.dot(at + 20, 8, 3.2, f"dot {style}"))


def importance(found: Results) -> Markup:
    """The importance of each key, as bars."""
    shares = found["importance"]
    pitch, top = 34.0, 4.0
    x = Axis(0, max(shares.values()), 8, WIDTH - 52, "{:.0%}")
    drawn = []
    for i, (key, share) in enumerate(shares.items()):
        y = top + pitch * i
        drawn.append(svg.text(8, y + 11, key, "name", "start"))
        drawn.append(svg.box(8, y + 16, x(share) - 8, 10, "part part0", f"{key}: {share:.0%}"))
        drawn.append(svg.text(x(share) + 6, y + 25, f"{share:.0%}", "note", "start"))
    description = "; ".join(f"{key} {share:.0%}" for key, share in shares.items())
    return svg.chart("Importance of each key", description, top + pitch * len(shares), drawn)


def parallel(found: Results, whole: Sequence[Results]) -> Markup:
    """Parallel coordinates: a line for each complete trial, through its settings to its score."""
    low = found["direction"] == "minimize"
    ranked = sorted(whole, key=lambda one: -one["value"] if low else one["value"])
    axes = [*found["space"], found["metric"]]
    step, top = 62.0, 26.0
    drawn: list[Markup] = []
    places: list[dict[int, float]] = []
    heights = [top + step * i for i in range(len(axes))]
    for key, y in zip(axes, heights, strict=True):
        drawn.append(svg.text(8, y - 10, key, "name", "start"))
        drawn.append(svg.line(8, y, WIDTH - 8, y, "axis"))
        places.append(_along(drawn, found, key, ranked, y, is_score=y == heights[-1]))
    lines = []
    for rank, one in enumerate(ranked):
        points = [(at[one["number"]], y) for at, y in zip(places, heights, strict=True)]
        style = "main" if rank >= len(ranked) - TOP else "third"
        lines.append(svg.path(points, f"stroke {style} thin"))
    description = f"{len(ranked)} complete trials; the best {min(TOP, len(ranked))} in colour."
    return svg.chart(
        "Settings and score of each trial", description, heights[-1] + 24, [*lines, *drawn]
    )


def _along(
    drawn: list[Markup],
    found: Results,
    key: str,
    trials: Sequence[Results],
    y: float,
    is_score: bool,
) -> dict[int, float]:
    """Draw an axis's ticks; the position of each trial on it."""
    if is_score:
        values = {one["number"]: one["value"] for one in trials}
        axis = Axis(min(values.values()), max(values.values()), 16, WIDTH - 24, "{:.4g}", most=4)
    else:
        values = {one["number"]: one["settings"][key] for one in trials}
        [(kind, ends)] = found["space"][key].items()
        if kind == "choice":
            names = Dimension(key, kind, tuple(ends)).names
            spots = {
                name: 30 + (WIDTH - 60) * i / max(1, len(names) - 1) for i, name in enumerate(names)
            }
            drawn += [svg.text(at, y + 14, name) for name, at in spots.items()]
            return {number: spots[str(value)] for number, value in values.items()}
        axis = Axis(
            ends[0], ends[1], 16, WIDTH - 24, log=kind.startswith("log"), rounded=False, most=4
        )
    for tick in axis.ticks:
        drawn.append(svg.line(axis(tick), y, axis(tick), y + 4, "axis"))
        drawn.append(svg.text(axis(tick), y + 15, axis.format(tick)))
    return {number: axis(value) for number, value in values.items()}


def cost(found: Results) -> Markup:
    """The time of each trial, pruned ones lighter."""
    trials = [one for one in found["trials"] if one["seconds"]]
    if not trials:
        return Markup("")
    x = Axis(-0.5, found["trials"][-1]["number"] + 0.5, 46, WIDTH - 10, rounded=False)
    x.ticks = [tick for tick in x.ticks if tick == round(tick)]
    y = Axis(0, max(one["seconds"] for one in trials), 190, 38, most=4)
    drawn = svg.frame(x, y, "trial", "seconds")
    width = 0.7 * (x(1) - x(0))
    for one in trials:
        style = "part part0" if one["state"] == "complete" else "part part2"
        at, high = x(one["number"]) - width / 2, y(one["seconds"])
        tooltip = f"trial {one['number']}: {format_seconds(one['seconds'])}"
        drawn.append(svg.box(at, high, width, y.start - high, style, tooltip))
    drawn += _legend([("complete", "main"), ("pruned", "third")])
    total = format_seconds(sum(one["seconds"] for one in trials))
    return svg.chart("Seconds of each trial", f"{total} in all.", 226, drawn)
