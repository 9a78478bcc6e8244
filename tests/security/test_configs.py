"""A stranger's config.json: numbers that are none, gaps, and sizes that would fill the memory."""

import json
import resource
import shutil
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

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


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"text_config": {"num_hidden_layers": HUGE}}, "text_config.num_hidden_layers: expected"),
        ({"text_config": {"num_labels": HUGE}}, "text_config.num_labels: expected"),
        ({"encoder": {"encoder": {"num_labels": HUGE}}}, "encoder.encoder.num_labels: expected"),
        ({"attention_types": [[["global"], HUGE]]}, "attention_types: expected at most 10,000"),
        ({"attention_types": [[["global"] * 999, 999]]}, "attention_types: expected at most"),
        ({"encoder": {"block_sizes": [4, HUGE]}}, "encoder.block_sizes: expected at most"),
        ({"layers_block_type": ["mamba"] * 20_000}, "layers_block_type: expected at most"),
        ({"layer_types": ["full_attention"] * 20_000}, "layer_types: expected at most"),
        ({"pad_token_id": -5}, "pad_token_id: expected an id of the vocabulary, found -5"),
        ({"sep_token_id": -5}, "sep_token_id: expected an id of the vocabulary, found -5"),
        ({"eos_token_id": [1, -5]}, "eos_token_id: expected an id of the vocabulary, found -5"),
        ({"eos_token_id": 10**400}, "eos_token_id: expected a number up to 2,147,483,648"),
        ({"n_layers": -1}, "n_layers: expected a number from 0 to 10,000, found -1"),
        ({"d_model": -5}, "d_model: expected a size, found -5"),
        ({"anything": [[{"a": [10**12]}]]}, "anything.a: expected a number up to"),
        ({"hidden_size": 10**12}, "hidden_size: expected a number less than"),
    ],
)
@pytest.mark.parametrize("classifier", [True, False])
def test_every_number_at_any_depth_is_bounded(tree, expected, classifier):
    problems = [*config_checks.find_config_problems(tree, classifier)]
    assert len(problems) == 1, problems
    assert expected in problems[0]


def test_no_library_sees_a_pattern_without_end(changed):
    keys = {"encoder__attention_types": [[["global"], HUGE]], "encoder__model_type": "gpt_neo"}
    assert "attention_types: expected at most" in refused(
        lambda: train(changed("bert linear", **keys))
    )


@pytest.mark.parametrize(
    "tree",
    [
        {"attention_types": [[["global", "local"], 12]], "num_layers": 24},
        {"block_sizes": [4, 4, 4], "num_hidden_layers": 12, "block_repeats": [1, 1, 1]},
        {"layer_types": ["full_attention", "sliding_attention"] * 40, "sliding_window": 4096},
        {"eos_token_id": [128001, 128008, 128009], "vocab_size": 128256, "pad_token_id": None},
        {"rope_theta": 10**11, "rope_parameters": {"rope_theta": 1e11}, "pad_token_id": -1},
        {"model_max_length": 1000000000000000019884624838656, "eos_token_id": 50256},
        {"attention_window": [512] * 12, "max_position_embeddings": 4098, "type_vocab_size": 1},
        {"task_specific_params": {"summarization": {"length_penalty": 2.0, "num_beams": 4}}},
        {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}, "depths": [2, 2, 6, 2]},
    ],
)
def test_what_published_configs_say_is_no_problem(tree):
    assert [*config_checks.find_config_problems(tree, classifier=True)] == []


class Masked(torch.nn.Module):
    """An architecture with a mask of all pairs of positions, which is no parameter."""

    def __init__(self, positions):
        super().__init__()
        self.register_buffer("mask", torch.ones(positions, positions), persistent=False)

    @classmethod
    def from_config(cls, config, trust_remote_code):
        return cls(config.max_position_embeddings)


def test_what_is_no_weight_and_takes_memory_counts():
    config = AutoConfig.for_model("bert", max_position_embeddings=100_000)
    shapes = {"position_embeddings.weight": (100_000, 8)}
    with pytest.raises(InputError, match="expected the weights that config"):
        pretrained.check_allocation(Masked, config, shapes, "there", "model.source")
    config.max_position_embeddings = 512
    pretrained.check_allocation(Masked, config, shapes, "there", "model.source")


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
