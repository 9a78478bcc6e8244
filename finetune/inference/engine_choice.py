"""`--engine auto`: the fastest engine that predicts what torch does, found by a short probe.

    choice = choose_engine(folder, load, read_rows)      # Choice("onnx", "runs/…/onnx", …)

Beside torch, these are considered: exports of the very same weights (which identity.json names)
in the model folder and in folders beside it, each graph of them (the standard layout has an int8
one) by each engine that reads it. One that changed more
than 0.2 % of the labels when it was exported is not tried: the probe has too few rows to tell. The
others compute the same rows once, after a warm-up, and may change no more of these labels either.
One that reads or decides in another way than the model's config.json now says is not tried, nor is
any where the model tells documents out of scope, for which an export has no states.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from finetune.inference.decision import DecisionRules
from finetune.inference.engine import Engine, Logits
from finetune.inference.engines import ENGINES, KEPT, ModelSource, pick_engine
from finetune.inference.records import Record
from finetune.modeling import model_identity
from finetune.modeling.load_errors import first_line
from finetune.runtime.errors import InputError
from finetune.runtime.wording import count_of
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.token_table import TokenTable

PREDICTED = ("labels", "label", "number")  # what a prediction is called
FIRST_ROWS = 8  # of the passes that warm an engine up
MOST_ROWS = 512
ENOUGH = 0.25  # seconds of a pass: twice as many rows are tried until one takes so long
SLOWEST = 0.25  # of the first engine's speed: one that is slower is not tried on all rows
FOLDERS = 1000  # that are looked at


class Probed(Protocol):
    """What is asked of a classifier."""

    engine: Engine
    rules: DecisionRules
    reading: DocumentFormat

    def encode(self, rows: Sequence[Record]) -> TokenTable: ...

    def decide(self, rows: Sequence[Record], logits: Logits | None) -> Iterator[dict[str, Any]]: ...


Some = TypeVar("Some", bound=Probed)


@dataclass(frozen=True)
class Choice:
    """An engine and what it computes.

    Attributes:
        engine, folder: as of `pick_engine`.
        reasons: why; a line each.
        graph: as of `ModelSource`.
    """

    engine: str | None
    folder: str
    reasons: tuple[str, ...] = ()
    graph: str | None = None

    def apply(self, source: ModelSource) -> ModelSource:
        """What to load, as the source's options say."""
        return replace(source, name=self.folder, graph=self.graph)

    @property
    def path(self) -> str:
        """The folder or the graph, as people find it."""
        return os.path.relpath(Path(self.folder, self.graph or ""))


@dataclass(frozen=True)
class _Pass:
    """What an engine made of the rows: its labels for each, and rows a second."""

    labels: list[Any]
    rate: float


@dataclass(frozen=True)
class _Reference:
    """What exports are compared with: the model's folder, its rules and format, and its pass."""

    folder: str
    decides: tuple[DecisionRules, DocumentFormat]
    rows: Sequence[Record]
    made: _Pass


def choose_engine(
    folder: str,
    load: Callable[[Choice], Some],
    read_rows: Callable[[Some], Sequence[Record]],
) -> Choice:
    """The fastest engine for a model that keeps its labels.

    Args:
        folder: of the model; a Hub id has torch alone.
        load: makes the classifier of an engine and its folder.
        read_rows: the first rows of what it will compute; at most `MOST_ROWS` are used.

    Raises:
        InputError: where the model's own engine cannot compute them.
    """
    own = pick_engine(None, folder)
    first_choice = Choice(own, folder)
    others = [choice for choice in _find_exports(Path(folder)) if choice != first_choice]
    if not others:
        return Choice(own, folder, (f"auto: {own}, as no export of this model is beside it",))
    first = load(first_choice)
    if first.rules.detector is not None:
        return Choice(own, folder, (f"auto: {own}, which alone tells documents out of scope",))
    valid = [row for row in read_rows(first) if row.error is None][:MOST_ROWS]
    if not valid:
        return Choice(own, folder, (f"auto: {own}, as there is no row to compare engines on",))
    reference = _Reference(folder, (first.rules, first.reading), *_measure_first(first, valid))
    del first  # one at a time in memory
    best, rate = first_choice, reference.made.rate
    said = [f"{own} {rate:,.0f} rows/s"]
    for other in others:
        about, found = _try_export(load, other, reference)
        said.append(f"{other.engine} of {other.path} {about}")
        if found > rate:
            best, rate = other, found
    probed = f"on the first {count_of(len(reference.rows), 'row')}: {'; '.join(said)}"
    why = f"auto: {best.engine}, the fastest that keeps {100 * KEPT:g} % of the labels {probed}"
    return replace(best, reasons=(why,))


def _try_export(
    load: Callable[[Choice], Probed], choice: Choice, reference: _Reference
) -> tuple[str, float]:
    """What to say of an engine and a folder, and its rows a second; 0: it is not to be taken."""
    is_own = choice.folder == reference.folder and choice.graph is None
    field = "kept_labels" if choice.graph is None else "kept_labels_int8"
    kept = _read_identity(choice.folder, field)
    if not is_own and (kept is None or kept < KEPT):
        share = "an unknown share" if kept is None else f"{100 * kept:.2f} %"
        return f"kept {share} of the labels when it was exported", 0.0
    try:
        probed = load(choice)
        if (probed.rules, probed.reading) != reference.decides:
            return "reads or decides in another way: config.json was changed; export it again", 0.0
        found = _measure(probed, reference.rows, SLOWEST * reference.made.rate)
    except InputError as error:
        return f"cannot be used ({error.problems[0]})", 0.0
    except ImportError as error:  # of a library that is installed, and lacks one of its own
        return f"cannot be used ({first_line(error)})", 0.0
    speed = f"{found.rate:,.0f} rows/s"
    if len(found.labels) < len(reference.rows):
        return speed, 0.0
    pairs = zip(found.labels, reference.made.labels, strict=True)
    number = probed.rules.number
    least = 0.0 if number is None else number.tolerance
    changed = sum(one != other and not _is_near(one, other, least) for one, other in pairs)
    if changed > (1 - KEPT) * len(reference.rows):
        return f"{speed}, but {count_of(changed, 'label')} changed", 0.0
    return speed, found.rate


def _is_near(one: Any, other: Any, least: float) -> bool:
    """Whether two numbers differ by so little that they are the same prediction."""
    return least > 0 and None not in (one, other) and abs(one - other) <= least


def _find_exports(folder: Path) -> Iterator[Choice]:
    """Each engine and graph beside torch that has the model's weights."""
    if not folder.is_dir():
        return
    if pick_engine(None, str(folder)) != "torch":
        yield from _list_choices(folder)
        return
    identity = model_identity.read_identity(str(folder))
    if identity is None or not identity.weights:
        return
    for place in (folder, folder.absolute().parent):
        for export in _list_folders(place):
            if _read_identity(str(export), "exported_from") == identity.weights:
                yield from _list_choices(export)


def _read_identity(export: str, name: str) -> Any:
    """A field of a folder's identity; None where it has none."""
    try:
        found = model_identity.read_identity(export)
    except InputError:  # damaged: whoever loads it is told
        return None
    return getattr(found, name, None)


def _list_choices(folder: Path) -> Iterator[Choice]:
    """Each engine that is installed, with each graph of the folder that it reads."""
    for name, entry in ENGINES.items():
        graphs = entry.find_graphs(folder) if entry.is_installed else []
        for graph in graphs:
            yield Choice(name, str(folder), graph=None if graph == graphs[0] else graph)


def _list_folders(place: Path) -> list[Path]:
    """The folders there with an identity that may be read, by name; links are not followed."""
    try:
        with os.scandir(place) as entries:
            some = itertools.islice(entries, FOLDERS)
            found = [Path(one.path) for one in some if one.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return sorted(one for one in found if os.access(one / model_identity.FILE, os.R_OK))


def _measure_first(probed: Probed, rows: Sequence[Record]) -> tuple[Sequence[Record], _Pass]:
    """As many of the rows as take long enough, and what the engine made of them."""
    count = min(FIRST_ROWS, len(rows))
    _compute(probed, rows[:count])  # the first pass plans
    while True:
        found, seconds = _compute(probed, rows[:count])
        if seconds >= ENOUGH or count == len(rows):
            return rows[:count], found
        count = min(2 * count, len(rows))


def _measure(probed: Probed, rows: Sequence[Record], slowest: float) -> _Pass:
    """What the engine made of the rows; of the first ones alone where it is slower than that."""
    for _ in range(2):  # the first pass plans
        found, _ = _compute(probed, rows[:FIRST_ROWS])
    return found if found.rate < slowest else _compute(probed, rows)[0]


def _compute(probed: Probed, rows: Sequence[Record]) -> tuple[_Pass, float]:
    table = probed.encode(rows)
    began = time.perf_counter()
    logits = probed.engine.logits(table)
    seconds = max(time.perf_counter() - began, 1e-9)
    decided = probed.decide(rows, logits)
    names = probed.rules.tasks.names if probed.rules.tasks is not None else None
    labels = [
        next(one[name] for name in PREDICTED if name in one)
        if names is None
        else [one[name] for name in names]
        for one in decided
    ]
    return _Pass(labels, len(rows) / seconds), seconds
