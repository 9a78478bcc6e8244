"""The file that a command writes where an option names it: one that is there already is kept.

add_overwrite(parser)
check_output("--json", known.json, known.overwrite)    # before any work
"""

import argparse
from pathlib import Path

from finetune.runtime.errors import InputError


def add_overwrite(parser: argparse.ArgumentParser, what: str) -> None:
    """The option without which a file that is there is kept.

    Args:
        what: it replaces, for the help.
    """
    parser.add_argument("--overwrite", action="store_true", help=f"replace {what}")


def check_output(option: str, file: Path | None, overwrite: bool) -> None:
    """
    Raises:
        InputError: where the file cannot be written, or is there and is not to be replaced.
    """
    if file is None:
        return
    if file.is_dir():
        raise InputError(f"{option}: expected a file, found the folder {file}")
    if file.is_file() and not overwrite:  # and no device or pipe, such as /dev/stdout
        raise InputError(
            f"{option}: {file} exists already; choose another file, or add --overwrite"
        )
