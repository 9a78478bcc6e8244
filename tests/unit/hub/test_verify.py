"""`verify` and `isolated_load`: a copy gives the same logits without this package."""

import shutil
import sys

import pytest

from finetune.config import schema
from finetune.hub import isolated_load, verify
from finetune.modeling import build, pretrained, saved_model
from finetune.runtime.errors import InputError
from tests.support.tiny import tiny_encoder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    source = str(tiny_encoder(folder / "encoder"))
    recipe = schema.Model(source=source, freeze="none")
    classifier = build.build_classifier(source, recipe, ["bad", "good"], "eager", 0)
    tokenizer = pretrained.load_tokenizer(source, recipe)
    saved_model.save_classifier(classifier, tokenizer, folder / "model")
    return folder / "model"


@pytest.fixture
def copy(model, tmp_path):
    return shutil.copytree(model, tmp_path / "copy")


def test_a_copy_gives_the_same_logits_in_a_process_of_its_own(model, copy):
    assert verify.verify_logits(model, model, copy) == verify.SAMPLES


def test_what_differs_is_told(model, copy, monkeypatch):
    def scored(labels, shift):
        def score(folder, engine, texts):
            classifier, tokenizer = saved_model.load_classifier(model)
            logits = isolated_load.score(classifier, tokenizer, texts)
            return labels, verify.np.array(logits) + shift

        return score

    monkeypatch.setattr(verify, "_score_isolated", scored(["good", "bad"], 0))
    with pytest.raises(InputError, match=r"has other labels: good, bad, not bad, good; push "):
        verify.verify_logits(model, model, copy)
    monkeypatch.setattr(verify, "_score_isolated", scored(["bad", "good"], 0.5))
    with pytest.raises(InputError, match=r"logits differ .* on 16 of 16 sample rows, by up to 0.5"):
        verify.verify_logits(model, model, copy)


def test_changed_code_does_not_run(model, copy, monkeypatch):
    monkeypatch.setattr(verify, "_score_isolated", None)
    file = copy / "modeling_document_classifier.py"
    file.write_text(file.read_text() + "\nimport os\n")
    with pytest.raises(InputError, match=r"differs from this version's modelling file"):
        verify.verify_logits(model, model, copy)


def test_the_package_is_blocked(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [isolated_load.BlockPackage(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "finetune.hub.push", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"finetune.hub.nothing is not available here"):
        __import__("finetune.hub.nothing")
    __import__("json.tool")
