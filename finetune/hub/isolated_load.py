"""A model folder, loaded without this package: its labels and its logits.

    python -P finetune/hub/isolated_load.py MODEL ROWS.json OUT.json

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


def labels(model: Any) -> list[str]:
    """Their names, in the order of the logits."""
    return [str(model.config.id2label[index]) for index in range(model.config.num_labels)]


def main(folder: str, rows: str, out: str) -> None:
    sys.meta_path.insert(0, BlockPackage())
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    own_code = "auto_map" in json.loads((Path(folder) / "config.json").read_text("utf-8"))
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=own_code)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=own_code)
    logits = score(model.eval(), tokenizer, json.loads(Path(rows).read_text("utf-8")))
    Path(out).write_text(json.dumps({"labels": labels(model), "logits": logits}), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
