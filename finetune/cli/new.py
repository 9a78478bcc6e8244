"""Look at labelled documents, and write a recipe that trains on them, for you to go on from.

    finetune new tickets.csv                                  # writes tickets.yaml
    finetune new tickets.csv --text subject body --label queue

DATA: a csv, tsv, json, jsonl or parquet file, each also gzipped; a folder with a file per split or
a sub-folder per label; or a Hub data set. Which columns hold the documents and the labels, pairs,
several labels in a row, few rows and long documents are guessed. Each guess stands in the recipe
with a comment that says what was seen. An existing recipe is kept, unless --overwrite replaces it.
recipe.schema.json is written beside the recipe where there is none: editors with the YAML language
server, such as VS Code with its YAML extension, complete and check keys by it, without a network.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.argument_types import delimiter
from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.runtime import commands, console
from finetune.runtime.errors import InputError

if TYPE_CHECKING:
    from finetune.data.recipe_draft import Draft

SCHEMA = "recipe.schema.json"


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    verbosity = console.chosen_verbosity(known.quiet, json=False)
    return run_command(lambda: write_new_recipe(known), verbosity=verbosity)


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called."""
    parser = CommandParser(
        prog=prog,
        description=__doc__,
    )
    add = parser.add_argument
    add("data", metavar="DATA", help="a file, a folder or a Hub data set with labelled documents")
    add("--text", nargs="+", default=[], metavar="COLUMN", help="the column of the documents, or "
        "several, which are joined (default: guessed)")  # fmt: skip
    add("--label", nargs="+", default=[], metavar="COLUMN", help="the column of the labels, or "
        "several of 0 and 1, one for each label (default: guessed)")  # fmt: skip
    add("--model", metavar="SOURCE", help="the encoder: a Hub id, a folder or package:NAME/path "
        "(default: a small one, chosen by the script of the documents)")  # fmt: skip
    add("--encoding", metavar="NAME", help="the encoding of text files, such as "
        "gb18030 or cp1252 (default: utf-8, or guessed where it is not that)")  # fmt: skip
    add("--delimiter", type=delimiter, metavar="MARK", help="what separates the cells of csv and "
        "tsv files, and of a .txt file that is a table: comma, semicolon, tab, pipe or another "
        "character (default: what the file shows)")  # fmt: skip
    add("--output", type=Path, metavar="FILE",
        help="the recipe to write (default: named for DATA, in this folder)")  # fmt: skip
    add("--overwrite", "--force", action="store_true", help="replace an existing recipe")
    add("--quiet", action="store_true", help="print only the name of the recipe")
    return parser


def write_new_recipe(known: argparse.Namespace) -> int:
    """Write the recipe, and say what was guessed and what to do next.

    Raises:
        InputError: where the recipe exists, nothing can be guessed, or training would stop.
    """
    file = known.output or Path(f"{_stem(known.data)}.yaml")
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"--output: expected a file called *.yaml, got {file}")
    if file.is_dir() or (file.exists() and not known.overwrite):
        raise InputError(
            f"{file}: exists already; choose another name with --output, or replace it with "
            "--overwrite"
        )
    from finetune.config import json_schema, loader
    from finetune.config.recipe_writer import write_recipe
    from finetune.config.section import is_encoding
    from finetune.data.recipe_draft import Wishes, draft_recipe
    from finetune.runtime.atomic_files import write_text

    if known.encoding is not None and not is_encoding(known.encoding):
        raise InputError(f"--encoding: expected an encoding such as cp1252, got '{known.encoding}'")

    console.quiet_libraries()
    columns = tuple(known.text), tuple(known.label)
    wishes = Wishes(known.data, *columns, known.model, known.encoding, known.delimiter)
    try:
        draft = draft_recipe(wishes)
    except InputError as error:  # a key of a recipe that is not there yet
        raise InputError(_as_arguments(problem) for problem in error.problems) from None
    header = [f"yaml-language-server: $schema={SCHEMA}", *draft.header, ""]
    text = write_recipe(draft.lines, [*header, *_next_steps("finetune", file), ""])
    write_text(file, text, remedy="set --output to")
    if not (beside := file.with_name(SCHEMA)).exists():
        schema = json.dumps(json_schema.recipe_schema(), indent=2, ensure_ascii=False)
        write_text(beside, f"{schema}\n", remedy="set --output to")
    loader.load(file)  # a recipe that cannot be read would be a bug: better known now
    print_draft(draft, file)
    return 0


def _as_arguments(problem: str) -> str:
    """A message about keys of a recipe, with what this command has in their place."""
    named = "none is called train; name one of them"
    if problem.startswith("data.train: ") and problem.endswith(named):
        problem = problem.removeprefix("data.train: ").removesuffix("name one of them")
        return f"DATA: {problem}give the file that has the labels, or call it train"
    problem = problem.replace("data.delimiter=", "--delimiter ")
    return problem.replace("data.encoding=", "--encoding ")


def _stem(source: str) -> str:
    """A recipe's name for a source: `tickets` of `data/tickets.csv.gz` and of `owner/tickets`."""
    name = re.split(r"[/\\]", source.rstrip("/\\"))[-1]
    name = re.sub(r"(\.(csv|tsv|json|jsonl|ndjson|parquet|txt))?(\.gz)?$", "", name, flags=re.I)
    return name.strip(".") or "recipe"


def _next_steps(program: str, file: Path) -> list[str]:
    """The commands to go on with, indented."""
    words = [["inspect", str(file)], ["train", str(file), "--dry-run"], ["train", str(file)]]
    return [f"    {program} {commands.quote(each)}" for each in words]


def print_draft(draft: "Draft", file: Path) -> None:
    """The guesses, what is wrong with rows, and the commands to go on with."""
    from finetune.config.recipe_writer import format_yaml
    from finetune.data.source_survey import NOT_UTF_8

    for line in draft.header:
        console.print_wrapped(line, mark="")
    chosen = [(line.name, format_yaml(line.value)) for line in draft.lines if line.active]
    console.print_line("\n" + console.format_table(chosen, left=2))
    for one in draft.lines:
        if one.name == "data.encoding" and one.comment.startswith(NOT_UTF_8):
            console.print_wrapped(f"Check the encoding. {one.comment}", mark="  ")
    proposed = [line.name for line in draft.lines if not line.active]
    if proposed:
        console.print_wrapped(f"Commented out, if you need it: {', '.join(proposed)}", mark="  ")
    console.print_line()
    console.print_line(f"Written to {file}", even_if_quiet=True)
    console.print_line("Next:")
    for step in _next_steps(commands.program(), file):
        console.print_line(step)
