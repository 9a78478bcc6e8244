"""Explanations of predictions: their words, the labels that they are of, and what has none."""

import json

import pytest

from finetune.evaluation.explanations import has_content
from finetune.inference.classifier import Classifier
from finetune.inference.explanation import check_explainable
from finetune.runtime.errors import InputError
from tests.support.served import LABELS, read_as, write_classifier

TEXTS = ["the unfair match", "bank share price, and tax", "a robot in space"]


@pytest.fixture(scope="module")
def model(shared):
    return shared("served", write_classifier) / "model"


def load(folder, **options):
    return Classifier(folder, precision="fp32", threads=1, **options)


@pytest.fixture(scope="module")
def classifier(model):
    return load(model)


def assert_words(text, words, most):
    assert 0 < len(words) <= most
    assert [one["score"] for one in words] == sorted((one["score"] for one in words), reverse=True)
    for one in words:
        assert one["score"] >= 0
        assert text[one["start"] : one["end"]] == one["word"]


def test_the_words_of_each_prediction(classifier):
    found = classifier.explain([*TEXTS, None], 3)
    plain = classifier([*TEXTS, None])
    for text, one, without in zip(TEXTS, found, plain, strict=False):
        assert_words(text, one["explanation"], 3)
        assert {key: one[key] for key in without} == pytest.approx(without, abs=1e-5)
    assert found[3]["explanation"] is None
    assert "error" in found[3]
    # Alone as among others.
    alone = classifier.explain(TEXTS[1], 3)[0]["explanation"]
    assert [one["word"] for one in alone] == [one["word"] for one in found[1]["explanation"]]


def test_punctuation_is_no_word(classifier):
    (words,) = [one["explanation"] for one in classifier.explain(["a, match! (unfair); 3."], 50)]
    assert {one["word"] for one in words} <= {"a", "match", "unfair", "3"}
    assert [has_content(word) for word in ("a", "3", "é", "京", "🙂", "!", "'", "_", "--", "")] == [
        *[True] * 5, *[False] * 5
    ]  # fmt: skip


def test_of_no_label_there_is_none(model, tmp_path):
    abstains = load(read_as(model, tmp_path / "abstains", abstain_below=1.0))
    assert abstains.explain(TEXTS[0])[0] | {"score": 0} == {
        "label": None,
        "score": 0,
        "explanation": None,
    }


def test_pairs_windows_and_several_labels(model, tmp_path):
    folder = read_as(model, tmp_path / "pairs", text_pair="claim", thresholds=[0.0, 1.0, 0.0])
    config = json.loads((folder / "config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (folder / "config.json").write_text(json.dumps(config))
    pair = {"text": TEXTS[0], "claim": TEXTS[1]}
    (found,) = load(folder).explain(pair, 50)
    assert set(found["explanation"]) == set(found["labels"]) == {"sports", "tech"}
    for words in found["explanation"].values():
        for one in words:
            assert pair[one["column"]][one["start"] : one["end"]] == one["word"]
    assert {one["column"] for words in found["explanation"].values() for one in words} == {*pair}
    document = {"max_length": 8, "truncation": "windows", "stride": 3}
    long = " ".join(TEXTS * 3)
    for pooling in ("mean", "max", "softmax"):
        folder = read_as(model, tmp_path / pooling, **document, window_pooling=pooling)
        (found,) = load(folder).explain(long, 50)
        assert_words(long, found["explanation"], 50)
    assert found["label"] in LABELS


def test_what_cannot_be_explained(classifier, model, monkeypatch):
    for n in (0, 101):
        with pytest.raises(
            InputError, match=f"n: expected a number of words from 1 to 100, got {n}"
        ):
            classifier.explain("a", n)
    monkeypatch.setattr(classifier, "engine_name", "onnx")
    with pytest.raises(InputError) as caught:
        check_explainable(classifier, "--explain")
    assert str(caught.value) == (
        "--explain: which words spoke for an answer is told by gradients, which the engine onnx "
        "does not compute; explain with the folder of the run and the engine torch"
    )
