"""Every way to read a long document, from training to the saved model's predictions."""

import json
from pathlib import Path

import pytest

from finetune.inference.classifier import Classifier
from finetune.modeling import saved_model
from tests.support.runs import run_here

WINDOWS = "data.truncation=windows", "data.stride=2"
WAYS = {
    "head": ("data.truncation=head",),
    "tail": ("data.truncation=tail",),
    "head_tail": ("data.truncation=head_tail",),
    **{pool: (*WINDOWS, f"data.window_pooling={pool}") for pool in ("mean", "max", "softmax")},
}


def read(file):
    return [json.loads(line) for line in Path(file).read_text("utf-8").splitlines()]


@pytest.mark.parametrize("way", WAYS)
def test_the_saved_model_reads_as_it_was_trained(here, way):
    run_here("run.dir=run", "data.max_length=8", "train.max_steps=4", *WAYS[way])
    answers, rows = map(read, ("run/predictions/test.jsonl", "data/test.jsonl"))
    texts = [row["text"] for row in rows]
    classify = Classifier("run", precision="fp32", threads=1)
    for answer, found in zip(answers, classify(texts, probabilities=True), strict=True):
        assert found["label"] == answer["predicted"]
        assert found["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)
    _, tokenizer = saved_model.load_classifier("run/model")
    ids = tokenizer(texts[0], truncation=True)["input_ids"]
    whole = tokenizer(texts[0], truncation=False)["input_ids"]
    kept = [whole[0], *whole[-7:]] if way == "tail" else [*whole[:7], whole[-1]]
    assert len(whole) > 8
    assert ids == kept
