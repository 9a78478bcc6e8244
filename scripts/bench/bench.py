"""Our loop against HF Trainer, and against what the machine's matrix products would allow.

    python scripts/bench/bench.py recipes/ag_news.yaml data.source=FOLDER --rounds 3
    python scripts/bench/bench.py recipes/ag_news.yaml data.source=FOLDER --frozen
    python scripts/bench/bench.py recipes/ag_news.yaml data.source=FOLDER --rows 1000 10000 100000
    python scripts/bench/bench.py recipes/ag_news.yaml data.source=FOLDER --prepare 50000 1000000

Same encoder, documents, batch size and steps; each side runs in a process of its own, by turns, so
that what else the machine does falls on all alike. The sides:

    ours      this package, with its defaults for this machine
    trainer   transformers.Trainer as it comes
    tuned     the same with what an informed user sets: bf16, rows grouped by length, AdamW at 2e-4
    pipeline  transformers.pipeline, fp32, 32 documents a batch, scoring the model that ours saved
    limit     the encoder's matrix products alone, in our precision: no step can be faster

`--optimizer` gives ours and both Trainers the same one: same rate, same momentum, same frozen part.

Times leave out each run's first steps (`--warmup`), as libraries plan each new shape once. Rows per
second are tokens per second over the mean length of a training row: Trainer's grouping by length
begins with the longest, and another sample of rows is another amount of work. Scoring is from texts
to logits. FLOP/s are useful ones, of the products with the encoder's weights:

    tokens × Σ 2 × weights × (1 + 1 where the input's gradient is needed + 1 where the weights' is)

summed over the products, so that frozen weights, and the input of the first layer that is trained,
save theirs. What attention computes between tokens is not counted.

`--frozen`: an epoch with the encoder frozen, anew against from kept states. `--rows`: what a row
costs as rows grow, and peak memory for short and long documents under one budget of tokens.
`--prepare`: rows a second from a file to tokens, preflight included, and how much memory that adds;
needs no encoder but its tokenizer. Prints a
table; `--json FILE` writes every number, `--plot FILE.svg` draws them, `--profile` shows where our
time goes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

BEGAN = time.perf_counter()

import bench_shown as shown  # noqa: E402 # the clock of start-up runs from before the imports
from bench_shown import Found, Numbers  # noqa: E402

SIDES = ("ours", "trainer", "tuned", "pipeline", "limit")


def main() -> int:
    known, words = read(sys.argv[1:])
    if known.side is not None:
        return alone(known.side, known, words)
    if known.profile:
        return alone("ours", known, words)
    sides = chosen(known)
    found: Found = {side: [] for side in sides}
    for turn in range(known.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for side in sides:
                found[side].append(in_a_process(side, folder))
                said = {k: v for k, v in found[side][-1].items() if not isinstance(v, list)}
                print(f"round {turn + 1}: {side}: {said}", file=sys.stderr, flush=True)
    print(shown.table(found))
    if known.json is not None:
        known.json.write_text(json.dumps(report(found, known), indent=2) + "\n")
    if known.plot is not None:
        print(shown.plot(found, known.plot))
    return 0


def read(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The choices, and the words that change the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    # With the default warm-up 50, which is what Trainer sorts by length at once.
    parser.add_argument("--steps", type=int, default=47, help="timed, in each run")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them, not timed")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs")
    parser.add_argument("--scored", type=int, default=500, help="test documents to score")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--optimizer", choices=("sgd", "adamw"), help="of ours and both Trainers")
    parser.add_argument("--frozen", action="store_true", help="bench kept states instead")
    parser.add_argument("--rows", type=int, nargs="+", help="bench so many rows instead")
    parser.add_argument("--prepare", type=int, nargs="+", help="bench preparing so many instead")
    parser.add_argument("--json", type=Path, help="where to write every number")
    parser.add_argument("--plot", type=Path, help="where to draw them (.svg); needs matplotlib")
    parser.add_argument("--profile", action="store_true", help="the top costs of our steps")
    parser.add_argument("--side", help=argparse.SUPPRESS)  # run this one, in this process
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # what sides share
    known, words = parser.parse_known_args(arguments)
    sides = known.sides
    if "pipeline" in sides and "ours" not in sides[: sides.index("pipeline")]:
        parser.error("--sides: pipeline scores the model that ours saved: put ours before it")
    return known, words


def chosen(known: argparse.Namespace) -> list[str]:
    if known.frozen:
        return ["anew", "kept"]
    if known.prepare:
        return [f"prepare-{many}" for many in known.prepare]
    if known.rows:
        return [*(f"rows-{many}" for many in known.rows), *(f"memory-{k}" for k in shown.KINDS)]
    return list(known.sides)


def alone(side: str, known: argparse.Namespace, words: Sequence[str]) -> int:
    """One side, in this process; its numbers are the last line that it prints."""
    from finetune.cli.exit_codes import run_command

    def measure_and_print() -> int:
        numbers = measure(side, known, words)
        if "first_step" in numbers:
            numbers["start"] = numbers.pop("first_step") - BEGAN
        print(json.dumps(numbers | {"memory": shown.peak_memory()}))
        return 0

    return run_command(measure_and_print)


def measure(side: str, known: argparse.Namespace, words: Sequence[str]) -> Numbers:
    """The numbers of one side.

    Raises:
        InputError: for a problem in the recipe or its data.
    """
    import bench_ours
    import bench_own
    import bench_size
    import bench_theirs

    kind, _, which = side.partition("-")
    match kind:
        case "ours":
            return bench_ours.ours(known, words)
        case "trainer" | "tuned":
            return bench_theirs.trainer(known, words, tuned=kind == "tuned")
        case "pipeline":
            return bench_theirs.pipeline(known, words)
        case "limit":
            return bench_ours.limit(known, words)
        case "anew" | "kept":
            return bench_own.frozen(known, words, kept=kind == "kept")
        case "prepare":
            return bench_size.prepare(known, words, int(which))
        case "rows":
            return bench_own.rows(known, words, int(which))
        case "memory":
            return bench_own.memory(known, words, which)
    raise SystemExit(f"no side {side}")


def in_a_process(side: str, folder: str) -> Numbers:
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--side", side, "--folder", folder],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{side} ended with exit code {done.returncode}")
    numbers: Numbers = json.loads(done.stdout.splitlines()[-1])
    return numbers


def report(found: Found, known: argparse.Namespace) -> dict[str, object]:
    """Every number, and what is needed to get them again."""
    hidden = ("side", "folder", "profile", "json", "plot")
    return {
        "command": ["python", "scripts/bench/bench.py", *sys.argv[1:]],
        "settings": {k: v for k, v in vars(known).items() if k not in hidden},
        "machine": shown.machine(),
        "versions": shown.versions(),
        "medians": {side: shown.medians(runs) for side, runs in found.items()},
        "runs": found,
    }


if __name__ == "__main__":
    sys.exit(main())
