"""A model folder, loaded without this package: its labels and its logits.

    python -P finetune/hub/isolated_load.py MODEL torch|onnx ROWS.json OUT.json

A program of its own. It refuses to import the package, so that a linear head comes from the
modelling file that travels with the weights; an architecture's own head needs no such file.
"""

import json
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any


class BlockPackage(MetaPathFinder):
    """Comes before all other finders, and refuses to import `finetune`."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name.partition(".")[0] == "finetune":
            raise ModuleNotFoundError(f"{name} is not available here", name=name)


def score(model: Any, tokenizer: Any, rows: list[str]) -> list[list[float]]:
    """Logits of each row, (rows, classes). One row at a time: none depends on its neighbours."""
    import torch

    with torch.inference_mode():
        return [
            model(**tokenizer(row, truncation=True, return_tensors="pt")).logits[0].tolist()
            for row in rows
        ]


def score_graphs(folder: str, tokenizer: Any, rows: list[str]) -> list[list[float]]:
    """The same of a folder in the standard layout; the logits of its graphs side by side."""
    import numpy as np
    import onnxruntime

    sessions = [
        onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        for file in sorted(Path(folder).glob("onnx/*.onnx"))
    ]
    names = {each.name for each in sessions[0].get_inputs()}
    logits = []
    for row in rows:
        encoded = tokenizer(row, truncation=True, return_tensors="np")
        inputs = {name: encoded[name].astype(np.int64) for name in encoded if name in names}
        found = [session.run(["logits"], inputs)[0][0].tolist() for session in sessions]
        logits.append([logit for each in found for logit in each])
    return logits


def labels(config: Any) -> list[str]:
    """Their names, in the order of the logits."""
    return [str(config.id2label[index]) for index in range(config.num_labels)]


def main(folder: str, engine: str, rows: str, out: str) -> None:
    sys.meta_path.insert(0, BlockPackage())
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    texts = json.loads(Path(rows).read_text("utf-8"))
    if engine == "onnx":
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        logits = score_graphs(folder, tokenizer, texts)
        Path(out).write_text(json.dumps({"labels": labels(config), "logits": logits}), "utf-8")
        return
    own_code = "auto_map" in json.loads((Path(folder) / "config.json").read_text("utf-8"))
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=own_code)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=own_code)
    logits = score(model.eval(), tokenizer, texts)
    Path(out).write_text(json.dumps({"labels": labels(model.config), "logits": logits}), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
