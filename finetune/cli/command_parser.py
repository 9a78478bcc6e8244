"""The parser of every command: its errors are one line, as all others are.

    parser = CommandParser(prog=prog, description=__doc__)

What argparse says quotes the words that it was given; here, their control characters are shown.
"""

import argparse
import sys
from typing import IO, Any, NoReturn

from finetune.runtime import streams
from finetune.runtime.errors import closest_match
from finetune.runtime.visible_text import visible_line


class CommandParser(argparse.ArgumentParser):
    """Prints through `streams`; the docstring that describes a command keeps its lines."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter} | options)

    def error(self, message: str) -> NoReturn:
        """Print the error and where to read on, in one line, and exit with code 2."""
        if message.startswith("unrecognized arguments: --"):
            unknown = message.split()[2].partition("=")[0]
            near = closest_match(unknown, self._option_string_actions)
            message += f"; did you mean {near}?" if near else ""
        end = " " if message.endswith("?") else "; "
        self.exit(2, f"error: {visible_line(message)}{end}see {self.prog} --help\n")

    def _print_message(self, message: str, file: IO[str] | None = None) -> None:  # type: ignore[override]
        """Help, usage and errors: argparse has one place that prints them."""
        streams.write_line(message.removesuffix("\n"), sys.stderr if file is None else file)
