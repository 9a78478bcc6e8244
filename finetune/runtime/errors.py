"""User errors and requested stops → one clear message each.

Bad input anywhere raises `InputError`, which carries every problem found at once. The entry
points print them and exit with code 2; nothing else in the package exits or prints an error.
"""

import difflib
import errno
import os
import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from finetune.runtime.credentials import mask_credentials
from finetune.runtime.visible_text import visible

REMEDY = "set run.dir to"  # how to choose another place, unless the caller says otherwise
BEFORE_TRAINING = "before training"  # when a run has taken no step, and there is none to resume
# Errors of the operating system that a user can fix: no space, no permission, not a folder, …
FIXABLE = {
    errno.ENOSPC: "the disk is full; free some space or set run.dir to another disk",
    errno.EDQUOT: "the disk quota is used up; free some space or set run.dir to another disk",
    errno.EFBIG: "the file is larger than this system allows; set run.dir to another disk",
    errno.EACCES: "permission denied; make it writable or set run.dir to another folder",
    errno.EPERM: "not permitted; set run.dir to another folder",
    errno.EROFS: "the file system is read-only; set run.dir to another folder",
    errno.ENOTDIR: "a part of that path is a file, not a folder; set run.dir to another folder",
}


class InputError(Exception):
    """One or more problems that the user can fix, each a sentence of its own."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        given = (problems,) if isinstance(problems, str) else tuple(problems)
        self.problems = tuple(visible(mask_credentials(problem)) for problem in given)
        super().__init__("\n".join(self.problems))


class StoppedError(KeyboardInterrupt):
    """The run stopped because a signal asked it to. No `except Exception` may swallow this."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: "try again"

    @classmethod
    def after_step(cls, number: int, step: int, folder: Path) -> "StoppedError":
        """For a signal during training. `folder`: the run's, where a checkpoint was saved."""
        return cls(
            f"stopped by {signal.Signals(number).name} after step {step:,}, with a checkpoint; to "
            f"go on, run the same with run.resume={folder}"
        )

    @classmethod
    def during(cls, number: int, moment: str) -> "StoppedError":
        """For a signal outside the training loop, where the last checkpoint has all steps."""
        remedy = "to go on, run the same with run.resume=auto"
        if moment == BEFORE_TRAINING:
            remedy = "run it again"
        return cls(f"stopped by {signal.Signals(number).name} {moment}; {remedy}")

    @property
    def what_stopped(self) -> str:
        """The message without how to go on."""
        return str(self).split(";")[0]

    def with_run_dir(self, folder: Path) -> "StoppedError":
        """The same for one of several runs of a command, which share the parent `folder`."""
        return StoppedError(
            f"{self.what_stopped}; to go on, run the same with run.dir={folder} run.resume=auto"
        )


class ProblemList(list[str]):
    """Problems of several steps, raised together."""

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Collect the problems of an `InputError` raised in the block, and continue after it."""
        try:
            yield
        except InputError as error:
            self += error.problems

    def raise_if_any(self) -> None:
        """Raise one `InputError` with all problems.

        Raises:
            InputError: unless the list is empty.
        """
        if self:
            raise InputError(self)


def from_os_error(error: OSError) -> InputError | None:
    """The message for a full disk, a read-only folder and the like; None for any other error."""
    if error.errno not in FIXABLE:
        return None
    name = error.filename or "the run folder"
    return InputError(f"{name}: cannot read or write: {FIXABLE[error.errno]}")


@contextmanager
def explain_write_errors(path: Path, remedy: str = REMEDY) -> Iterator[None]:
    """Turn any error of writing a file or folder into one message that names its path.

    Args:
        remedy: what to do to use "another disk" or "another folder", as in `REMEDY`.

    Raises:
        InputError: for errors of the operating system, from Python or from a library in Rust.
    """
    try:
        yield
    except Exception as error:
        # safetensors and tokenizers raise errors of their own: `… (os error 28)`.
        rust = re.search(r"\(os error (\d+)\)", str(error))
        code = int(rust[1]) if rust is not None else getattr(error, "errno", None)
        if code in (None, errno.ENOMEM):  # memory is none of the disk's
            raise
        why = FIXABLE.get(code, f"{os.strerror(code)}; {REMEDY} another folder")
        why = why.replace(REMEDY, remedy)
        raise InputError(f"{path}: cannot write: {why}") from error


def closest_match(word: str, options: Iterable[str]) -> str | None:
    """The option that begins with `word` or is spelled most like it; None if none is close."""
    by_lower = {option.lower(): option for option in options}
    longer = [option for lower, option in by_lower.items() if lower.startswith(word.lower())]
    if word and longer:
        return longer[0]
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def did_you_mean(word: str, options: Sequence[str], what: str) -> str:
    """`; did you mean 'x'?`, or the list of options if none is close."""
    guess = closest_match(word, options)
    if guess is not None:
        return f"; did you mean '{guess}'?"
    return f"; {what}: {', '.join(options)}"


def shorten(places: Sequence[str], most: int = 5) -> str:
    """The first few of `places`, and how many more there are."""
    more = len(places) - most
    return ", ".join(places[:most]) + (f" and {more:,} more" if more > 0 else "")
