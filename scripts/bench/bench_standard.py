"""All test rows through the standard layout as others load it: are the labels torch's?

    finetune export RUN STANDARD --layout standard --data test.jsonl --label label
    python scripts/bench/bench_standard.py RUN STANDARD test.jsonl.gz [--rows 7600] \
        [--optimum PYTHON] [--node FOLDER]

Each reader gives a label to every row, in fp32: torch (this package), its own ONNX Runtime engine,
optimum's ORTModelForSequenceClassification (--optimum: an interpreter that has it), transformers.js
(--node: a folder with node_modules). Then int8, `onnx/model_quantized.onnx`. Printed are the labels
that are torch's, the accuracy, and the size of the graph. Nothing is timed, so all of them compute
at once, each in a process with one thread.
"""

import argparse
import json
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from finetune.inference.engines import STANDARD_INT8, EngineOptions, ModelSource
from finetune.runtime import console

OURS = 3  # processes: torch, ONNX Runtime, and int8

OPTIMUM = """
import json, sys
import onnxruntime, torch
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer
torch.set_num_threads(1)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
model = ORTModelForSequenceClassification.from_pretrained(
    sys.argv[1], subfolder="onnx", file_name="model.onnx", session_options=options)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=False)
texts = json.load(open(sys.argv[2]))
order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
labels = [""] * len(texts)
for start in range(0, len(order), 32):
    part = order[start : start + 32]
    batch = tokenizer([texts[i] for i in part], truncation=True, padding=True, return_tensors="pt")
    for i, label in zip(part, model(**batch).logits.argmax(-1).tolist()):
        labels[i] = model.config.id2label[label]
json.dump(labels, open(sys.argv[3], "w"))
"""
NODE = """
import { readFileSync, writeFileSync } from "node:fs";
import { AutoTokenizer, AutoModelForSequenceClassification, env } from "@huggingface/transformers";
const [folder, name, rows, out] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = folder + "/";
const model = await AutoModelForSequenceClassification.from_pretrained(
  name, { dtype: "fp32", session_options: { intraOpNumThreads: 1 } });
const tokenizer = await AutoTokenizer.from_pretrained(name);
const labels = [];
for (const text of JSON.parse(readFileSync(rows, "utf-8"))) {
  const { logits } = await model(await tokenizer(text, { truncation: true }));
  const row = Array.from(logits.data);
  labels.push(model.config.id2label[row.indexOf(Math.max(...row))]);
}
writeFileSync(out, JSON.stringify(labels));
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", help="run folder or model folder")
    add("standard", type=Path, help="its export in the standard layout")
    add("data", help="documents with the columns text and label")
    add("--rows", type=int, default=7600)
    add("--optimum", help="a Python that has optimum")
    add("--node", type=Path, help="a folder with node_modules of transformers.js")
    known = parser.parse_args()
    console.quiet_libraries()
    texts, truth = read_rows(known)
    table = [("", "rows", "torch's labels", "accuracy", "MB")]
    int8 = "int8, ONNX Runtime"
    sizes = {int8: known.standard / STANDARD_INT8}
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(OURS, multiprocessing.get_context("spawn")) as processes,
        ThreadPoolExecutor() as threads,
    ):
        here = Path(scratch)
        (here / "rows.json").write_text(json.dumps(texts), encoding="utf-8")
        asked = {"torch": processes.submit(classify, known.model, "torch", texts)}
        standard = str(known.standard)
        asked["fp32, ONNX Runtime"] = processes.submit(classify, standard, "onnx", texts)
        if known.optimum is not None:
            asked["fp32, optimum"] = threads.submit(ask_optimum, known, here)
        if known.node is not None:
            asked["fp32, transformers.js"] = threads.submit(ask_node, known, here)
        if sizes[int8].is_file():
            asked[int8] = processes.submit(classify, standard, "onnx", texts, STANDARD_INT8)
        labels = {name: future.result() for name, future in asked.items()}
    for name, found in labels.items():
        graph = sizes.get(name, known.standard / "onnx" / "model.onnx")
        same = sum(a == b for a, b in zip(found, labels["torch"], strict=True))
        right = statistics.mean(a == b for a, b in zip(found, truth, strict=True))
        size = "" if name == "torch" else f"{graph.stat().st_size / 1e6:.1f}"
        table.append((name, f"{len(found):,}", f"{same:,}", f"{100 * right:.2f} %", size))
    console.print_line(console.format_table(table))
    return 0


def read_rows(known: argparse.Namespace) -> tuple[list[str], list[str]]:
    from finetune.data.formats.source import ReadProgress
    from finetune.inference import inputs
    from finetune.inference.records import RequestedColumns, read_records

    asked = RequestedColumns(("text",), keep=("label",))
    rows = [
        (row.texts[0], str(row.beside[0]))
        for item in inputs.find_inputs(inputs.InputSpec(known.data))
        for row in read_records(item, asked, ReadProgress())
        if row.error is None
    ][: known.rows]
    return [text for text, _ in rows], [label for _, label in rows]


def classify(folder: str, engine: str, texts: Sequence[str], graph: str | None = None) -> list[str]:
    from finetune.inference.classifier import Classifier

    classifier = Classifier.with_options(
        ModelSource(folder, graph=graph), engine, EngineOptions("fp32", threads=1)
    )
    return [str(one["label"]) for one in classifier(texts)]


def ask_optimum(known: argparse.Namespace, here: Path) -> list[str]:
    out = here / "optimum.json"
    words = [known.optimum, "-c", OPTIMUM, str(known.standard), str(here / "rows.json"), str(out)]
    subprocess.run(words, check=True)
    found: list[str] = json.loads(out.read_text(encoding="utf-8"))
    return found


def ask_node(known: argparse.Namespace, here: Path) -> list[str]:
    (here / "node_modules").symlink_to((known.node / "node_modules").resolve())
    script, out, standard = here / "ask.mjs", here / "node.json", known.standard.resolve()
    script.write_text(NODE, encoding="utf-8")
    words = [str(standard.parent), standard.name, str(here / "rows.json"), str(out)]
    node = shutil.which("node") or "node"
    subprocess.run([node, str(script), *words], check=True)
    found: list[str] = json.loads(out.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    sys.exit(main())
