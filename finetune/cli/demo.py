"""Serve a page on this machine where texts can be tried on a trained classifier.

    finetune demo runs/bbc_news/…

Needs Gradio, which the extra `demo` installs. The page shows the predicted label with the
probability of each, and what of the text the model read: how much was cut off, or its windows and
what each of them predicts alone. Only this machine can open the page, and neither the page nor its
server asks anything of another.
"""

import argparse
from collections.abc import Sequence

from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.cli.path_checks import check_model


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    return run_command(lambda: serve(known))


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="a run folder, a model folder or a Hub id")
    parser.add_argument(
        "--port", type=int, help="the port to serve at (default: the first free one from 7860 on)"
    )
    parser.add_argument("--revision", help="the branch, tag or commit of a model on the Hub")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run code that comes with the model"
    )
    return parser


def serve(known: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C.

    Raises:
        InputError: without Gradio, or for a model that cannot be loaded.
    """
    check_model(known.model)
    from finetune.inference import demo
    from finetune.inference.classifier import Classifier
    from finetune.runtime.console import quiet_libraries

    demo.require_gradio()
    quiet_libraries()
    classifier = Classifier(
        known.model, revision=known.revision, trust_remote_code=known.trust_remote_code
    )
    demo.serve(classifier, known.model, known.port)
    return 0
