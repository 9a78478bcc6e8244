"""Print the JSON Schema of recipes, with which editors complete and check them as they are typed.

    finetune schema > recipe.schema.json

Then have the first line of a recipe name it, for editors with the YAML language server:

    # yaml-language-server: $schema=recipe.schema.json

It knows every key, with its meaning, its type and its range. What depends on several keys at once,
only a run checks, or a dry run.
"""

import argparse
import json
from collections.abc import Sequence

from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.runtime import console


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    build_parser(prog).parse_args(arguments)
    return run_command(print_schema)


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    return CommandParser(prog=prog, description=__doc__)


def print_schema() -> int:
    """Print the schema as JSON."""
    from finetune.config import json_schema

    console.print_json(json.dumps(json_schema.recipe_schema(), indent=2, ensure_ascii=False))
    return 0
