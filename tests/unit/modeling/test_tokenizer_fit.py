"""Tokenizers that do not fit their encoder: refused at load with one message, or mended."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from finetune import run
from finetune.config.schema import Model
from finetune.inference.classifier import Classifier
from finetune.modeling import pretrained, saved_model, tokenizer_fit
from finetune.runtime.errors import InputError
from tests.support.runs import reset_accelerate
from tests.support.tiny import HIDDEN, tiny_encoder, tiny_tokenizer


@pytest.fixture
def encoder(tmp_path):
    def write(architecture="bert"):
        return tiny_encoder(tmp_path / architecture, architecture)

    return write


@pytest.fixture
def classifier(encoder, tmp_path):
    """A saved classifier, as it would come from elsewhere."""

    def write(architecture="bert"):
        source = encoder(architecture)
        model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
        folder = tmp_path / "classifier"
        model.save_pretrained(folder)
        tiny_tokenizer(architecture).save_pretrained(folder)
        return folder

    return write


def rows_of(folder):
    return json.loads((folder / "config.json").read_text())["vocab_size"]


def edit_json(file, **changes):
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def add_tokens(folder, *tokens, special=False):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(tokens), special_tokens=special)
    tokenizer.save_pretrained(folder)


def pad_with_new_token(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "<new>"})
    tokenizer.save_pretrained(folder)


def surround_with(folder, index):
    """Have the post-processor put an id around each text that no vocabulary has."""
    file = folder / "tokenizer.json"
    whole = json.loads(file.read_text())
    for token in whole["post_processor"]["special_tokens"].values():
        token["ids"] = [index]
    file.write_text(json.dumps(whole))


def forget_unknown(folder):
    file = folder / "tokenizer.json"
    whole = json.loads(file.read_text())
    whole["model"]["unk_token"] = "[NONE]"
    file.write_text(json.dumps(whole))


def beyond(folder, listed):
    return (
        f"expected token ids below {rows_of(folder)}, the rows of the embedding table (vocab_size "
        f"in config.json), found {listed} in the tokenizer of '{folder}'; resize the table with "
        "model.resize_token_embeddings(len(tokenizer)) and save both, or copy the tokenizer files "
        "that belong to these weights there"
    )


MISFITS = {
    "an added token": (
        lambda folder: add_tokens(folder, "goalkeeper"),
        lambda folder, n: beyond(folder, f"'goalkeeper' ({n})"),
    ),
    "many added tokens": (
        lambda folder: add_tokens(folder, *(f"name{i}" for i in range(5))),
        lambda folder, n: beyond(
            folder, f"'name0' ({n}), 'name1' ({n + 1}), 'name2' ({n + 2}) and 2 more"
        ),
    ),
    "an added special token": (
        lambda folder: add_tokens(folder, "<url>", special=True),
        lambda folder, n: beyond(folder, f"'<url>' ({n})"),
    ),
    "padding of a new token, behind another": (
        lambda folder: (add_tokens(folder, "goalkeeper"), pad_with_new_token(folder)),
        lambda folder, n: beyond(folder, f"'<new>' ({n + 1}), 'goalkeeper' ({n})"),
    ),
    "special ids of the post-processor": (
        lambda folder: surround_with(folder, 5000),
        lambda folder, n: beyond(folder, "'a special token' (5,000)"),
    ),
    "no token for unknown words": (
        forget_unknown,
        lambda folder, n: (
            f"the tokenizer in '{folder}' cannot encode a word that it does not know (WordPiece "
            "error: Missing [UNK] token from the vocabulary); set unk_token in its tokenizer.json "
            "to a token that it has"
        ),
    ),
    "no padding": (
        lambda folder: edit_json(folder / "tokenizer_config.json", pad_token=None),
        lambda folder, n: (
            f"expected a tokenizer that can pad, found none of its tokens for that in '{folder}'; "
            "set pad_token in its tokenizer_config.json"
        ),
    ),
}


def problem(call, *given):
    with pytest.raises(InputError) as caught:
        call(*given)
    [only] = caught.value.problems
    return only


@pytest.mark.parametrize("damage", MISFITS.values(), ids=MISFITS)
def test_misfits_are_refused_by_training_and_by_every_loader(damage, encoder, classifier):
    spoil, message = damage
    source, saved = encoder(), classifier()
    for folder in (source, saved):
        rows = rows_of(folder)
        spoil(folder)
    expected = f"model.source: {message(source, rows)}"
    assert problem(lambda: pretrained.load_tokenizer(str(source), Model())) == expected
    expected = f"{saved}: {message(saved, rows)}"
    assert problem(saved_model.load_classifier, saved) == expected
    assert problem(Classifier, saved) == expected


def test_the_engine_of_onnx_reads_its_tokenizer_in_the_same_way(classifier):
    folder = classifier()
    rows = rows_of(folder)
    (folder / "model.onnx").touch()
    add_tokens(folder, "goalkeeper")
    why = beyond(folder, f"'goalkeeper' ({rows})")
    assert problem(lambda: Classifier(folder, engine="onnx")) == f"{folder}: {why}"


@pytest.mark.parametrize("architecture", ["roberta", "xlm-roberta"])
@pytest.mark.parametrize("named", [0, 5])
def test_padding_from_which_positions_are_counted(encoder, architecture, named):
    folder = encoder(architecture)
    edit_json(folder / "config.json", pad_token_id=named)
    assert problem(pretrained.load_tokenizer, str(folder), Model()) == (
        "model.source: expected pad_token_id 1 in config.json, the id of the tokenizer's '<pad>', "
        f"found {named} in '{folder}': a '{architecture}' encoder counts positions from there; "
        "make the two the same"
    )


def test_weights_with_another_vocabulary_than_the_config(classifier):
    folder = classifier()
    rows = rows_of(folder)
    edit_json(folder / "config.json", vocab_size=rows + 3)
    assert problem(saved_model.load_classifier, folder) == (
        f"{folder}: expected the weights that config.json describes, but in '{folder}' 1 of 41 are "
        f"missing or of another shape: bert.embeddings.word_embeddings.weight ({rows}, {HIDDEN}) "
        f"instead of ({rows + 3}, {HIDDEN}); get the model again, or fix its config.json"
    )


@pytest.mark.parametrize("name", tokenizer_fit.SENTENCEPIECE_FILES)
def test_only_a_sentencepiece_file(encoder, monkeypatch, name):
    folder = encoder("xlm-roberta")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    (folder / name).write_bytes(b"pieces")
    monkeypatch.setattr(tokenizer_fit, "find_spec", lambda name: None)
    assert problem(pretrained.load_tokenizer, str(folder), Model()) == (
        f"model.source: expected a tokenizer.json in '{folder}', found only {name}, which the "
        "package sentencepiece reads; `pip install sentencepiece protobuf`, then run the same again"
    )


# --- what is mended -------------------------------------------------------------------------------


def one_type_pairs(folder):
    """An encoder with one type under a tokenizer that marks the second text with 1."""
    source = tiny_encoder(folder, "roberta")
    edit_json(
        source / "tokenizer_config.json",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    marked = AutoTokenizer.from_pretrained(source)("team", "bank")["token_type_ids"]
    assert max(marked) == 1
    return source


def train(folder, *words):
    reset_accelerate()
    sport, money = ("team", "goal", "race", "coach", "cup"), ("bank", "tax", "debt", "rate", "loss")
    lines = "".join(
        f"{one} {other},{third},{label}\n"
        for words_of, label in ((sport, "sport"), (money, "money"))
        for one in words_of
        for other in words_of
        for third in words_of[:1]
    )
    (folder / "rows.csv").write_text("text,second,label\n" + lines)
    recipe = folder / "recipe.yaml"
    recipe.write_text("data: {source: rows.csv}\n")
    small = ["train.max_steps=3", "train.threads=1", "data.on_leak=warn", "train.precision=fp32"]
    return run.main([str(recipe), f"run.dir={folder / 'out'}", *small, *words])


@pytest.mark.parametrize("head", ["linear", "native"])
def test_pairs_of_an_encoder_with_one_type(tmp_path, monkeypatch, head):
    monkeypatch.chdir(tmp_path)
    source = one_type_pairs(tmp_path / "encoder")
    words = [f"model.source={source}", f"model.head={head}", "data.text_pair=second"]
    assert train(tmp_path, *words) == 0
    classify = Classifier(tmp_path / "out")
    [prediction] = classify([{"text": "team won", "second": "cup"}])
    assert prediction["label"] in ("sport", "money")
    # The saved tokenizer is right for those who know nothing of this.
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "model")
    assert "token_type_ids" not in tokenizer("team", "cup")


def gpt2(folder: Path) -> Path:
    """A decoder whose config.json names no padding, under a tokenizer that has some."""
    tokenizer = tiny_tokenizer("modernbert")
    config = AutoConfig.for_model(
        "gpt2", vocab_size=len(tokenizer), n_embd=HIDDEN, n_layer=2, n_head=2, n_positions=64,
        pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_native_head_that_reads_the_last_real_token(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = gpt2(tmp_path / "encoder")
    assert train(tmp_path, f"model.source={source}", "model.head=native") == 0
    folder = tmp_path / "out" / "model"
    assert json.loads((folder / "config.json").read_text())["pad_token_id"] is not None
    documents = ["team", "the bank said this year the rate was high", "goal"]
    together = Classifier(folder)(documents)
    alone = [Classifier(folder)([one])[0] for one in documents]
    assert [one["label"] for one in together] == [one["label"] for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-6)


def test_a_loaded_native_head_finds_the_padding_of_its_tokenizer(tmp_path):
    source = gpt2(tmp_path / "encoder")
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
    assert model.config.pad_token_id is None
    model.save_pretrained(tmp_path / "classifier")
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path / "classifier")
    assert len(Classifier(tmp_path / "classifier")(["team", "the bank said"])) == 2


@pytest.mark.parametrize("content", ["", "{", '{"version": 1,}'])
def test_a_tokenizer_json_that_is_none_is_named(encoder, content):
    folder = Path(encoder())
    (folder / "tokenizer.json").write_text(content)
    config = AutoConfig.from_pretrained(folder)
    with pytest.raises(InputError, match=r"tokenizer\.json is not valid JSON"):
        tokenizer_fit.read_tokenizer(str(folder), "model.source", config, trust_remote_code=False)
