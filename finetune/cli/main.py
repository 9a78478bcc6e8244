"""The command `finetune`: one table of commands, and the one that was asked for is imported.

    finetune train bbc_news
    finetune COMMAND --help

A command is a module of this package with `build_parser(prog)` and `main(arguments, prog)`.
"""

import importlib
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from finetune import __version__
from finetune.cli.exit_codes import finish
from finetune.runtime import commands, console
from finetune.runtime.errors import did_you_mean


class Command(NamedTuple):
    """Where a command is, and what it does.

    Attributes:
        module: its module, under `finetune.cli`.
        summary: one line of help.
    """

    module: str
    summary: str


# In the order in which they are met.
GROUPS: dict[str, dict[str, Command]] = {
    "Data and recipes": {
        "new": Command("new", "look at a file of documents, and write a recipe for it"),
        "recipes": Command("recipes", "list the shipped recipes, print one, or copy it"),
        "inspect": Command("inspect", "show what a recipe's data holds, and what is wrong with it"),
        "suggest": Command("suggest", "name the unlabelled documents whose labels teach most"),
        "suspects": Command("find_label_errors", "rank rows by how likely their label is wrong"),
    },
    "Training": {
        "adapt": Command("adapt", "pretrain an encoder further on your unlabelled documents"),
        "find-lr": Command("find_lr", "find a learning rate by one short run"),
        "train": Command("train", "fine-tune a classifier, score it on test, and report"),
        "sweep": Command("sweep", "search for the recipe that is best on validation"),
    },
    "Results": {
        "evaluate": Command("evaluate", "score a model on new labelled documents: what changed?"),
        "report": Command("report", "write the report of finished runs again"),
        "compare": Command(
            "compare", "compare runs document by document, or rank all runs of a folder"
        ),
    },
    "A trained model": {
        "predict": Command("predict", "predict a label for each document of a file or a stream"),
        "predict-ray": Command("predict_ray", "the same in parallel on Ray Data"),
        "export": Command("export_onnx", "export a model for ONNX Runtime, checked against torch"),
        "serve": Command("serve", "answer requests over HTTP, those of many clients together"),
        "demo": Command("demo", "try texts on a page that this machine serves"),
        "push": Command("push", "publish a model on the Hub"),
    },
    "Setup": {
        "schema": Command("schema", "print the JSON Schema of recipes, for editors"),
        "doctor": Command("doctor", "say what is installed, and how training would run here"),
        "completion": Command("completion", "print what makes a shell complete commands"),
    },
}
COMMANDS = {name: one for group in GROUPS.values() for name, one in group.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code, which is 2 where there is no such command."""
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    if not words or words[0] in ("-h", "--help"):
        if not words:
            console.print_error(format_help())
            return 2
        console.print_line(format_help())
        return finish(0)
    if words[0] in ("-V", "--version"):
        console.print_line(f"finetune {__version__}")
        return finish(0)
    name, *rest = words
    if name not in COMMANDS:
        console.print_error(f"error: {name}: no such command{_hint(name)}")
        return 2
    try:
        module = importlib.import_module(f"finetune.cli.{COMMANDS[name].module}")
        return int(module.main(rest, prog=f"{commands.program()} {name}"))
    except SystemExit as ending:  # argparse, after its help, which may have been lost
        if ending.code:
            raise
        raise SystemExit(finish(0)) from None
    except KeyboardInterrupt:  # before the command listens
        return 130


def _hint(word: str) -> str:
    """What was probably meant by a word that is no command: a recipe may stand in its place."""
    if Path(word).suffix in (".yaml", ".yml"):
        return f"; did you mean '{commands.command('train', word)}'?"
    return did_you_mean(word, list(COMMANDS), "the commands are")


def format_help() -> str:
    """What `finetune --help` prints: every command, in groups."""
    program = commands.program()
    width = max(map(len, COMMANDS))
    lines = [
        f"usage: {program} COMMAND …",
        "",
        *textwrap.wrap(
            "Fine-tune a pretrained encoder into a document classifier: from a file of labelled "
            "documents to a model with a report, and on to predictions.",
            80,
        ),
    ]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:{width}}  {command.summary}" for name, command in group.items()]
    lines += [
        "",
        "COMMAND --help explains a command; --version prints the version.",
        "Exit codes: 0 done, 2 a problem that you can fix, 75 stopped by Ctrl-C or another signal",
        "(the message says how to go on), 130 Ctrl-C where nothing is kept to go on from, 1 a bug.",
    ]
    return "\n".join(lines)
