"""The classifier that a run began with, on the run's own test documents."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import torch
from accelerate import Accelerator

from finetune.config.schema import Model
from finetune.modeling import build, saved_model
from finetune.tokenization.document_format import DocumentFormat
from finetune.training.parent import predict_by_parent
from tests.support.tiny import tiny_encoder, tiny_tokenizer

TEXTS = ["the team", "a bank of the year", "new"]


def test_its_logits_are_those_of_the_saved_model(tmp_path):
    encoder = tiny_encoder(tmp_path / "encoder")
    options = Model(source="old", head_init="normal", freeze="none")
    made = build.build_classifier(str(encoder), options, ("a", "b", "c"), "sdpa", 0)
    tokenizer = tiny_tokenizer()
    saved_model.save_classifier(made, tokenizer, tmp_path / "old")
    table = DocumentFormat(max_length=32).encode(TEXTS, None, tokenizer)
    corpus = SimpleNamespace(test=SimpleNamespace(labels=np.zeros(3, int)), multi_label=False)
    tokens = SimpleNamespace(source=str(tmp_path / "old"), tables={"test": table})
    plan = SimpleNamespace(attention="sdpa", micro_batch_tokens=64)
    session = SimpleNamespace(
        data=SimpleNamespace(plan=plan, corpus=corpus, tokens=tokens),
        recipe=SimpleNamespace(model=options.model_copy(update={"head_init": "keep"})),
        env=SimpleNamespace(accelerator=Accelerator(cpu=True), meter=lambda _: nullcontext()),
        parts=SimpleNamespace(plan=plan),
    )
    found = predict_by_parent(session)
    assert (found.source, found.labels, found.thresholds) == ("old", ("a", "b", "c"), None)
    with torch.no_grad():
        expected = made(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    torch.testing.assert_close(torch.tensor(found.logits), expected, atol=1e-5, rtol=1e-4)
    corpus.test.labels = None
    assert predict_by_parent(session) is None
