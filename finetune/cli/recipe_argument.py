"""The recipe of a command line: a file or a shipped recipe's name, and `section.key=value` words.

Every command that takes a recipe takes it alike, and explains its keys alike: `--help data`.
"""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from finetune.config import help
from finetune.runtime import console
from finetune.runtime.errors import InputError


def recipe_parser(
    prog: str | None, description: str | None, usage: str, epilog: str = ""
) -> argparse.ArgumentParser:
    """A parser with the recipe, and the help on the keys of recipes.

    Args:
        usage: the command's options, as they stand after the recipe in the usage.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        usage=f"%(prog)s RECIPE [section.key=value …] {usage}".rstrip(),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        nargs="?",
        help="a YAML file, or the name of a shipped recipe, such as bbc_news",
    )
    parser.add_argument("--recipe", dest="named", metavar="NAME", help="the same as RECIPE")
    parser.add_argument(
        "-h",
        "--help",
        action=_Help,
        nargs="?",
        metavar="KEYS",
        help="show this message; or, with data, optim.lr or all, explain the keys of that section "
        "of a recipe, that key, or all",
    )
    return parser


def parse_recipe(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> tuple[argparse.Namespace, list[str]]:
    """The options, whose `recipe` is as it was written, and the words that are no options."""
    known, words = parser.parse_known_args(arguments)
    if known.named is not None:
        if known.recipe is not None and not re.match(r"[\w.]+=", known.recipe):
            parser.error(f"one recipe is trained: {known.recipe}, or --recipe {known.named}")
        words = [word for word in (known.recipe,) if word is not None] + words
        known.recipe = known.named
    if known.recipe is None:
        parser.error("a recipe is missing: a YAML file, or the name of a shipped recipe")
    return known, words


class _Help(argparse.Action):
    """Explains what its word names: a section of recipes, a key, or all of them."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if values is None:
            console.print_line(parser.format_help().rstrip("\n"))
            parser.exit()
        try:
            console.print_line(help.explain_keys(str(values)))
        except InputError as error:
            parser.error(str(error))
        parser.exit()
