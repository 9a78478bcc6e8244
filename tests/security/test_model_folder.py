"""A model folder with another tokenizer, other weights or other labels: every loader refuses it.

Each of these folders loads without an error otherwise, and answers every document with one label.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from finetune.config import schema
from finetune.hub import push, verify
from finetune.inference import onnx_engine
from finetune.inference.classifier import Classifier
from finetune.inference.engines import EngineOptions, ModelSource
from finetune.modeling import (
    build,
    model_identity,
    pretrained,
    saved_model,
    tokenizer_fit,
)
from finetune.runtime.errors import InputError
from finetune.tokenization.document_format import DocumentFormat
from tests.support.tiny import ARCHITECTURES, tiny_encoder, tiny_tokenizer

LABELS = ["bad", "good", "other"]
OPTIONS = schema.Model(source="unused", freeze="none", head_init="normal")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model folder as a run writes it, in its run's folder."""
    root = tmp_path_factory.mktemp("identity")
    source = str(tiny_encoder(root / "encoder"))
    made = build.build_classifier(source, OPTIONS, LABELS, "eager", 0)
    DocumentFormat(max_length=64).note(made.config)
    tokenizer = pretrained.load_tokenizer(source, OPTIONS)
    saved_model.replace_model_folder(made, tokenizer, root / "model", made.state_dict())
    return root / "model"


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def change(file, act):
    """Change a file of JSON."""
    value = json.loads(file.read_text())
    act(value)
    file.write_text(json.dumps(value))


def another_tokenizer(folder):
    """One of the same size, whose words have other ids."""
    words = sorted(tiny_tokenizer().get_vocab().items(), key=lambda pair: pair[1])
    kept = dict(words[:5])
    moved = {word: 5 + (index + 7) % len(words[5:]) for index, (word, _) in enumerate(words[5:])}
    change(folder / "tokenizer.json", lambda value: value["model"].update(vocab=kept | moved))


def swapped_words(folder):
    def swap(value):
        vocabulary = value["model"]["vocab"]
        vocabulary["match"], vocabulary["peace"] = vocabulary["peace"], vocabulary["match"]

    change(folder / "tokenizer.json", swap)


def another_case(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.save(str(folder / "tokenizer.json"))


def no_special_tokens(folder):
    change(folder / "tokenizer.json", lambda value: value.update(post_processor=None))


def another_padding(folder):
    change(folder / "tokenizer_config.json", lambda value: value.update(pad_token="[MASK]"))


TOKENIZERS = [another_tokenizer, swapped_words, another_case, no_special_tokens, another_padding]


def set_tokenizer(key, value):
    def act(folder):
        change(folder / "tokenizer_config.json", lambda settings: settings.update({key: value}))

    return act


def other_types(folder):
    """The second text of a pair is of type 0, as the first."""

    def act(value):
        for part in value["post_processor"]["pair"]:
            for one in part.values():
                one["type_id"] = 0

    change(folder / "tokenizer.json", act)


BATCHES = {
    "types": other_types,
    "no types": set_tokenizer("model_input_names", ["input_ids", "attention_mask"]),
    "no mask": set_tokenizer("model_input_names", ["input_ids", "token_type_ids"]),
    "padding": set_tokenizer("padding_side", "left"),
    "truncation": set_tokenizer("truncation_side", "left"),
}


def load(folder):
    saved_model.load_classifier(folder)


def predict(folder):
    """What predicting, evaluating, the demo, Ray, MLflow and exporting build on."""
    Classifier(str(folder), threads=1)


def predict_with_onnx(folder):
    (folder / "model.onnx").write_bytes(b"a graph")
    change(
        folder / model_identity.FILE,
        lambda value: value["weights"].update(
            {"model.onnx": model_identity.hash_file(folder / "model.onnx")}
        ),
    )
    onnx_engine.load(ModelSource(str(folder)), EngineOptions())


def train_on(folder):
    options = OPTIONS.model_copy(update={"source": str(folder)})
    pretrained.load_tokenizer(str(folder), options)
    build.build_classifier(str(folder), options, LABELS, "eager", 0)


def verify_copy(folder):
    verify.verify_logits(folder, folder, folder)


LOADERS = [load, predict, predict_with_onnx, train_on, verify_copy]


@pytest.mark.parametrize("loader", LOADERS[:4])
def test_an_unchanged_folder_loads(folder, loader, capsys):
    loader(folder)
    assert "identity" not in capsys.readouterr().out


@pytest.mark.parametrize("loader", LOADERS)
def test_every_loader_refuses_another_tokenizer(folder, loader):
    another_tokenizer(folder)
    with pytest.raises(
        InputError, match=r"the tokenizer in .* is not the one that the model was tr"
    ):
        loader(folder)


@pytest.mark.parametrize("attack", TOKENIZERS)
def test_every_other_tokenizer_is_refused(folder, attack):
    attack(folder)
    with pytest.raises(
        InputError, match=r"the tokenizer in .* is not the one that the model was tr"
    ):
        load(folder)


def test_a_folder_without_its_tokenizer_is_refused(folder):
    for file in folder.glob("*token*"):
        file.unlink()
    for loader in LOADERS:
        with pytest.raises(InputError, match=r"expected the encoder's tokenizer in .*, found no "):
            loader(folder)


def change_weights(folder):
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"] = weights["classifier.weight"].flip(0).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("loader", [*LOADERS, lambda folder: model_identity.check_files(folder)])
def test_every_loader_refuses_other_weights(folder, loader):
    change_weights(folder)
    with pytest.raises(
        InputError, match=r"weights .*not as they were saved: model.safetensors dif"
    ):
        loader(folder)


def test_weights_that_were_added_are_refused(folder):
    shutil.copy(folder / "model.safetensors", folder / "model-00001-of-00001.safetensors")
    with pytest.raises(InputError, match=r"model-00001-of-00001.safetensors was added"):
        load(folder)


def test_another_number_of_labels_is_refused(folder):
    def drop(value):
        del value["id2label"]["2"]
        del value["label2id"]["other"]

    change(folder / "config.json", drop)
    with pytest.raises(InputError):
        load(folder)
    change(folder / model_identity.FILE, lambda value: value.update(labels=2))
    (folder / "model.onnx").write_bytes(b"a graph")
    with pytest.raises(InputError, match=r"model.onnx was added"):
        onnx_engine.load(ModelSource(str(folder)), EngineOptions())


def test_all_that_differs_is_said_at_once(folder):
    another_case(folder)
    change_weights(folder)
    with pytest.raises(InputError) as refused:
        load(folder)
    assert len(refused.value.problems) == 2
    assert all(
        said.endswith("if it was changed on purpose, delete its identity.json")
        for said in refused.value.problems
    )


def test_nothing_is_pushed_of_other_weights(folder):
    change_weights(folder)
    with pytest.raises(InputError, match="the weights are not as they were saved"):
        push.plan_push(folder, schema.Publish(repo_id="ann/model"))


def test_a_folder_of_an_older_release_loads_with_a_note(folder, capsys):
    (folder / model_identity.FILE).unlink()
    load(folder)
    said = " ".join(capsys.readouterr().out.split())
    assert f"{folder} has no identity.json, as an older release saved it".replace(" ", "") in (
        said.replace(" ", "")
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"tokenizer": 5, "weights": {}, "labels": 2}', ""])
def test_an_identity_that_cannot_be_read_is_refused(folder, text):
    (folder / model_identity.FILE).write_text(text)
    with pytest.raises(InputError, match=r"identity.json: cannot be read"):
        load(folder)


def test_it_names_no_file_outside_its_folder(folder, tmp_path):
    (tmp_path / "secret").write_text("x")
    change(folder / model_identity.FILE, lambda value: value["weights"].update({"../secret": "0"}))
    with pytest.raises(InputError, match=r"\.\./secret is missing"):
        load(folder)


def test_weights_that_the_package_rewrites_keep_their_identity(folder):
    """As the temperature is folded into the head after training."""
    bias = {"classifier.bias": torch.full((3,), 0.5)}
    before = (folder / model_identity.FILE).read_text()
    assert saved_model.rewrite_weights(folder, bias)
    load(folder)
    assert (folder / model_identity.FILE).read_text() != before


def test_transformers_alone_loads_the_folder(folder):
    """Whoever has not this package is not concerned."""
    AutoModelForSequenceClassification.from_pretrained(folder)
    AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("how", BATCHES)
def test_a_tokenizer_that_makes_other_batches_is_refused(folder, how):
    BATCHES[how](folder)
    with pytest.raises(InputError, match="makes other batches"):
        load(folder)


def test_a_folder_of_an_older_release_is_not_asked_about_batches(folder):
    change(folder / model_identity.FILE, lambda value: value.pop("batches"))
    BATCHES["padding"](folder)
    load(folder)


@pytest.fixture
def sampling(tmp_path):
    """An encoder whose tokenizer draws at random, as those that were pretrained so have it."""

    def make(model, **settings):
        source = tiny_encoder(tmp_path / "encoder")
        words = [*tiny_tokenizer().get_vocab()]

        def act(value):
            value["model"] = model([word for word in words if not word.startswith("##")])
            value["normalizer"] = value["pre_tokenizer"] = None
            ids = {word: number for number, word in enumerate(words)}
            for token in value["added_tokens"]:
                token["id"] = ids[token["content"]]

        change(source / "tokenizer.json", act)
        return str(source)

    return make


def bpe(words):
    pairs = [[one, other] for one in "abcdef" for other in "abcdef" if one + other not in words]
    every = [*words, *(one + other for one, other in pairs)]
    vocabulary = {word: number for number, word in enumerate(every)}
    return {"type": "BPE", "vocab": vocabulary, "merges": pairs, "dropout": 0.5, "unk_token": None}


def test_bpe_dropout_is_switched_off(sampling, tmp_path):
    source = sampling(bpe)
    text = ["ab"] * 64
    drawn = AutoTokenizer.from_pretrained(source)(text)["input_ids"]
    assert drawn != [drawn[0]] * 64
    tokenizer = pretrained.load_tokenizer(source, OPTIONS)
    ids = tokenizer(text)["input_ids"]
    assert ids == [ids[0]] * 64
    assert model_identity.tokenizer_hash(tokenizer) == model_identity.tokenizer_hash(tokenizer)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")(text)["input_ids"] == ids


def test_a_tokenizer_that_still_draws_is_refused(sampling, monkeypatch):
    """As one of sentencepiece with sampling, which no test can install."""
    source = sampling(bpe)
    monkeypatch.setattr(tokenizer_fit, "_switch_sampling_off", lambda tokenizer: None)
    with pytest.raises(InputError, match="draws the tokens of a text at random"):
        pretrained.load_tokenizer(source, OPTIONS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_tokenizer_keeps_its_hash(tmp_path, architecture):
    tokenizer = tiny_tokenizer(architecture)
    tokenizer(["a match"], truncation=True, max_length=2, padding="max_length")  # state of a call
    saved_model.save_tokenizer(tokenizer, tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert model_identity.tokenizer_hash(again) == model_identity.tokenizer_hash(tokenizer)
    assert model_identity.batches_hash(again) == model_identity.batches_hash(tokenizer)


def test_every_release_of_the_libraries_gives_the_same_hash():
    """Recorded with transformers 4.57.1 and 5.23.0; the oldest environment runs this too."""
    assert model_identity.tokenizer_hash(tiny_tokenizer()) == (
        "7e6cd93162235d1d1f36a78af9ea1b2573e419e3abbb09547ee5340cb11a82b6"
    )
    assert model_identity.batches_hash(tiny_tokenizer()) == (
        "d58fadb530f9d99f420913689d585553a4c3482c38a2a94c3c651045924dd443"
    )
