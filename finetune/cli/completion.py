"""Print a script that makes a shell complete commands, options, recipes and their keys.

    finetune completion bash > ~/.local/share/bash-completion/completions/finetune
    finetune completion zsh > ~/.zfunc/_finetune        # in a folder of $fpath
    finetune completion fish > ~/.config/fish/completions/finetune.fish
    finetune completion tcsh >> ~/.tcshrc

It takes effect in the next shell. Made with shtab.
"""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.config import shipped_recipes
from finetune.config.schema import SECTIONS
from finetune.runtime import console

SHELLS = ("bash", "zsh", "fish", "tcsh")
# Arguments that are paths, though not only paths: a model may be on the Hub.
PATHS = {"MODEL", "INPUT", "FILE", "RUN", "ENCODER", "DOCUMENTS"}
RECIPE_NAMES = ("name", "named")
# Keys end in `=`, after which a value follows and no space.
NO_SPACE = """
_finetune() {
  _shtab_finetune
  [[ "${COMPREPLY[0]}" != *= ]] || compopt -o nospace 2>/dev/null || :
}
complete -o bashdefault -F _finetune finetune"""


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    return run_command(lambda: print_script(known.shell))


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to complete")
    return parser


def print_script(shell: str) -> int:
    """Print the script for a shell."""
    import shtab

    script = shtab.complete(build_whole_parser(), shell)
    console.print_line(script + NO_SPACE * (shell == "bash"))
    return 0


def build_whole_parser() -> argparse.ArgumentParser:
    """The parser of `finetune` with those of all its commands, marked for shtab.

    No command is parsed by it: each has a parser of its own, so that it imports nothing of others.
    """
    from finetune.cli.main import COMMANDS  # which imports this module only when it is called

    whole = CommandParser(prog="finetune", description="Fine-tune a classifier.")
    whole.add_argument("--version", action="version", version="")
    commands = whole.add_subparsers(metavar="COMMAND")
    for name, command in COMMANDS.items():
        module = importlib.import_module(f"finetune.cli.{command.module}")
        parser = module.build_parser(f"finetune {name}")
        for action in parser._actions:
            _mark(action)
        own = commands.add_parser(
            name, help=command.summary, description=command.summary, parents=[parser],
            add_help=False,
        )  # fmt: skip
        if any(action.metavar == "RECIPE" for action in parser._actions):
            keys = own.add_argument("overrides", nargs="*", help="section.key=value")
            keys.complete = _key_words()  # type: ignore[attr-defined]
    return whole


def _mark(action: argparse.Action) -> None:
    """Say what completes an argument: recipes, sections of keys, or files."""
    import shtab

    # An encoding has a NAME too.
    if action.metavar == "RECIPE" or (action.metavar == "NAME" and action.dest in RECIPE_NAMES):
        action.complete = _recipe_words(files=action.metavar == "RECIPE")  # type: ignore[attr-defined]
    elif action.metavar == "KEYS":
        action.choices = [*SECTIONS, "all"]
    elif action.choices is None and (action.type is Path or action.metavar in PATHS):
        action.complete = shtab.FILE  # type: ignore[attr-defined]


def _recipe_words(files: bool) -> dict[str, object]:
    """The shipped recipes, and files too where a recipe may be one of the user's own."""
    names = " ".join(shipped_recipes.recipe_files())
    if not files:
        return _words("_finetune_names", names)
    return {
        # shtab tells from the name of a function that it completes files.
        "bash": "_finetune_recipe_or_file",
        "zsh": "_finetune_recipe_or_file",
        "fish": f"{names} (__fish_complete_path (commandline -ct))",
        "tcsh": f"`echo {names}; ls`",
        "preamble": {
            "bash": f'_finetune_recipe_or_file() {{ compgen -W "{names}" -- "$1"; '
            'compgen -f -- "$1"; }',
            "zsh": "_finetune_recipe_or_file() {\n"
            f"  _alternative 'recipes:recipe:({names})' 'files:file:_files'\n}}",
        },
    }


def _key_words() -> dict[str, object]:
    """Each `section.key=`."""
    keys = (f"{name}.{key}=" for name, model in SECTIONS.items() for key in model.model_fields)
    return _words("_finetune_keys", " ".join(keys))


def _words(function: str, words: str) -> dict[str, object]:
    return {
        "bash": function,
        "zsh": function,
        "fish": words,
        "tcsh": f"`echo {words}`",
        "preamble": {
            "bash": f'{function}() {{ compgen -W "{words}" -- "$1"; }}',
            "zsh": f"{function}() {{ compadd -S '' -- {words} }}",
        },
    }
