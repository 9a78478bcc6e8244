"""Adapt an encoder to unlabelled documents by continued pretraining, before fine-tuning it.

    finetune adapt ENCODER DOCUMENTS … --output FOLDER [--minutes M]
    accelerate launch -m finetune adapt ENCODER …    # the same, in several processes too

DOCUMENTS are those of INPUT of `finetune predict`, without labels. A masked language model learns
to tell tokens of them that are hidden. FOLDER is then an encoder that a recipe names as its
model.source; its README.md says how the perplexity of held-out documents fell.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.cli.argument_types import add_text_options, positive
from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.runtime import console
from finetune.runtime.errors import StoppedError
from finetune.runtime.signals import SignalListener

# option → key of a recipe
KEYS = {
    "text": "data.text",
    "encoding": "data.encoding",
    "delimiter": "data.delimiter",
    "max_length": "data.max_length",
    "revision": "model.revision",
    "minutes": "train.minutes",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "micro_batch_tokens": "train.micro_batch_tokens",
    "precision": "train.precision",
    "threads": "train.threads",
    "lr": "optim.lr",
    "checkpoint_minutes": "checkpoint.minutes",
    "seed": "run.seed",
}


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    with SignalListener() as listener:
        return run_command(
            lambda: adapt(known, listener),
            listener,
            remedy="go on from the last checkpoint with --resume",
            verbosity=console.chosen_verbosity(known.quiet, False),
        )


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = CommandParser(prog=prog, description=__doc__)
    add = parser.add_argument
    add("encoder", metavar="ENCODER", help="the encoder: a folder, a Hub id, or package:NAME/path")
    add("documents", metavar="DOCUMENTS", nargs="+", help="files, folders, quoted globs or Hub "
        "data sets")  # fmt: skip
    add("--output", type=Path, required=True, metavar="FOLDER", help="the folder to write")
    add("--resume", action="store_true", help="go on with what was stopped in --output; the "
        "result is the same as without the stop")  # fmt: skip
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=_amount, metavar="M", help="how long all of it may take: "
        "the first steps are timed, and the schedule ends in time")  # fmt: skip
    length.add_argument("--epochs", type=positive, metavar="N", help="passes over the documents "
        "(default: 3, or as many as make 45 steps)")  # fmt: skip
    length.add_argument("--steps", type=positive, metavar="N", help="optimizer steps")
    add("--mask-fraction", type=_share, default=0.15, metavar="SHARE", help="of each row's tokens, "
        "that are asked for in a step (default: %(default)s)")  # fmt: skip
    add("--masking", choices=("mixed", "mask"), default="mixed", help="mixed: of these, 80 %% are "
        "masked, 10 %% replaced by random tokens, 10 %% left as they are; mask: all are masked "
        "(default: %(default)s)")  # fmt: skip
    add("--max-length", type=positive, metavar="N", help="tokens of a row; a longer document is "
        "several rows (default: 128, or what the encoder takes)")  # fmt: skip
    add("--batch-size", type=positive, metavar="N", help="rows of a step, over all processes "
        "(default: 64)")  # fmt: skip
    add("--lr", type=_amount, metavar="RATE", help="the peak learning rate (default: 5e-5)")
    add("--text", nargs="+", metavar="COLUMN", help="the columns of a document (default: text)")
    add_text_options(add)
    add("--revision", help="the branch, tag or commit of an encoder on the Hub")
    add("--seed", type=int, metavar="N", help="of masks and of the order of rows (default: 0)")
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"), help="of matrix products "
        "(default: auto, the fastest on this hardware)")  # fmt: skip
    add("--threads", type=positive, metavar="N", help="CPU threads of each process")
    add("--micro-batch-tokens", type=positive, metavar="N", help="tokens that are computed at "
        "once: changes memory and speed, not the result")  # fmt: skip
    add("--checkpoint-minutes", type=_amount, metavar="M", help="save when the last checkpoint is "
        "that old (default: 15)")  # fmt: skip
    add("--quiet", action="store_true", help="print only the perplexities and the folder")
    return parser


def _amount(word: str) -> float:
    """A number above 0."""
    return _number(word, 0, None)


def _share(word: str) -> float:
    """A number above 0 and below 1."""
    return _number(word, 0, 1)


def _number(word: str, above: float, below: float | None) -> float:
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not (above < value < (float("inf") if below is None else below)):
        most = "" if below is None else f" and below {below:g}"
        raise argparse.ArgumentTypeError(f"expected a number above {above:g}{most}, got '{word}'")
    return value


def adapt(known: argparse.Namespace, listener: SignalListener) -> int:
    """Adapt the encoder, and write its folder.

    Raises:
        InputError: for what the user can fix.
        StoppedError: after a signal.
    """
    from finetune.adaptation import outputs
    from finetune.adaptation import settings as settings_module
    from finetune.adaptation.pretraining import adapt_encoder

    default = build_parser().get_default
    keys: dict[str, Any] = {
        key: getattr(known, name)
        for name, key in KEYS.items()
        if getattr(known, name) != default(name)
    }
    if known.steps is not None:
        keys |= {"train.min_steps": known.steps, "train.max_steps": known.steps}
    settings = settings_module.Settings(
        known.encoder,
        tuple(known.documents),
        known.output.expanduser(),
        known.resume,
        known.mask_fraction,
        known.masking,
        keys,
    )
    try:
        with settings_module.in_options():
            adapt_encoder(settings, listener)
    except StoppedError as error:
        begun = outputs.is_begun(settings.output)
        remedy = "to go on, run the same with --resume" if begun else "run it again"
        raise StoppedError(f"{error.what_stopped}; {remedy}") from None
    return 0
