"""The work of explanation_study.py, which imports what --help does not need."""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

import argparse
import gzip
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from finetune.compute import attribution
from finetune.evaluation.explanations import explain_rows, weigh_answers
from finetune.inference.classifier import Classifier
from finetune.inference.documents import DocumentReader
from finetune.inference.records import Record
from finetune.modeling import saved_model

SHARE = 0.2  # of a text's words
DRAWS = 5  # of words at random, for each text
LONGEST = 150  # tokens of a text of which every word is left out in turn
Spans = Sequence[tuple[int, int, int]]  # the text of the document, first character, end


def run_study(known: argparse.Namespace) -> None:
    """As explanation_study.py says it, with its options."""
    torch.set_num_threads(1)
    classifier = Classifier(known.model, engine="torch", precision="fp32", threads=1)
    opened = gzip.open if known.file.suffix == ".gz" else open
    with opened(known.file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    rng = np.random.default_rng(0)
    chosen = [rows[i] for i in rng.permutation(len(rows))[: known.rows]]
    records = [
        record for record in DocumentReader(classifier.reading).read(chosen) if record.error is None
    ]
    lost, seconds, tokens = check(classifier, records, rng)
    print(f"{len(records)} texts, {np.mean(tokens):.0f} tokens on average")
    for name, values in lost.items():
        ratio = np.mean(values) / np.mean(lost["at random"])
        took = f"  {np.mean(seconds[name]):.2f} s a text" if name in seconds else ""
        print(f"  {name:<28} costs {100 * np.mean(values):5.1f} points, {ratio:5.1f} times{took}")


def check(
    classifier: Classifier, records: Sequence[Record], rng: np.random.Generator
) -> tuple[dict[str, list[float]], dict[str, list[float]], list[int]]:
    """The lost probability and the time of each way, for each text; and its tokens."""
    lost: dict[str, list[float]] = {"at random": []}
    seconds: dict[str, list[float]] = {}
    tokens: list[int] = []
    ways = make_ways(classifier)
    for record in records:
        tokens.append(int(classifier.encode([record]).lengths[0]))
        answer = probabilities(classifier, [record.texts]).argmax()
        spans: Spans = []
        for name, score in ways.items():
            if name == "occlusion" and tokens[-1] > LONGEST:
                continue
            began = time.process_time()
            spans, scores = score(record, int(answer), spans)
            seconds.setdefault(name, []).append(time.process_time() - began)
            count = max(1, round(SHARE * len(spans)))
            best = np.argsort(-np.array(scores), kind="stable")[:count]
            lost.setdefault(name, []).append(
                cost(classifier, record, int(answer), spans, [best])[0]
            )
        draws = [rng.permutation(len(spans))[:count] for _ in range(DRAWS)]
        lost["at random"].append(
            float(np.mean(cost(classifier, record, int(answer), spans, draws)))
        )
    return lost, seconds, tokens


def make_ways(
    classifier: Classifier,
) -> dict[str, Callable[[Record, int, Spans], tuple[Spans, Sequence[float]]]]:
    """Names → what scores the words of a document for an answer."""
    model, tokenizer = saved_model.load_classifier(classifier.source)
    model.eval()

    def by_gradients(record: Record, answer: int, _: Spans, points: int, blank: int) -> Any:
        table = classifier.encode([record])
        weights = weigh_answers(
            classifier.engine.logits(table), [answer], classifier.rules.multi_label
        )
        attribute = partial(
            attribution.attribute_tokens,
            model,
            baseline=blank,
            device=torch.device("cpu"),
            points=points,
        )
        (words,) = explain_rows(
            lambda table, is_text, weights: attribute(table, is_text, weights),
            classifier.reading,
            tokenizer,
            [record.texts],
            table,
            weights,
            classifier.engine.logits,
        )
        spans = [(one.text, one.start, one.end) for one in words]
        return spans, [one.score for one in words]

    def by_occlusion(record: Record, answer: int, spans: Spans) -> Any:
        each = [np.array([i]) for i in range(len(spans))]
        return spans, cost(classifier, record, answer, spans, each)

    blanks = {"mask": tokenizer.mask_token_id, "pad": tokenizer.pad_token_id}
    ways: dict[str, Any] = {
        f"gradients, {points} from {name}": partial(by_gradients, points=points, blank=blank)
        for name, blank in blanks.items()
        for points in (1, 4, 8)
        if blank is not None
    }
    return ways | {"occlusion": by_occlusion}


def cost(
    classifier: Classifier,
    record: Record,
    answer: int,
    spans: Spans,
    deletions: Sequence[np.ndarray[Any, Any]],
) -> list[float]:
    """By how much each deletion of words lowers the answer's probability."""
    texts = [record.texts, *(delete(record.texts, spans, words) for words in deletions)]
    whole, *others = probabilities(classifier, texts)[:, answer].tolist()
    return [whole - other for other in others]


def delete(texts: tuple[str, ...], spans: Spans, words: Any) -> tuple[str, ...]:
    left = [*texts]
    for number, start, end in sorted((spans[i] for i in words), reverse=True):
        left[number] = left[number][:start] + left[number][end:]
    return tuple(left)


def probabilities(classifier: Classifier, texts: Sequence[tuple[str, ...]]) -> Any:
    records = [Record(one, ()) for one in texts]
    logits = classifier.engine.logits(classifier.encode(records))
    return classifier.rules.probabilities(logits)
