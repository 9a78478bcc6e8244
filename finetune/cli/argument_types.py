"""What several commands take as the value of an option."""

import argparse
from collections.abc import Callable
from typing import Any

from finetune.config.section import is_encoding, parse_delimiter


def positive(word: str) -> int:
    """A whole number above 0.

    Raises:
        argparse.ArgumentTypeError: for any other word.
    """
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got '{word}'")
    return int(word)


def encoding(word: str) -> str:
    """The name of an encoding of text.

    Raises:
        argparse.ArgumentTypeError: for any other word.
    """
    if not is_encoding(word):
        raise argparse.ArgumentTypeError(f"expected an encoding such as cp1252, got '{word}'")
    return word


def delimiter(word: str) -> str:
    """The character between cells, or auto.

    Raises:
        argparse.ArgumentTypeError: for a word that names none.
    """
    found = parse_delimiter(word)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"expected auto, comma, semicolon, tab, pipe or one other character, got '{word}'"
        )
    return found


def add_text_options(add: Callable[..., Any]) -> None:
    """Add what says how files of text are read: their encoding, and their delimiter."""
    add("--encoding", type=encoding, default="utf-8", metavar="NAME", help="the encoding of text "
        "files, such as gb18030 or cp1252 (default: %(default)s)")  # fmt: skip
    add("--delimiter", type=delimiter, default="auto", metavar="MARK", help="what separates the "
        "cells of csv and tsv files: comma, semicolon, tab, pipe or another character, which also "
        "makes a table of a .txt file (default: what the file's name says, or, where the header "
        "then lacks all columns, what its lines show)")  # fmt: skip
