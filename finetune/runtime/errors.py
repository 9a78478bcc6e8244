"""What a user did wrong, or asked for → one clear message.

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

INSTEAD = "set run.dir to"  # how a person chooses another place, where nothing else is said
# The operating system's refusals that a user can mend: no space, no permission, not a folder, …
MENDABLE = {
    errno.ENOSPC: "the disk is full; free some space or set run.dir to another disk",
    errno.EDQUOT: "the disk quota is used up; free some space or set run.dir to another disk",
    errno.EFBIG: "the file is larger than this system allows; set run.dir to another disk",
    errno.EACCES: "permission denied; make it writable or set run.dir to another folder",
    errno.EPERM: "not permitted; set run.dir to another folder",
    errno.EROFS: "the file system is read-only; set run.dir to another folder",
    errno.ENOTDIR: "a part of that path is a file, not a folder; set run.dir to another folder",
}


class InputError(Exception):
    """One or more problems that the user can mend, each a whole sentence of its own."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class StoppedError(KeyboardInterrupt):
    """The run was asked to stop, and has. No `except Exception` on the way may swallow it."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: "try again"

    @classmethod
    def by(cls, number: int, step: int, folder: Path) -> "StoppedError":
        return cls(
            f"stopped by {signal.Signals(number).name} after step {step:,}, with a checkpoint; to "
            f"go on, run the same with run.resume={folder}"
        )

    @classmethod
    def outside(cls, number: int, moment: str) -> "StoppedError":
        """Where no step was under way: what the steps made stands in checkpoints already."""
        return cls(
            f"stopped by {signal.Signals(number).name} {moment}; to go on, run the same with "
            "run.resume=auto"
        )

    def within(self, folder: Path) -> "StoppedError":
        """The same of one of several runs of a command, whose folders stand in `folder`."""
        said = str(self).split(";")[0]
        return StoppedError(f"{said}; to go on, run the same with run.dir={folder} run.resume=auto")


class Collected(list[str]):
    """Problems of several steps, to be told at once."""

    @contextmanager
    def within(self) -> Iterator[None]:
        """Keep what a step refuses, and go on after it."""
        try:
            yield
        except InputError as error:
            self += error.problems

    def tell(self) -> None:
        """
        Raises:
            InputError: where there are any.
        """
        if self:
            raise InputError(self)


def from_os_error(error: OSError) -> InputError | None:
    """The message for a full disk, a read-only folder and their kin; None for any other error."""
    if error.errno not in MENDABLE:
        return None
    name = error.filename or "the run folder"
    return InputError(f"{name}: cannot read or write: {MENDABLE[error.errno]}")


@contextmanager
def explain_write_errors(path: Path, instead: str = INSTEAD) -> Iterator[None]:
    """Turn whatever keeps a file or folder from being written into one message that names it.

    Args:
        instead: how a person chooses `another disk` or `another folder`.

    Raises:
        InputError: for what the operating system refuses, to Python or to a library in Rust.
    """
    try:
        yield
    except Exception as error:
        # safetensors and tokenizers raise errors of their own: `… (os error 28)`.
        rust = re.search(r"\(os error (\d+)\)", str(error))
        code = int(rust[1]) if rust is not None else getattr(error, "errno", None)
        if code is None:
            raise
        why = MENDABLE.get(code, f"{os.strerror(code)}; {INSTEAD} another folder")
        why = why.replace(INSTEAD, instead)
        raise InputError(f"{path}: cannot write: {why}") from error


def closest_match(word: str, options: Iterable[str]) -> str | None:
    """The option that begins with `word` or is spelled most like it; None where none is close."""
    by_lower = {option.lower(): option for option in options}
    longer = [option for lower, option in by_lower.items() if lower.startswith(word.lower())]
    if word and longer:
        return longer[0]
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def did_you_mean(word: str, options: Sequence[str], what: str) -> str:
    """`; did you mean 'x'?`, or the list of what there is where nothing is close."""
    guess = closest_match(word, options)
    if guess is not None:
        return f"; did you mean '{guess}'?"
    return f"; {what}: {', '.join(options)}"


def shorten(places: Sequence[str], most: int = 5) -> str:
    """The first few of `places`, and how many more there are."""
    more = len(places) - most
    return ", ".join(places[:most]) + (f" and {more:,} more" if more > 0 else "")
