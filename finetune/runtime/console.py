"""What a person sees while a run goes on: lines, and a progress bar where there is a terminal."""

import logging
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any

from tqdm import tqdm

from finetune.runtime import streams
from finetune.runtime.visible_text import visible_line


class Verbosity(IntEnum):
    """What is printed: nothing, what is printed `even_if_quiet`, or all."""

    SILENT = 0
    QUIET = 1
    NORMAL = 2


class Console:
    """How much this process prints.

    Attributes:
        verbosity: as the command line asks.
        is_main: whether this process prints at all; of several, only the main one does.
        draws_bar: whether a progress bar is drawn however little is printed.
        bar: the progress bar that is drawn now.
    """

    def __init__(self) -> None:
        self.verbosity = Verbosity.NORMAL
        self.is_main = os.environ.get("RANK", "0") == "0"  # until the processes have joined
        self.draws_bar = False
        self.bar: ProgressBar | None = None

    def prints(self, even_if_quiet: bool = False) -> bool:
        """Whether a line of this kind is printed."""
        least = Verbosity.QUIET if even_if_quiet else Verbosity.NORMAL
        return self.is_main and self.verbosity >= least

    @contextmanager
    def at(self, verbosity: Verbosity) -> Iterator[None]:
        """Another verbosity for a part of the work."""
        before, self.verbosity = self.verbosity, verbosity
        try:
            yield
        finally:
            self.verbosity = before


def keep_console() -> Callable[[], None]:
    """What is printed, as it is now; restored by what is returned."""
    before = dict(vars(CONSOLE))
    return lambda: vars(CONSOLE).update(before)


def chosen_verbosity(quiet: bool, json: bool) -> Verbosity:
    """What --quiet and --json ask for: with --json, the JSON alone is printed."""
    if json:
        return Verbosity.SILENT
    return Verbosity.QUIET if quiet else Verbosity.NORMAL


# Standard output is one for the process, and so is this.
CONSOLE = Console()


def print_line(text: str = "", even_if_quiet: bool = False) -> None:
    """Print a line at once, above a progress bar where one is drawn."""
    if CONSOLE.prints(even_if_quiet):
        _print(text)


def print_file(file: Path) -> None:
    """Print what a file holds, however silent all else is."""
    if CONSOLE.is_main:
        print_json(file.read_text(encoding="utf-8").rstrip("\n"))


def print_json(text: str) -> None:
    """Print JSON that a program reads, however silent all else is."""
    _print(streams.readable_json(text, sys.stdout))


def _print(text: str) -> None:
    with tqdm.external_write_mode(file=sys.stdout):
        streams.write_line(text, sys.stdout)


def print_error(*lines: str) -> None:
    """Print to the error output, where somebody still reads it."""
    streams.write_line("\n".join(lines), sys.stderr)


def print_wrapped(text: str, mark: str) -> None:
    """Print a sentence in lines of at most 80 columns, marked on its first."""
    print_line(
        textwrap.fill(
            text, 80, break_on_hyphens=False, initial_indent=mark, subsequent_indent=" " * len(mark)
        )
    )


def quiet_libraries() -> None:
    """Turn off the bars and the advice that libraries print; their errors still come."""
    import transformers

    quiet_datasets()
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    # torch would have another argument, which newer and older releases do not share.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    # Without a network it would print each of its retries.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def quiet_datasets() -> None:
    """The same for `datasets`, where it is loaded: prediction does without it."""
    datasets = sys.modules.get("datasets")
    if datasets is not None:
        datasets.disable_progress_bars()
        datasets.logging.set_verbosity_error()


def keep_library_logging() -> Callable[[], None]:
    """What `quiet_libraries` turns off, as it is now; restored by what is returned."""
    import transformers

    shown, hub = transformers.logging, logging.getLogger("huggingface_hub")
    verbosity, level, filters = shown.get_verbosity(), hub.level, warnings.filters[:]
    bars = shown.is_progress_bar_enabled()
    datasets = sys.modules.get("datasets")
    of_datasets, no_bars = logging.WARNING, False  # as it is when it is loaded
    if datasets is not None:
        of_datasets = datasets.logging.get_verbosity()
        no_bars = datasets.are_progress_bars_disabled()

    def restore() -> None:
        shown.set_verbosity(verbosity)
        if bars:
            shown.enable_progress_bar()  # type: ignore[no-untyped-call]
        hub.setLevel(level)
        warnings.filters[:] = filters  # type: ignore[index]
        datasets = sys.modules.get("datasets")
        if datasets is not None:
            datasets.logging.set_verbosity(of_datasets)
            if not no_bars:
                datasets.enable_progress_bars()

    return restore


def format_table(rows: Iterable[Sequence[str]], indent: int = 2, left: int = 1) -> str:
    """Columns lined up: the first `left` of them to the left, the others to the right."""
    cells = [[visible_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join(" " * indent + line.rstrip() for line in lines)


class ProgressBar:
    """Steps done of all: a bar on a terminal, a line at each tenth in a file or a pipe.

    Args:
        total: the last step.
        done: the steps before the first to come.
        begin: those that an earlier stage did, which do not count as done.
    """

    def __init__(self, total: int, done: int, shown: bool, begin: int = 0) -> None:
        close_progress()  # one that a diverged loop left
        self.total, self.done, self.begin = total, done, begin
        draws = CONSOLE.draws_bar
        shown = shown and (draws or CONSOLE.verbosity == Verbosity.NORMAL)
        self.lines = shown and not draws and not sys.stderr.isatty()
        self.tenths = self._share(10)
        self.bar = (_notebook_tqdm() if draws else tqdm)(
            total=total - begin,
            initial=done - begin,
            disable=not shown or self.lines,
            dynamic_ncols=True,
            bar_format="  {percentage:3.0f} % {bar} {n_fmt}/{total_fmt}, {remaining} left{postfix}",
        )
        CONSOLE.bar = self

    def step(self) -> None:
        self.done += 1
        self.bar.update()

    def _share(self, of: int) -> int:
        return of * (self.done - self.begin) // (self.total - self.begin)

    def show(self, line: Mapping[str, float]) -> None:
        """Put the numbers of the log's last line beside the bar."""
        norm = f"{line['grad_norm']:.2f}" if "grad_norm" in line else "overflows fp16"
        note = (
            f"loss {line['loss']:.3f} ± {line['loss_se']:.3f}  lr {line['lr']:.3g}  "
            f"grad {norm}  {line['rows_per_second']:.0f} rows/s"
        )
        self.bar.set_postfix_str(note)
        tenths = self._share(10)
        if self.lines and tenths > self.tenths:
            print_line(f"  {self._share(100):3d} %  step {self.done}  {note}")
            self.tenths = tenths

    def close(self) -> None:
        self.bar.close()


def _notebook_tqdm() -> Any:
    """The bar that a notebook draws; tqdm's own elsewhere, or where ipywidgets is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm as bar

    return bar


def close_progress() -> None:
    """Close a bar that was cut short, so that what is printed next has a line of its own."""
    if CONSOLE.bar is not None:
        CONSOLE.bar.close()
