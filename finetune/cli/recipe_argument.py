"""The recipe of a command line: a file or a shipped recipe's name, and `section.key=value` words.

Every command that takes a recipe takes it alike, and explains its keys alike: `--help data`.
"""

import argparse
import re
from collections.abc import Sequence
from typing import Any

from finetune.cli.command_parser import CommandParser
from finetune.config import help, loader, schema, trust
from finetune.config.shipped_recipes import find_recipe
from finetune.config.trust import PUBLISH, TRUST
from finetune.runtime import console
from finetune.runtime.errors import InputError


def recipe_parser(
    prog: str | None, description: str | None, usage: str, epilog: str = "", publishes: bool = False
) -> argparse.ArgumentParser:
    """A parser with the recipe, and the help on the keys of recipes.

    Args:
        usage: the command's options, as they stand after the recipe in the usage.
        publishes: whether the command publishes, where a recipe says so and the user does.
    """
    parser = CommandParser(
        prog=prog,
        description=description,
        usage=f"%(prog)s RECIPE [section.key=value …] {usage}".rstrip(),
        epilog=epilog,
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
        TRUST,
        action="store_true",
        help="run the Python code that comes with the model, and that of metrics where the recipe "
        "says score.trust_remote_code: true; a recipe file cannot decide it by itself",
    )
    if publishes:
        parser.add_argument(
            PUBLISH,
            action="store_true",
            help="publish the model where the recipe's publish.repo_id says; a recipe file cannot "
            "decide it by itself",
        )
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


def load_recipe(known: argparse.Namespace, words: Sequence[str]) -> tuple[schema.Recipe, list[str]]:
    """The recipe of a command line; and all its words, with those that its options stand for.

    Raises:
        InputError: with every problem; for what a file cannot decide by itself.
    """
    path = find_recipe(known.recipe)
    options = {TRUST} if known.trust else set()
    if getattr(known, "publish", False):
        options.add(PUBLISH)
    granted = trust.grant(loader.read_sections(path)[0], path, options)
    if not hasattr(known, "publish"):  # a command that publishes nothing
        granted.append("publish.repo_id=null")
    whole = [*granted, *words]
    return loader.load(path, whole), whole


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
