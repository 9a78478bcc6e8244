"""What bench.py found → a table, a plot; and on which machine."""

import importlib
import os
import platform
import resource
import statistics
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

Numbers = dict[str, Any]
Found = dict[str, list[Numbers]]  # side → what each of its runs found

SIDES_OF_OTHERS = ("trainer", "tuned", "pipeline", "limit", "anew")
KINDS = ("short", "mixed", "long")  # of documents, whose memory is compared


def table(found: Found) -> str:
    from finetune.runtime import console

    if "kept" in found:
        return console.format_table(_frozen(found))
    if next(iter(found)).startswith("prepare-"):
        return console.format_table(_prepared(found))
    if not any(side.startswith("rows-") for side in found):
        return console.format_table(_sides(found))
    return f"{console.format_table(_rows(found))}\n\n{console.format_table(_memory(found))}"


def _sides(found: Found) -> list[list[str]]:
    head = ["", "rows/s", "ours is", "GFLOP/s", "of limit", "scored/s", "ours is", "accuracy"]
    rows = [[*head, "same labels", "peak memory", "first step"]]
    limit = found.get("limit", [])
    for side, runs in found.items():
        middle = medians(runs)

        def cell(key: str, form: str, scale: float = 1, of: Numbers = middle) -> str:
            return format(of[key] * scale, form) if key in of else ""

        rows.append(
            [
                side,
                cell("train", ".1f"),
                _times(found.get("ours", []), runs, "train") if side != "ours" else "",
                cell("flops", ",.0f", 1e-9),
                _percent(_ratio(runs, limit, "flops")),
                cell("score", ".1f"),
                _times(found.get("ours", []), runs, "score") if side != "ours" else "",
                cell("accuracy", ".3f"),
                _percent(middle.get("same")),
                cell("memory", ",.0f") + " MB" if side != "limit" else "",
                cell("start", ".1f") + " s" if "start" in middle else "",
            ]
        )
    return rows


def _frozen(found: Found) -> list[list[str]]:
    anew, kept = found["anew"], found["kept"]
    first = [{"epoch": run["fill"] + run["epoch"]} for run in kept]
    rows = [["", "s/epoch", "kept is faster by", "peak memory"]]
    for name, runs, of in (
        ("each epoch anew", anew, anew),
        ("the first epoch: filling, then from kept states", first, kept),
        ("each later epoch, from kept states", kept, kept),
    ):
        seconds, megabytes = medians(runs)["epoch"], medians(of)["memory"]
        ratio = f"{_ratio(runs, kept, 'epoch') or 1:.1f} ×" if runs is not kept else ""
        rows.append([name, f"{seconds:.2f}", ratio, f"{megabytes:,.0f} MB"])
    return rows


PARTS = ("prepare", "tokenize", "plan", "train")  # of what a row costs, in seconds each


def _rows(found: Found) -> list[list[str]]:
    """Microseconds per row. An epoch's cost is planning and training; the others come once."""
    rows = [["rows", *(f"{part}, µs/row" for part in PARTS), "in all", "of the first"]]
    sizes = {side: runs for side, runs in found.items() if side.startswith("rows-")}
    first = next(iter(sizes.values()))
    rows[0].append("peak memory")
    for side, runs in sizes.items():
        middle = medians(runs)
        parts = [f"{1e6 * middle[part]:,.1f}" for part in PARTS]
        share = _percent(_ratio(runs, first, "row"))
        whole = f"{1e6 * middle['row']:,.1f}"
        rows.append([f"{int(side[5:]):,}", *parts, whole, share, f"{middle['memory']:,.0f} MB"])
    return rows


def _prepared(found: Found) -> list[list[str]]:
    """The last column is what memory grew by, at its highest."""
    head = ["rows", "file", "rows/s to splits", "rows/s to tokens", "in all", "tokens found again"]
    rows = [[*head, "memory"]]
    for runs in found.values():
        at = medians(runs)
        whole = at["prepare"] + at["tokenize"]
        rates = (f"{at['rows'] / took:,.0f}" for took in (at["prepare"], at["tokenize"], whole))
        again = f"{at['found_again']:.1f} s"
        sizes = (f"{at[key] / 1e6:,.0f} MB" for key in ("file", "growth"))
        file, growth = sizes
        rows.append([f"{at['rows']:,.0f}", file, *rates, again, growth])
    return rows


def _memory(found: Found) -> list[list[str]]:
    rows = [["documents", "longest", "tokens a step", "at once", "peak memory", "of it training"]]
    for kind in KINDS:
        middle = medians(found[f"memory-{kind}"])
        numbers = (f"{middle[key]:,.0f}" for key in ("longest", "step_tokens", "budget"))
        memory = (f"{middle[key]:,.0f} MB" for key in ("memory", "training_memory"))
        rows.append([kind, *numbers, *memory])
    return rows


def medians(runs: Sequence[Numbers]) -> Numbers:
    numbers = {k for k, v in runs[0].items() if isinstance(v, int | float)}
    return {k: statistics.median(run[k] for run in runs) for k in runs[0] if k in numbers}


def _ratio(runs: Sequence[Numbers], others: Sequence[Numbers], key: str) -> float | None:
    """The median over the rounds of one side's number divided by the other's of that round."""
    if not runs or not others or key not in runs[0] or key not in others[0]:
        return None
    return float(statistics.median(a[key] / b[key] for a, b in zip(runs, others, strict=True)))


def _times(ours: Sequence[Numbers], runs: Sequence[Numbers], key: str) -> str:
    ratio = _ratio(ours, runs, key)
    return "" if ratio is None else f"{ratio:.2f} ×"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def plot(found: Found, file: Path) -> str:
    """Draw horizontal bars; what to say of it."""
    try:
        pyplot: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        return f"{file} is not drawn: matplotlib is not installed"
    middle = {side: medians(runs) for side, runs in found.items()}
    panels = {
        title: {side: m[key] * scale for side, m in middle.items() if key in m}
        for title, key, scale in (
            ("training, rows a second", "train", 1),
            ("scoring, rows a second", "score", 1),
            ("seconds per epoch, encoder frozen", "epoch", 1),
            ("time per row, ms", "row", 1e3),
            ("peak memory, MB", "memory", 1),
        )
    }
    if any(side.startswith("rows-") for side in found):
        del panels["training, rows a second"]
    panels = {title: bars for title, bars in panels.items() if bars}
    height = sum(0.35 * len(bars) + 0.7 for bars in panels.values())
    figure, axes = pyplot.subplots(
        len(panels), 1, squeeze=False, figsize=(7, height), layout="constrained",
        height_ratios=[len(bars) + 1 for bars in panels.values()],
    )  # fmt: skip
    for axis, (title, bars) in zip(axes[:, 0], panels.items(), strict=True):
        theirs = [side in SIDES_OF_OTHERS for side in bars]
        colors = ["#c2c9d0" if other else "#2a6f97" for other in theirs]
        drawn = axis.barh(
            [_named(side) for side in bars], list(bars.values()), color=colors, height=0.7
        )
        axis.bar_label(drawn, [f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
                               for value in bars.values()], padding=4)  # fmt: skip
        axis.set_title(title, loc="left", fontsize=10, fontweight="bold")
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.set_xticks([])
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.tick_params(left=False)
    figure.savefig(file)
    return f"{file} is drawn"


def _named(side: str) -> str:
    """What a side is called beside its bar."""
    kind, _, which = side.partition("-")
    if kind == "rows":
        return f"{int(which):,} rows"
    return f"{which} documents" if kind == "memory" else side


def peak_memory() -> float:
    """Of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def machine() -> dict[str, object]:
    cpu, cores = platform.processor() or platform.machine(), os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [
            line.split(":", 1)
            for line in info.read_text(encoding="utf-8").splitlines()
            if ":" in line
        ]
        cpu = {name.strip(): value.strip() for name, value in lines}.get("model name", cpu)
    return {
        "cpu": cpu,
        "cores": cores,
        "system": platform.platform(),
        "load": os.getloadavg(),  # also of others, where it is more than the cores
    }


def versions() -> dict[str, str]:
    names = ("finetune-documents", "torch", "transformers", "accelerate", "tokenizers", "numpy")
    return {"python": platform.python_version()} | {n: metadata.version(n) for n in names}
