"""List the recipes that come with the package; print one, or copy it to a file of your own.

    finetune recipes                        # all of them
    finetune recipes bbc_news               # prints it
    finetune recipes bbc_news --copy        # writes bbc_news.yaml here; --copy FILE: another name

Scores are those that a recipe's header reports, with the command that gave them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.config import shipped_recipes
from finetune.runtime import atomic_files, console
from finetune.runtime.commands import command
from finetune.runtime.errors import InputError


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    return run_command(lambda: show_recipes(known.name, known.copy))


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("name", metavar="NAME", nargs="?", help="the recipe to print or copy")
    parser.add_argument(
        "--copy",
        metavar="FILE",
        nargs="?",
        type=Path,
        const=Path(),
        help="write the recipe to a new file (default: NAME.yaml in this folder)",
    )
    return parser


def show_recipes(name: str | None, copy: Path | None) -> int:
    """Print the list, or a recipe, or copy it.

    Raises:
        InputError: for a name that no recipe has, or a file that exists.
    """
    if name is None:
        if copy is not None:
            raise InputError("--copy: which recipe? Give its name before the option")
        print_list()
        return 0
    recipe = shipped_recipes.read_recipe(name)
    if copy is None:
        console.print_line(recipe.rstrip("\n"))
        return 0
    file = Path(f"{Path(name).name}.yaml") if copy == Path() else copy
    if file.exists():
        raise InputError(f"--copy: {file} exists already; name another file")
    if not file.parent.is_dir():
        raise InputError(f"--copy: {file}: expected a file in a folder that exists")
    atomic_files.write_text(file, recipe, "set --copy to")
    use = f"train it with: {command('train', file)}"
    if name in shipped_recipes.launch_configs():
        use = f"give it to the launcher: accelerate launch --config_file {file}"
    console.print_line(f"Written to {file}; {use}")
    return 0


def print_list() -> None:
    """A line for each recipe: its name, labels, score and needs, and what it is."""
    rows = [("name", "labels", "measured on test", "runs", "documents")]
    for name, file in shipped_recipes.recipe_files().items():
        found = shipped_recipes.describe(name, file)
        needs = "offline" if found.offline else "online"
        rows.append((name, str(found.labels), found.score or "", needs, found.about))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for name, labels, score, needs, about in rows:
        cells = (name.ljust(widths[0]), labels.rjust(widths[1]), score.ljust(widths[2]),
                 needs.ljust(widths[3]), about)  # fmt: skip
        console.print_line("  ".join(cells))
    console.print_line(
        f"\n{command('train', 'NAME')} trains one, {command('recipes', 'NAME')} prints it.\n"
        "An online recipe reads its documents or its encoder from the Hub; its header has the "
        "command\nthat runs it on local copies. "
        f"{' and '.join(shipped_recipes.launch_configs())} are for accelerate\n"
        "launch: the first shards a model over processes, the second starts one without a notice."
    )
