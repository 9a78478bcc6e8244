"""Push a finished run or a model folder to the Hub, in one commit.

    finetune push runs/bbc_news/… you/your-classifier --dry-run
    finetune push runs/bbc_news/… you/your-classifier --verify

The token comes from HF_TOKEN or `hf auth login`. Only files that differ from those on the Hub are
uploaded, so the same command may be run again after a failure. Weights, config, tokenizer,
modelling file and card are pushed, and nothing else of the folder.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.runtime.console import format_table, print_line
from finetune.runtime.errors import InputError

if TYPE_CHECKING:
    from finetune.config import schema


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    stopped = "stopped; files that were uploaded are not uploaded again"
    return run_command(lambda: push(known), interrupted=stopped)


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder or a model folder")
    parser.add_argument(
        "repo_id", metavar="REPO_ID", help="the repository to push to, as your-name/model"
    )
    parser.add_argument("--private", action="store_true", help="create the repository as private")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--revision", metavar="BRANCH", help="the branch to push to; it is created if missing"
    )
    where.add_argument(
        "--pull-request", action="store_true", help="open a pull request, or add to yours"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="list what would change; write nothing")
    how.add_argument(
        "--verify",
        action="store_true",
        help="download what was pushed and compare its logits on sample rows",
    )
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="also push the model in the standard layout of finetune export, to the branch onnx "
        "(of --revision: BRANCH-onnx)",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="push a model that loads code from another repository; with --verify: run the "
        "model's own code where it is not this version's",
    )
    return parser


def push(known: argparse.Namespace) -> int:
    """Push, or list what a push would change.

    Raises:
        InputError: for what the user can fix in the folder, the name or the access rights.
    """
    from finetune.config import schema
    from finetune.hub import model_files

    model_files.find_model_folder(known.run)
    from finetune.hub import push as push_module

    publish = schema.Publish.model_construct(
        repo_id=known.repo_id,
        private=known.private,
        revision=known.revision,
        pull_request=known.pull_request,
        onnx=known.onnx,
    )
    if known.onnx and (known.pull_request or known.dry_run):
        other = "--pull-request, which is against main" if known.pull_request else "--dry-run"
        raise InputError(f"--onnx: expected it without {other}")
    if known.dry_run:
        plan = push_module.plan_push(known.run, publish, trust_remote_code=known.trust_remote_code)
        print_line(f"To {plan.where}:")
        print_line(
            format_table((one.name, f"{one.size:,} bytes", one.state) for one in plan.changes)
        )
        return 0
    done = push_module.push(known.run, publish, trust_remote_code=known.trust_remote_code)
    print_line(
        f"Published: {done.url}" if done.sent else f"Nothing to push, all is there: {done.url}"
    )
    if known.verify:
        rows = push_module.verify(known.run, publish, done, known.trust_remote_code)
        print_line(f"Verified: downloaded at {done.commit}, the same logits on {rows} sample rows")
    if known.onnx:
        push_onnx(known, publish)
    return 0


def push_onnx(known: argparse.Namespace, publish: "schema.Publish") -> None:
    """Push the model in the standard layout too, and verify that where the model is verified.

    Raises:
        InputError: as `push` does, or where it cannot be exported.
    """
    from finetune.hub import push_standard
    from finetune.inference import onnx_export

    onnx_export.check_installed("--onnx: ")
    done, rows = push_standard.push_standard(
        known.run, publish, known.trust_remote_code, known.verify
    )
    print_line(f"Published as ONNX: {done.url}")
    if rows:
        print_line(f"Verified: downloaded at {done.commit}, the same logits on {rows} sample rows")
