"""A stranger's config.json: numbers that are none, gaps, and sizes that would fill the memory."""

import json
import resource
import shutil
import time
from pathlib import Path

import pytest

from finetune.api.prediction import load
from finetune.config.schema import Model
from finetune.modeling import build, config_checks, pretrained, saved_model
from finetune.runtime.errors import InputError
from tests.support.tiny import tiny_encoder

SECONDS = 20  # takes a tenth of one; what it prevents takes all of memory
HUGE = 10**9


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for architecture in ("bert", "distilbert"):
        encoder = tiny_encoder(root / f"{architecture} encoder", architecture)
        for head in ("linear", "native"):
            options = Model(source=str(encoder), freeze="none", head=head)
            model = build.build_classifier(str(encoder), options, ["a", "b"], "eager", 0)
            tokenizer = pretrained.load_tokenizer(str(encoder), options)
            saved_model.save_classifier(model, tokenizer, root / f"{architecture} {head}")
    return root


@pytest.fixture
def changed(saved, tmp_path):
    def change(name, **keys):
        folder = Path(shutil.copytree(saved / name, tmp_path / "model"))
        tree = json.loads((folder / "config.json").read_text())
        for path, value in keys.items():
            *parents, last = path.split("__")
            part = tree
            for parent in parents:
                part = part.setdefault(parent, {})
            part[last] = value
        (folder / "config.json").write_text(json.dumps(tree))
        return folder

    return change


def refused(read):
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        read()
    assert time.perf_counter() - begin < SECONDS
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300_000, f"{grown:,} KiB were allocated"
    return str(caught.value)


def train(folder):
    return build.build_classifier(str(folder), Model(freeze="none"), ["a", "b"], "eager", 0)


SIZES = {
    "bert": ("hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size",
             "max_position_embeddings", "type_vocab_size", "num_attention_heads"),
    "distilbert": ("dim", "n_layers", "vocab_size", "hidden_dim", "max_position_embeddings"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "key"), [(name, key) for name, keys in SIZES.items() for key in keys]
)
@pytest.mark.parametrize("value", [HUGE, 10**15, 200_000])
def test_sizes_that_the_weights_do_not_have(changed, architecture, key, value):
    folder = changed(f"{architecture} linear", **{f"encoder__{key}": value})
    for read in (load, train):
        problem = refused(lambda read=read: read(folder))
        assert "config.json" in problem
        assert str(folder) in problem
    shutil.rmtree(folder)
    folder = changed(f"{architecture} native", **{key: value})
    assert "config.json" in refused(lambda: load(folder))
    shutil.rmtree(folder)
    folder = changed(f"{architecture} encoder", **{key: value})
    assert "config.json" in refused(lambda: train(folder))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"num_labels": HUGE}, "num_labels: expected a number less than or equal to 100000"),
        ({"num_labels": 77}, "num_labels: expected 2, the labels in id2label, found 77"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label: expected each of 0 to 1, found no 1"),
        ({"id2label": {"0": "a", "1": "a"}}, "id2label: expected each label once, found 'a' twice"),
        ({"id2label": {"0": "a", "x": "b"}}, "id2label: expected whole numbers as keys, found 'x'"),
        ({"id2label": {"0": "a", "1": ["b"]}}, "id2label.1: expected"),
        ({"id2label": ["a", "b"]}, "id2label: expected a valid dictionary"),
        ({"label2id": {"a": 1, "b": 0}}, "label2id: expected the same as in id2label, 0 for 'a'"),
        ({"problem_type": "x"}, "problem_type: expected 'single_label_classification'"),
        ({"pooled_norm": float("nan")}, "pooled_norm: expected a finite number, found nan"),
        ({"pooled_norm": -1.0}, "pooled_norm: expected a number greater than 0"),
        ({"classifier_dropout": 7}, "classifier_dropout: expected a number less than or equal"),
        ({"encoder__layer_norm_eps": float("inf")}, "layer_norm_eps: expected a finite number"),
        ({"encoder__initializer_range": float("nan")}, "initializer_range: expected a finite"),
        ({"encoder__hidden_size": -3}, "encoder.hidden_size: expected a number greater than"),
        ({"encoder__hidden_size": "32"}, "encoder.hidden_size: expected"),
        ({"encoder__num_hidden_layers": 2.5}, "encoder.num_hidden_layers: expected"),
        ({"encoder__pad_token_id": 10**6}, "encoder.pad_token_id: expected an id below vocab_size"),
        ({"document": {"template": "{text} {other}"}}, "document.template: expected just the"),
        ({"document": {"template": "{text.__class__}"}}, "document.template: expected"),
        ({"document": {"template": "{text"}}, "document.template: expected columns"),
        ({"document": {"text": []}}, "document.text: expected one column or more"),
        ({"document": {"text": ["a", "a"]}}, "document.text: expected one column or more"),
        ({"document": {"max_length": 0}}, "document.max_length: expected a number of tokens"),
        ({"document": {"max_length": 10**12}}, "document.max_length: expected a number of tokens"),
        ({"document": {"max_windows": 0}}, "document.max_windows: expected null, or 1 or more"),
        ({"document": {"max_length": 9, "stride": 9}}, "document.stride: expected 0 or more"),
        ({"document": {"stride": -1}}, "document.stride: expected 0 or more"),
        ({"document": {"thresholds": [0.5, float("nan")]}}, "document.thresholds"),
        ({"document": {"thresholds": [0.5, 2]}}, "document.thresholds: expected probabilities"),
        ({"document": {"thresholds": [0.5]}}, "document.thresholds: expected one for each of 2"),
        ({"document": {"abstain_below": -1}}, "document.abstain_below: expected probabilities"),
        ({"document": 5}, "document"),
        ({"encoder__x": [[[0, float("-inf")]]]}, "encoder.x: expected a finite number"),
    ],
)
def test_what_makes_no_sense_gets_one_message(changed, keys, expected):
    if "id2label" in keys:
        keys = {**keys, "label2id": None}
    problem = refused(lambda: load(changed("bert linear", **keys)))
    assert expected in problem


@pytest.mark.parametrize("content", ["[]", "5", "null", '"a"', "{", "", "\x00", "[" * 10**5])
def test_a_config_that_is_none(changed, content):
    folder = changed("bert linear")
    (folder / "config.json").write_text(content)
    for read in (load, train):
        assert "config.json" in refused(lambda read=read: read(folder))


def test_more_labels_than_logits(changed):
    folder = changed("bert linear", id2label={str(n): f"l{n}" for n in range(5)}, label2id=None)
    assert "classifier.weight" in refused(lambda: load(folder))


def test_token_types_beyond_their_table(changed):
    folder = changed("bert encoder")
    file = folder / "tokenizer.json"
    tree = json.loads(file.read_text())
    for part in tree["post_processor"]["pair"]:
        for one in part.values():
            one["type_id"] = 7 if one["type_id"] == 1 else 0
    file.write_text(json.dumps(tree))
    problem = refused(lambda: pretrained.load_tokenizer(str(folder), Model()))
    assert "expected token types below 2" in problem


def test_deep_values_are_not_walked_for_ever():
    deep: dict = {}
    for _ in range(200):
        deep = {"a": deep}
    problems = [*config_checks.find_config_problems(deep, classifier=True)]
    assert problems
    assert all("less nesting" in one for one in problems)


def test_a_sound_config_has_no_problem(saved):
    for folder in saved.iterdir():
        if "encoder" not in folder.name:
            load(folder)
        tree = json.loads((folder / "config.json").read_text())
        assert [
            *config_checks.find_config_problems(tree, classifier="encoder" not in folder.name)
        ] == []
