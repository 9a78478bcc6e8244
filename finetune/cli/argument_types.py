"""What several commands take as the value of an option."""

import argparse


def positive(word: str) -> int:
    """A whole number above 0.

    Raises:
        argparse.ArgumentTypeError: for any other word.
    """
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got '{word}'")
    return int(word)
