"""How fast, how much alike, how large: predict.py's classifier against transformers' `pipeline`.

    python scripts/bench/bench_predict.py speed MODEL test.jsonl.gz [--onnx FOLDER …] [--rows 1000]
    python scripts/bench/bench_predict.py memory MODEL test.jsonl.gz [--words 8]
    python scripts/bench/bench_predict.py kills MODEL test.jsonl.gz [--kills 20] [--rows 1000]

speed: rows a second, by turns in one process, median of the rounds, and the share of labels that
are pipeline's (fp32, batch_size=32, as it comes). memory: peak memory of predict.py over so many
rows (--sizes), the file's texts over and over, cut to so many words. kills: SIGKILL at random
moments, then --resume; the output must be that of a job that was never stopped, to the last byte.
"""

import argparse
import hashlib
import itertools
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.runtime import console

SCRIPT = Path(__file__).resolve().parents[1] / "predict.py"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", choices=("speed", "memory", "kills"))
    add("model", help="run folder or model folder")
    add("data", help="documents with a column text, and for accuracies label")
    add("--onnx", nargs="+", default=[], help="folders of export_onnx.py to time as well")
    add("--rows", type=int, default=1000)
    add("--rounds", type=int, default=3)
    add("--kills", type=int, default=20)
    add("--words", type=int, default=8)
    add("--sizes", type=int, nargs="+", default=[50_000, 1_000_000])
    known = parser.parse_args()
    console.quiet_libraries()
    {"speed": speed, "memory": memory, "kills": kills}[known.what](known)
    return 0


def documents(known: argparse.Namespace, *keep: str) -> Iterator[tuple[str, Any]]:
    from finetune.data.formats.source import ReadProgress
    from finetune.inference import inputs
    from finetune.inference.records import RequestedColumns, read_records

    asked = RequestedColumns(("text",), keep=keep)
    for item in inputs.find_inputs(inputs.InputSpec(known.data)):
        for row in read_records(item, asked, ReadProgress()):
            if row.error is None:
                yield row.texts[0], *row.beside


def speed(known: argparse.Namespace) -> None:
    import torch
    from transformers import pipeline

    from finetune.inference.classifier import Classifier
    from finetune.modeling.model_folder import find_model

    rows = list(itertools.islice(documents(known, "label"), known.rows))
    texts, truth = [row[0] for row in rows], [row[1] for row in rows]
    pipe = pipeline("text-classification", model=find_model(known.model))
    sides: dict[str, Any] = {
        "pipeline": lambda: pipe(texts, batch_size=32, truncation=True),
        "predict": Classifier(known.model),
    }
    sides |= {folder: Classifier(folder) for folder in known.onnx}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    labels: dict[str, list[str]] = {}
    for _ in range(known.rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            found = side() if name == "pipeline" else side(texts)
            seconds[name].append(time.perf_counter() - began)
            labels[name] = [answer["label"] for answer in found]
    table = [("", "rows/s", "times pipeline", "same labels", "accuracy")]
    for name, took in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["pipeline"], took, strict=True))
        same = [a == b for a, b in zip(labels[name], labels["pipeline"], strict=True)]
        right = [a == b for a, b in zip(labels[name], truth, strict=True)]
        table.append(
            (
                name,
                f"{len(texts) / statistics.median(took):.1f}",
                f"{ratio:.2f}",
                f"{100 * statistics.mean(same):.2f} %",
                f"{100 * statistics.mean(right):.2f} %",
            )
        )
    console.print_line(
        f"{len(texts):,} rows, {known.rounds} rounds, {torch.get_num_threads()} threads"
    )
    console.print_line(console.format_table(table))


def memory(known: argparse.Namespace) -> None:
    texts = [" ".join(row[0].split()[: known.words]) for row in documents(known)]
    with tempfile.TemporaryDirectory() as home:
        for many in known.sizes:
            file = Path(home) / f"{many}.jsonl"
            with file.open("w", encoding="utf-8") as out:
                for text in itertools.islice(itertools.cycle(texts), many):
                    out.write(json.dumps({"text": text}) + "\n")
            began = time.perf_counter()
            peak = _peak([known.model, str(file), "--output", f"{file}.csv", "--quiet"])
            rate = many / (time.perf_counter() - began)
            console.print_line(
                f"{many:>9,} rows  peak memory {peak:,.0f} MB  {rate:,.0f} rows/s in all"
            )


def _peak(words: list[str]) -> float:
    """The largest resident memory of a job, in MB."""
    watched = (
        "import resource, runpy, sys; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    command = [sys.executable, "-c", watched, str(SCRIPT), *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) / 1024


def kills(known: argparse.Namespace) -> None:
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as home:
        file, out = Path(home) / "a.jsonl", Path(home) / "out.jsonl"
        with file.open("w", encoding="utf-8") as rows:
            for text, *_ in itertools.islice(documents(known), known.rows):
                rows.write(json.dumps({"text": text}) + "\n")
        words = [known.model, str(file), "--output", str(out), "--window", "16", "--quiet"]
        began = time.perf_counter()
        subprocess.run([sys.executable, str(SCRIPT), *words], check=True, capture_output=True)
        whole = time.perf_counter() - began
        never_stopped = _hash(out)
        out.unlink()
        struck, words = 0, [*words, "--resume"]  # which also begins a job
        while struck < known.kills:
            process = subprocess.Popen(
                [sys.executable, str(SCRIPT), *words], stdout=subprocess.DEVNULL
            )
            try:
                ended = process.wait(draw.uniform(0, whole))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                struck += process.wait() == -signal.SIGKILL
                continue
            assert ended == 0
            assert _hash(out) == never_stopped, "rows were lost, doubled or changed"
            out.unlink()
        subprocess.run([sys.executable, str(SCRIPT), *words], check=True, capture_output=True)
        assert _hash(out) == never_stopped, "rows were lost, doubled or changed"
        console.print_line(f"{struck} kills in jobs of {whole:.0f} s: the same {known.rows:,} rows")


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
