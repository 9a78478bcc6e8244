"""Each kind of encoder, exported: ONNX Runtime's logits are torch's, for every shape of batch."""

import numpy as np
import pytest
import torch

from finetune.config import schema
from finetune.inference import onnx_export
from finetune.inference.classifier import Classifier
from finetune.inference.engines import ONNX
from finetune.inference.records import Record
from finetune.modeling import build, head, pretrained, saved_model
from finetune.runtime.errors import InputError
from tests.support.tiny import tiny_encoder

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

CHECKED = ["the team win the game", "stock price", "a good goal " * 15, "market share of the bank"]
OTHERS = ["rain", "the court and the law of the people " * 8, "a small robot in space", ""]


def saved_classifier(folder, architecture, kind):
    """A classifier whose head is not zero, as an untrained one is: its logits tell."""
    source = str(tiny_encoder(folder / "encoder", architecture))
    choices = schema.Model(source=source, freeze="none", **kind)
    model = build.build_classifier(source, choices, ["a", "b", "c"], "sdpa", seed=0)
    torch.nn.init.normal_(head.find_head(model).weight, std=1.0)
    tokenizer = pretrained.load_tokenizer(source, choices)
    saved_model.save_classifier(model, tokenizer, folder / "model")
    return str(folder / "model")


def records(texts):
    return [Record((text,), ()) for text in texts]


def export(source, out, int8=False):
    classifier = Classifier(source, engine="torch", precision="fp32", threads=1)
    rows = records(CHECKED)
    return onnx_export.export_onnx(classifier, source, out, rows, None, int8=int8, threads=1)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("distilbert", {}),
        ("roberta", {}),
        ("electra", {"head": "native"}),
        ("deberta-v2", {}),
        ("modernbert", {}),
        ("mpnet", {}),
        ("albert", {}),
    ],
)
def test_exported_logits_are_torch_s(tmp_path, architecture, kind):
    source = saved_classifier(tmp_path, architecture, kind)
    export(source, tmp_path / "out")
    model = onnx.load(tmp_path / "out" / ONNX)
    (opset,) = (one.version for one in model.opset_import if one.domain == "")
    assert opset == (22 if architecture == "modernbert" else 23)
    logits = []
    for folder, engine in ((source, "torch"), (tmp_path / "out", "onnx")):
        classify = Classifier(folder, engine=engine, precision="fp32", threads=1)
        parts = [records(OTHERS), *([one] for one in records(OTHERS))]  # together, and one by one
        logits.append(np.concatenate([classify.engine.logits(classify.encode(p)) for p in parts]))
    assert np.ptp(logits[0], axis=0).min() > 1e-3, "the logits depend on the document"
    np.testing.assert_allclose(logits[1], logits[0], atol=2e-5)


def test_a_model_that_no_opset_can_say_is_refused(tmp_path, monkeypatch):
    source = saved_classifier(tmp_path, "bert", {})
    load = saved_model.load_classifier

    def with_bessel(*arguments, **options):
        model, tokenizer = load(*arguments, **options)
        head.find_head(model).register_forward_pre_hook(
            lambda _, given: torch.special.bessel_j0(given[0])  # for which ONNX has no operator
        )
        return model, tokenizer

    monkeypatch.setattr(saved_model, "load_classifier", with_bessel)
    with pytest.raises(InputError) as error:
        export(source, tmp_path / "out")
    (problem,) = error.value.problems
    assert problem.startswith(f"{source}: this model cannot be exported to ONNX, nothing was ")
    assert problem.endswith("Predict with --engine torch, which runs every model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder", "model"]
