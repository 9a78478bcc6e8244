"""Static embeddings: what is distilled of an encoder, kept, refused, and loaded elsewhere."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from finetune.config import schema
from finetune.modeling import build, pretrained, saved_model
from finetune.modeling.static_encoder import LENGTH, WEIGHTS, distil_static
from finetune.runtime.errors import InputError
from tests.support.tiny import HIDDEN, tiny_encoder

LABELS = ["bad", "good"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(tiny_encoder(tmp_path_factory.mktemp("static") / "encoder"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def options(encoder):
    return schema.Model(source=f"static:{encoder}", freeze="none")


def distil(encoder, cache):
    return Path(distil_static(encoder, options(encoder), cache, None, torch.float32))


@pytest.fixture(scope="module")
def static(encoder, cache):
    return distil(encoder, cache)


def table(folder):
    return load_file(folder / WEIGHTS)["embeddings.weight"]


def test_the_table_has_a_row_for_each_token(encoder, static):
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    rows = table(static)
    assert rows.shape == (len(tokenizer), HIDDEN)
    assert torch.equal(rows[tokenizer.all_special_ids], torch.zeros(5, HIDDEN))
    assert rows.norm(dim=1).mean().item() == pytest.approx(LENGTH, rel=1e-5)


@torch.no_grad()
def test_the_directions_are_those_of_the_encoders_states(encoder, static):
    """Distances between states, half whitened by hand, are those of the table, weights aside."""
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder)
    size = len(tokenizer)
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids = torch.tensor([[cls, token, sep] for token in range(size)])
    states = model.eval()(ids).last_hidden_state.mean(dim=1).double()
    left, values, _ = torch.linalg.svd(states - states.mean(dim=0), full_matrices=False)
    whitened = left * (values * size**0.5) ** 0.5
    frequency = 1 / torch.arange(1, size + 1, dtype=torch.double)
    weights = 1e-4 / (1e-4 + frequency / frequency.sum())
    ours = table(static).double() / weights[:, None]
    some = [token for token in range(size) if token not in tokenizer.all_special_ids][::9]
    expected, found = torch.pdist(whitened[some]), torch.pdist(ours[some])
    assert torch.allclose(found / found.mean(), expected / expected.mean(), rtol=2e-3)


def test_it_is_distilled_once(encoder, cache, static, capsys):
    assert distil(encoder, cache) == static
    assert "distilling" not in capsys.readouterr().out


def test_a_damaged_one_is_distilled_anew_and_is_the_same(encoder, cache, static, capsys):
    before = table(static)
    save_file({"embeddings.weight": before + 1}, static / WEIGHTS, metadata={"format": "pt"})
    assert torch.equal(table(distil(encoder, cache)), before)
    assert "is damaged: static embeddings are distilled anew" in capsys.readouterr().out


def test_other_weights_have_another_entry(encoder, cache, static, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(encoder, other)
    weights = load_file(other / WEIGHTS)
    weights["embeddings.word_embeddings.weight"] *= 2
    save_file(weights, other / WEIGHTS, metadata={"format": "pt"})
    assert distil(str(other), cache) != static


def test_another_config_has_another_entry(encoder, cache, static, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(encoder, other)
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace('"gelu"', '"relu"'))
    assert distil(str(other), cache) != static


def test_a_static_one_is_not_distilled_again(static, cache):
    with pytest.raises(InputError, match="is static already; name it without 'static:'"):
        distil(str(static), cache)


def test_a_cache_that_cannot_be_written_is_named(encoder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written: .*cache\.dir"):
        distil(encoder, tmp_path / "file")


@pytest.fixture(scope="module")
def classifier(encoder, static, tmp_path_factory):
    choices = options(encoder).model_copy(update={"head_init": "normal"})
    made = build.build_classifier(str(static), choices, LABELS, "sdpa", seed=0)
    folder = tmp_path_factory.mktemp("saved") / "model"
    saved_model.save_classifier(made, pretrained.load_tokenizer(str(static), choices), folder)
    return made, folder


def test_padding_changes_nothing(classifier):
    model, _ = classifier
    ids = torch.tensor([[2, 20, 30, 3, 0, 0]])
    padded = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
    assert torch.allclose(padded, model(input_ids=ids[:, :4]).logits, atol=1e-6)


def test_a_saved_classifier_is_the_same_classifier(classifier):
    model, folder = classifier
    again, _ = saved_model.load_classifier(folder)
    ids = torch.tensor([[2, 20, 30, 3]])
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert again.encoder.config.distilled_from == model.encoder.config.distilled_from


def test_a_run_is_known_by_the_vectors_that_it_begins_with(encoder, static, classifier):
    """Distilled ones by what they were made of; those of a folder may be trained, and count."""

    def hashes(choices):
        model = build.build_classifier(str(static), choices, LABELS, "sdpa", seed=0)
        before = build.initial_weights_hash(model, choices)
        with torch.no_grad():
            model.encoder.embeddings.weight += 1
        return before, build.initial_weights_hash(model, choices)

    before, after = hashes(options(encoder))
    assert before == after
    before, after = hashes(schema.Model(source=str(classifier[1]), freeze="none"))
    assert before != after


def test_its_own_code_loads_it_where_this_package_is_not(classifier, tmp_path):
    model, folder = classifier
    ids = torch.tensor([[2, 20, 30, 3]])
    code = (
        "import sys, torch\n"
        "sys.modules['finetune'] = None\n"
        "from transformers import AutoModelForSequenceClassification as Auto\n"
        f"model = Auto.from_pretrained({str(folder)!r}, trust_remote_code=True)\n"
        f"torch.save(model(torch.tensor({ids.tolist()})).logits, 'logits.pt')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300)
    found = torch.load(tmp_path / "logits.pt", weights_only=True)
    assert torch.allclose(found, model(ids).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"head": "native"}, "linear with static embeddings, which have no classification"),
        ({"pooling": "cls"}, "mean with static embeddings"),
        ({"keep_layers": 3}, "null with static embeddings, which have no layers, got 3"),
        ({"attention": "eager"}, "auto with static embeddings, which have no attention"),
        ({"freeze": 2}, "auto, none or embeddings with static embeddings"),
        ({"source": "static:"}, "an encoder after 'static:', got none"),
    ],
)
def test_what_makes_no_sense_is_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        schema.Model(**{"source": "static:any", **choice})


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"truncation": "windows"}}, "head, tail or head_tail with static"),
        ({"train": {"checkpointing": "on"}}, "auto or off with static embeddings"),
        ({"train": {"stages": [{"freeze": 1}, {}]}}, "freeze of none or embeddings"),
    ],
)
def test_what_layers_are_for_is_refused(sections, message):
    whole = {"model": {"source": "static:any"}, **sections}
    whole["data"] = {"source": "any", **whole.get("data", {})}
    with pytest.raises(ValueError, match=message):
        schema.Recipe(**whole)
