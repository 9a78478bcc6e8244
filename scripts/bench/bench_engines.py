"""This package's engines against a plain OpenVINO script, by turns in one process.

    finetune export RUN FP32 --data test.jsonl                     # model.onnx
    finetune export RUN INT8 --data test.jsonl --int8
    finetune export RUN OV --layout openvino --data test.jsonl [--int8]
    python scripts/bench/bench_engines.py RUN test.jsonl.gz --openvino OV --exports FP32 INT8 \
        [--rows 1000] [--rounds 5] [--threads 2] [--hint f32]

The plain script is what one would write with OpenVINO alone: tokens of all rows, batches of 32
sorted by length, the THROUGHPUT hint with two streams, asynchronous requests. It
computes the same graph (--openvino). Both sides tokenize, and give a label to every row. Printed
are rows/s of each side, the ratio to the plain script (median of the rounds, each round with its
own), and how many labels are torch's.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetune.runtime import console

BATCH = 32
STREAMS = 2


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", help="run folder or model folder")
    add("data", help="documents with a column text")
    add("--openvino", type=Path, required=True, help="an export that the plain script computes")
    add("--exports", type=Path, nargs="*", default=[], help="exports that our engines compute")
    add("--rows", type=int, default=1000)
    add("--rounds", type=int, default=5)
    add("--threads", type=int, default=os.cpu_count())
    add(
        "--hint", default="f32", choices=("f32", "bf16"), help="INFERENCE_PRECISION_HINT; also ours"
    )
    known = parser.parse_args()
    console.quiet_libraries()
    from bench_texts import read_texts

    texts = read_texts(known.data, known.rows)
    sides = open_sides(known)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    labels: dict[str, Sequence[str]] = {}
    for side in sides.values():
        side(texts[:64])
    for _ in range(known.rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            labels[name] = side(texts)
            seconds[name].append(time.perf_counter() - began)
    table = [("", "rows/s", "of the plain script", "torch's labels")]
    for name, took in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["plain"], took, strict=True))
        same = sum(a == b for a, b in zip(labels[name], labels["torch"], strict=True))
        speed = f"{len(texts) / statistics.median(took):.1f}"
        table.append((name, speed, f"{ratio:.2f}", f"{same:,} of {len(texts):,}"))
    console.print_line(
        f"{len(texts):,} rows, {known.rounds} rounds, {known.threads} threads, load "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    console.print_line(console.format_table(table))
    return 0


def open_sides(known: argparse.Namespace) -> dict[str, Callable[[Sequence[str]], list[str]]]:
    from finetune.inference.classifier import Classifier

    sides = {"plain": plain_script(known)}
    ours = {"torch": Classifier(known.model, engine="torch", threads=known.threads)}
    precision = {"f32": "fp32"}.get(known.hint, known.hint)
    for folder in (known.openvino, *known.exports):
        ours[str(folder)] = Classifier(folder, precision=precision, threads=known.threads)
    for name, classifier in ours.items():
        sides[name] = labeller(classifier)
    return sides


def labeller(classify: Callable[[Sequence[str]], Any]) -> Callable[[Sequence[str]], list[str]]:
    return lambda texts: [str(one["label"]) for one in classify(texts)]


def plain_script(known: argparse.Namespace) -> Callable[[Sequence[str]], list[str]]:
    from transformers import AutoConfig, AutoTokenizer

    from finetune.runtime import telemetry

    openvino = telemetry.import_silently("openvino")
    tokenizer: Any = AutoTokenizer.from_pretrained(known.openvino, trust_remote_code=False)
    names: Any = AutoConfig.from_pretrained(known.openvino, trust_remote_code=False).id2label
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(known.openvino / "openvino_model.xml"),
        "CPU",
        {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": str(STREAMS),
            "INFERENCE_NUM_THREADS": known.threads,
            "INFERENCE_PRECISION_HINT": known.hint,
        },
    )
    inputs = {each.get_any_name() for each in compiled.inputs}

    def run(texts: Sequence[str]) -> list[str]:
        encoded = tokenizer(list(texts), truncation=True)
        order = sorted(range(len(texts)), key=lambda i: len(encoded["input_ids"][i]))
        labels = [""] * len(texts)

        def keep(request: Any, part: Sequence[int]) -> None:
            for row, best in zip(part, request.get_output_tensor(0).data.argmax(-1), strict=True):
                labels[row] = names[int(best)]

        queue = openvino.AsyncInferQueue(compiled, STREAMS)
        queue.set_callback(keep)
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            rows = [{name: encoded[name][i] for name in encoded} for i in part]
            batch = tokenizer.pad(rows, padding=True, return_tensors="np")
            queue.start_async(
                {name: np.asarray(batch[name], dtype=np.int64) for name in inputs}, part
            )
        queue.wait_all()
        return labels

    return run


if __name__ == "__main__":
    sys.exit(main())
