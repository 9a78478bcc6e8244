"""A finished run, or a model folder → the Hub, in one commit.

    python scripts/push_to_hub.py runs/bbc_news/… you/your-classifier --dry-run
    python scripts/push_to_hub.py runs/bbc_news/… you/your-classifier --verify

The token comes from HF_TOKEN or `hf auth login`. Only what differs from what is there goes up, so
the same command may be run again after a failure. Weights, config, tokenizer, modelling file and
card are pushed; nothing else of the folder is.
"""

import argparse
import sys
from pathlib import Path

from finetune.runtime import errors
from finetune.runtime.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder or a model folder")
    parser.add_argument("repo_id", metavar="REPO_ID", help="your-name/model")
    parser.add_argument("--private", action="store_true", help="create the repository as private")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--revision", metavar="BRANCH", help="a branch, made where it is missing")
    where.add_argument("--pull-request", action="store_true", help="open one, or go on with yours")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--dry-run", action="store_true", help="list what would change; write nothing")
    how.add_argument(
        "--verify",
        action="store_true",
        help="download what was pushed and compare its logits on sample rows",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="push a model that loads code from another repository; with --verify: run the "
        "model's own code where it is not this version's",
    )
    known = parser.parse_args()
    try:
        push(known)
    except InputError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return 2
    except OSError as error:
        mendable = errors.from_os_error(error)
        if mendable is None:
            raise
        print(f"error: {mendable}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what is there already is not sent again", file=sys.stderr)
        return 130
    return 0


def push(known: argparse.Namespace) -> None:
    # Heavy imports wait until the command line is known to be right.
    from finetune.config import schema
    from finetune.hub import push as push_module
    from finetune.runtime.console import format_table, print_line

    choices = schema.Publish.model_construct(
        repo_id=known.repo_id,
        private=known.private,
        revision=known.revision,
        pull_request=known.pull_request,
    )
    if known.dry_run:
        plan = push_module.plan_push(known.run, choices, trust_remote_code=known.trust_remote_code)
        print_line(f"To {plan.where}:")
        print_line(
            format_table((one.name, f"{one.size:,} bytes", one.state) for one in plan.changes)
        )
        return
    done = push_module.push(known.run, choices, trust_remote_code=known.trust_remote_code)
    print_line(
        f"Published: {done.url}" if done.sent else f"Nothing to push, all is there: {done.url}"
    )
    if known.verify:
        rows = push_module.verify(known.run, choices, done, known.trust_remote_code)
        print_line(f"Verified: downloaded at {done.commit}, the same logits on {rows} sample rows")


if __name__ == "__main__":
    sys.exit(main())
