"""SGD with the defaults against tuned AdamW: six data sets, several seeds, test scored once a run.

    python scripts/studies/sgd_study.py DATA [section.key=value …]
        [--sets agnews trec6 …] [--seeds 3] [--out runs/sgd_study]
        [--arms sgd adamw auto grid] [--table]

DATA holds a folder for each set, with train.jsonl.gz and so on. What was run already is not run
again, so the study may be stopped and taken up. The arms:

    sgd    the defaults
    adamw  tuned by validation with the first seed: the rate of a grid of five, that goes on where
           its end is best; then at that rate the head's ten times as high, and the embeddings
           frozen, and where either is better, the rates beside it; the winner runs with all seeds
    auto   optim.lr=auto, and so whatever the range test finds
    grid   SGD at eight rates, first seed: how near `auto` and the default come to the one that
           validation picks, as a user would, and to the best on test, which flatters the grid
    parts  the defaults with one part changed at a time: is each at its best?

Each run takes 2,000 train rows, so that the whole study fits into an afternoon on two cores.
"""

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.cli.exit_codes import run_command
from finetune.config import loader
from finetune.runtime import console
from finetune.runtime.atomic_files import write_json
from finetune.runtime.errors import StoppedError
from finetune.runtime.signals import SignalListener

if TYPE_CHECKING:
    from finetune.training.prepared_data import DataCache

SETS = ("agnews", "sst2", "trec6", "banking77", "emotion", "bbc")
ADAMW_RATES = (5e-5, 1e-4, 2e-4, 5e-4, 1e-3)
ADAMW_MORE = ("optim.head_lr_scale=10", "model.freeze=embeddings")
SGD_RATES = (0.003, 0.01, 0.02, 0.03, 0.06, 0.1, 0.2, 0.4)
ARMS = ("sgd", "adamw", "auto", "grid", "parts")
# A part of the defaults, and what may stand in its place.
PARTS: dict[str, tuple[str, ...]] = {
    "embeddings trained": ("model.freeze=none",),
    "half the layers frozen": ("model.freeze=3",),
    "head's rate × 10": ("optim.head_lr_scale=10",),
    "head's rate / 10": ("optim.head_lr_scale=0.1",),
    "layers' rates × 0.8 each": ("optim.layer_decay=0.8",),
    "no momentum, rate × 10": ("optim.momentum=0", "optim.lr=0.3"),
    "no momentum, same rate": ("optim.momentum=0",),
    "Nesterov's momentum": ("optim.nesterov=true",),
    "no clipping": ("optim.max_grad_norm=null",),
    "clipped to 0.3": ("optim.max_grad_norm=0.3",),
    "no warm-up": ("optim.warmup=0",),
    "warm-up of 20 %": ("optim.warmup=0.2",),
    "steps of 16": ("train.batch_size=16",),
    "steps of 16, rate / 2": ("train.batch_size=16", "optim.lr=0.015"),
    "steps of 64, rate × 2": ("train.batch_size=64", "optim.lr=0.06"),
    "cosine": ("optim.schedule=cosine",),
    "dropout 0.1": ("model.dropout=0.1",),
    "a head that is drawn, std 0.02": ("model.head_init=normal",),
    "first token in place of the mean": ("model.pooling=cls",),
}
COMMON = (
    "data.max_train_rows=2000",
    "data.max_validation_rows=1000",
    "data.max_test_rows=2000",
    "data.max_length=128",
    "train.epochs=3",
    "train.log_every=1000",
    "checkpoint.every=never",
)
Results = dict[str, Any]


class Study:
    """Runs by name, each done once."""

    def __init__(
        self, known: argparse.Namespace, words: Sequence[str], listener: SignalListener
    ) -> None:
        self.data, self.out, self.listener = known.data, known.out, listener
        self.words, self.seeds, self.table_only = words, range(known.seeds), known.table
        self.recipe = known.out / "recipe.yaml"
        self.cache: DataCache | None = None  # of documents that runs share
        if not known.table:
            known.out.mkdir(parents=True, exist_ok=True)
            self.recipe.write_text("data: {source: set-below}\n", encoding="utf-8")

    def run(self, name: str, arm: str, seed: int, *words: str) -> Results | None:
        """The scores of a run; None where there are none yet and only a table is wanted."""
        folder = self.out / name / arm / f"seed-{seed}"
        file = folder.with_suffix(".json")
        if file.is_file():
            found: Results = json.loads(file.read_text(encoding="utf-8"))
            return found
        if self.table_only:
            return None
        source = f"data.source={self.data / name}"
        asked = [source, *COMMON, f"run.dir={folder}", "run.overwrite=true", f"run.seed={seed}"]
        from accelerate.state import AcceleratorState

        from finetune.pipeline import run
        from finetune.training.prepared_data import DataCache
        from finetune.training.train_log import LostError

        self.cache = self.cache or DataCache()
        AcceleratorState._reset_state(reset_partial_state=True)
        recipe = loader.load(self.recipe, [*asked, *self.words, *words])
        try:
            run(recipe, self.listener, self.cache)
        except LostError as error:
            found = {"validation": 0.0, "test": 0.0, "seconds": 0.0, "lost": str(error)}
        else:
            whole = json.loads((folder / "results.json").read_text(encoding="utf-8"))
            found = {split: whole[split]["accuracy"] for split in ("validation", "test")}
            found |= {"seconds": whole["train"]["seconds"], "lr": _rate(folder), "words": words}
        write_json(file, found)
        shutil.rmtree(folder, ignore_errors=True)
        print(
            f"  {name} {arm} seed {seed}: validation {found['validation']:.4f}, test "
            f"{found['test']:.4f}, {found['seconds']:.0f} s",
            flush=True,
        )
        return found

    def sgd(self, name: str) -> list[Results]:
        return self._seeds(name, "sgd")

    def auto(self, name: str) -> list[Results]:
        return self._seeds(name, "auto", "optim.lr=auto")

    def grid(self, name: str) -> dict[float, Results]:
        found = {rate: self.run(name, f"sgd-{rate:g}", 0, f"optim.lr={rate}") for rate in SGD_RATES}
        return {rate: one for rate, one in found.items() if one is not None}

    def part(self, name: str, part: str) -> list[Results]:
        arm = "-".join(word.split(".", 1)[1] for word in PARTS[part])
        return self._seeds(name, arm, *PARTS[part])

    def adamw(self, name: str) -> tuple[str, list[Results]]:
        """What validation picked with the first seed, and its runs with all."""
        tried: dict[tuple[str, ...], float] = {}

        def score(rate: float, more: tuple[str, ...] = ()) -> float:
            plain = "optim.name=adamw", f"optim.lr={rate:g}", "optim.weight_decay=0.01"
            scale = () if "optim.head_lr_scale=10" in more else ("optim.head_lr_scale=1",)
            words = (*plain, *scale, *more)
            one = self.run(name, _arm(words), 0, *words)
            if one is not None:
                tried[words] = one["validation"]
            return -1.0 if one is None else float(one["validation"])

        best = _climb(score, [*ADAMW_RATES])
        kept: tuple[str, ...] = ()
        for more in ADAMW_MORE:  # at the best rate, and with those before it that helped
            if score(best, (*kept, more)) > score(best, kept):
                kept = (*kept, more)
        if kept:  # they may want another rate
            _climb(lambda rate: score(rate, kept), [best / 2, best, 2 * best])
        if not tried:
            return "–", []
        words = max(tried, key=tried.__getitem__)
        return ", ".join((words[1], *words[3:])), self._seeds(name, _arm(words), *words)

    def _seeds(self, name: str, arm: str, *words: str) -> list[Results]:
        found = [self.run(name, arm, seed, *words) for seed in self.seeds]
        return [one for one in found if one is not None]


def _climb(score: Callable[[float], float], rates: list[float]) -> float:
    """The best of a grid of rates, which goes on by factors of two where its end is the best."""
    scores: dict[float, float] = {}
    while rates:
        rate = rates.pop(0)
        scores[rate] = score(rate)
        best = max(scores, key=scores.__getitem__)
        if not rates and scores[best] >= 0 and best in (min(scores), max(scores)):
            rates.append(2 * best if best == max(scores) else best / 2)
    return best


def _arm(words: Sequence[str]) -> str:
    """A folder's name for settings: adamw-0.0002-0.01-embeddings."""
    return "-".join(word.split("=")[1] for word in words)


def _rate(folder: Path) -> float | None:
    rate = loader.load_saved(folder).optim.lr
    return rate if isinstance(rate, float) else None


def _said(runs: Sequence[Results]) -> str:
    if not runs:
        return "–"
    values = [100 * one["test"] for one in runs]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def _gap(ones: Sequence[Results], others: Sequence[Results]) -> float | None:
    if not ones or not others:
        return None
    return 100 * (
        statistics.fmean(one["test"] for one in ones)
        - statistics.fmean(one["test"] for one in others)
    )


def report(study: Study, sets: Sequence[str], arms: Sequence[str]) -> str:
    """The study as tables, of what was run so far."""
    rows = [("test accuracy, %", "sgd, defaults", "adamw, tuned", "gap", "tuned to")]
    gaps = []
    for name in sets:
        sgd = study.sgd(name) if "sgd" in arms else []
        picked, adamw = study.adamw(name) if "adamw" in arms else ("–", [])
        gap = _gap(sgd, adamw)
        gaps += [] if gap is None else [gap]
        rows.append((name, _said(sgd), _said(adamw), "–" if gap is None else f"{gap:+.1f}", picked))
    if gaps:
        rows.append(
            ("mean gap", "", "", f"{statistics.fmean(gaps):+.1f}", f"lowest {min(gaps):+.1f}")
        )
    lines = [console.format_table(rows)] if {"sgd", "adamw"} & {*arms} else []
    if {"auto", "grid"} & {*arms}:
        rates: list[Sequence[str]] = [(
            "SGD, seed 0", "auto", "its rate", "grid by validation", "at", "gap",
            "grid by test", "at", "gap", "default 0.03",
        )]  # fmt: skip
        for name in sets:
            auto = study.auto(name)[:1] if "auto" in arms else []
            grid = study.grid(name) if "grid" in arms else {}
            row = [name, _said(auto), f"{auto[0]['lr']:g}" if auto else "–"]
            for split in ("validation", "test"):
                best = max(grid, key=lambda rate: grid[rate][split], default=None)
                top = [] if best is None else [grid[best]]
                gap = _gap(auto, top)
                row += [_said(top), "–" if best is None else f"{best:g}"]
                row += ["–" if gap is None else f"{gap:+.1f}"]
            rates.append((*row, _said([grid[0.03]] if 0.03 in grid else [])))
        lines += ["", console.format_table(rates)]
    if "parts" in arms:
        lines += ["", console.format_table(_parts(study, sets))]
    return "\n".join(lines)


def _parts(study: Study, sets: Sequence[str]) -> list[Sequence[str]]:
    """A line for each part: what changing it does to the test accuracy of each set."""
    defaults = {name: study.sgd(name) for name in sets}
    rows: list[Sequence[str]] = [
        ("points of test accuracy", *sets, "mean"),
        ("the defaults", *(_said(runs) for runs in defaults.values()), ""),
    ]
    for part in PARTS:
        gaps = [_gap(study.part(name, part), defaults[name]) for name in sets]
        there = [gap for gap in gaps if gap is not None]
        mean = f"{statistics.fmean(there):+.1f}" if there else "–"
        rows.append((part, *("–" if gap is None else f"{gap:+.1f}" for gap in gaps), mean))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=("sgd", "adamw"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/sgd_study"))
    parser.add_argument("--table", action="store_true", help="print what there is, run nothing")
    known, words = parser.parse_known_args(arguments)
    with SignalListener() as listener:
        return run_command(
            lambda: run_study(known, words, listener),
            listener,
            verbosity=console.Verbosity.SILENT,  # the runs do not stay
        )


def run_study(known: argparse.Namespace, words: Sequence[str], listener: SignalListener) -> int:
    """Run what is missing of the study, and print its tables.

    Raises:
        InputError: for a problem in the data or an override.
        StoppedError: after a signal; the same command goes on.
    """
    try:
        tables = report(Study(known, words, listener), known.sets, known.arms)
    except StoppedError as error:
        raise StoppedError(f"{error.what_stopped}; the same command goes on") from None
    print(f"\n{tables}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
