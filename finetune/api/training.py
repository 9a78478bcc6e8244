"""A recipe, or a data frame and a few keys → a finished run, in the caller's own process."""

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.config.python_recipe import Base, Overrides, compose
from finetune.runtime.errors import InputError, StoppedError

if TYPE_CHECKING:
    from finetune.api.run import Run
    from finetune.config import schema
    from finetune.data.frames import HeldSource
    from finetune.runtime.signals import SignalListener

WHERE = "finetune.train"
KEY_VALUES = (str, os.PathLike, int, float, list, tuple)  # what keys of a recipe hold; no tables
_ONE_AT_A_TIME = threading.Lock()


def train(
    recipe: Base = None,
    overrides: Overrides = (),
    *,
    data: Any = None,
    text: str | Sequence[str] | None = None,
    label: str | Sequence[str] | None = None,
    model: "str | os.PathLike[str] | Mapping[str, Any] | schema.Model | None" = None,
    progress: bool = False,
    verbose: bool = False,
    **sections: Any,
) -> "Run":
    """Train a document classifier, and score it on test.

        run = finetune.train("recipes/ag_news.yaml", {"train.epochs": 3})
        run = finetune.train(data=frame, text=["title", "body"], label="queue", progress=True)

    Prints nothing unless asked. The process is the caller's: random numbers, threads, signal
    handlers and what else a run sets are given back as they were. Ctrl-C finishes the step, writes
    a checkpoint and raises; the same call with `run={"resume": "auto"}` goes on.

    Args:
        recipe: a recipe file, the name of a shipped recipe, or a `finetune.Recipe`; None: what
            follows is all.
        overrides: `section.key=value` words, or a dict of `section.key` to value.
        data: a file, folder or Hub id; a data frame of pandas or polars, an Arrow table, a
            `datasets.Dataset`; a dict of such tables by split; or a dict of keys of the section.
        text, label: the columns; several texts are joined, several labels are one of 0 and 1 each.
        model: the encoder: a folder or a Hub id; or a dict of keys of the section.
        progress: draw a progress bar.
        verbose: print what a command line would.
        sections: any other section of a recipe as a dict of its keys: `train={"epochs": 3}`.

    Returns:
        The finished run. With `run={"seeds": …}`, one that holds the run of each seed.

    Raises:
        InputError: with every problem that you can fix.
        StoppedError: after Ctrl-C or another signal; it is a KeyboardInterrupt.
    """
    held, of_data = _data_keys(data, is_whole=recipe is None and not overrides)
    of_data |= {
        key: value for key, value in (("text", text), ("label", label)) if value is not None
    }
    if of_data:
        sections["data"] = of_data
    if model is not None:
        is_source = isinstance(model, str | os.PathLike)
        sections["model"] = {"source": model} if is_source else model
    whole = compose(recipe, overrides, sections, WHERE, _name(of_data.get("source")))
    folder = _run(whole, progress, verbose)
    from finetune.api.run import Run

    run = Run(folder)
    run._data = held  # its recipe can be trained again while the run is there
    return run


def _data_keys(data: Any, is_whole: bool = False) -> "tuple[HeldSource | None, dict[str, Any]]":
    """The keys of the section data; a table that was passed is held under its name.

    Args:
        is_whole: whether nothing else can say what is in the section.

    Raises:
        InputError: for what is neither a source nor keys.
    """
    from finetune.config.schema import Data

    if data is None:
        return None, {}
    if isinstance(data, Data):
        return None, data.model_dump(mode="json", exclude_unset=True)
    if isinstance(data, str | os.PathLike):
        return None, {"source": os.fspath(data)}
    from finetune.data import frames

    if not isinstance(data, Mapping):
        held = frames.hold(data)
        return held, {"source": held.name}
    source = data.get("source")
    if source is not None and not isinstance(source, KEY_VALUES):
        held = frames.hold(source, "data: source")
        return held, {**data, "source": held.name}
    if all(value is None or isinstance(value, KEY_VALUES) for value in data.values()):
        _refuse_columns(data, is_whole)
        return None, dict(data)
    held = frames.hold(data)  # a table for each split
    return held, {"source": held.name}


def _refuse_columns(data: Mapping[str, Any], is_whole: bool) -> None:
    """
    Raises:
        InputError: for a dict of columns, as a data frame is made from, which looks like keys.
    """
    from finetune.config.schema import Data
    from finetune.data.frames import KINDS

    lists = [value for value in data.values() if isinstance(value, list | tuple)]
    are_columns = bool(lists) and len(lists) == len(data)
    has_repeats = any(len(value) > len({*map(str, value)}) for value in lists)
    is_none_known = bool(data) and not {*data} & {*Data.model_fields}
    if "source" in data or not (is_none_known or (are_columns and (is_whole or has_repeats))):
        return
    got = ", ".join(f"'{name}'" for name in data)
    kind = "a dict of lists" if are_columns else "a dict"
    remedy = "; pass a frame of it, such as pandas.DataFrame(data)" if are_columns else ""
    raise InputError(
        f"data: expected {KINDS}, a path or Hub id, or a dict of keys of the section data (source, "
        f"text, label, …), got {kind} with {got}{remedy}"
    )


def _name(source: Any) -> str:
    """The name of a run without a recipe: that of its data."""
    from finetune.data.local_paths import HELD

    if not isinstance(source, str | os.PathLike):
        return "recipe"
    text = os.fspath(source)
    return "frame" if text.startswith(HELD) else Path(text).name.partition(".")[0] or "recipe"


def _run(recipe: "schema.Recipe", progress: bool, verbose: bool) -> Path:
    """Train in this process, and give it back as it was.

    Raises:
        InputError: also where another thread trains.
        StoppedError: after a signal.
    """
    from finetune.runtime import console
    from finetune.runtime.process_state import preserved_process
    from finetune.runtime.signals import SignalListener

    if not _ONE_AT_A_TIME.acquire(blocking=False):
        raise InputError(
            f"{WHERE}: another thread of this process trains; wait for it, or start a process for "
            "each run"
        )
    handled = sys.exc_info()[1]  # in an `except` of the caller's
    try:
        with preserved_process(), SignalListener(returns_to_caller=True) as listener:
            console.CONSOLE.verbosity = (
                console.Verbosity.NORMAL if verbose else console.Verbosity.SILENT
            )
            console.CONSOLE.draws_bar = progress
            return _train(recipe, listener)
    except (InputError, StoppedError) as error:
        # The message says all; a notebook keeps an exception, and with it all that its frames name.
        error.__cause__, error.__context__ = None, handled
        error.__suppress_context__ = handled is None
        error.__traceback__ = None
        raise
    finally:
        _ONE_AT_A_TIME.release()


def _train(recipe: "schema.Recipe", listener: "SignalListener") -> Path:
    """One run, or those of several seeds or folds, as the recipe says; their folder."""
    from accelerate import PartialState

    from finetune import pipeline

    folder = pipeline.run_recipe(recipe, listener)
    PartialState().wait_for_everyone()  # the main process writes what the others will read
    return folder
