"""Which labels keep their weights, and what new ones start with."""

import pytest
import torch
from transformers import BertConfig

from finetune.config.schema import Model
from finetune.modeling import build, kept_labels, saved_model
from finetune.modeling.head import find_head
from finetune.runtime.errors import InputError
from tests.support.tiny import tiny_encoder, tiny_tokenizer

OLD, NEW = ("red", "green", "blue"), ("phone", "blue", "red")


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """head → the folder of a classifier of `OLD`."""
    root = tmp_path_factory.mktemp("parents")
    encoder = tiny_encoder(root / "encoder")
    for head in ("linear", "native"):
        made = build_one(encoder, OLD, head=head, head_init="normal")
        with torch.no_grad():
            find_head(made).bias[:] = torch.tensor([1.0, 2.0, 6.0])
        saved_model.save_classifier(made, tiny_tokenizer(), root / head)
    return root


def build_one(source, labels, priors=None, **choices):
    options = Model(freeze="none", **choices)
    return build.build_classifier(str(source), options, labels, "sdpa", 0, priors=priors)


@pytest.mark.parametrize("head", ["linear", "native"])
@pytest.mark.parametrize("start", ["zeros", "label_names"])
def test_known_labels_keep_their_rows_wherever_they_stand(parents, head, start):
    old = find_head(build_one(parents / head, OLD, head=head))
    model = build_one(parents / head, NEW, head=head, head_init="keep", new_labels=start)
    made = find_head(model)
    assert model.config.id2label == dict(enumerate(NEW))
    assert torch.equal(made.weight[1:], old.weight[[2, 0]])
    assert made.bias[1:].tolist() == [6.0, 1.0]
    assert made.bias[0].item() == pytest.approx(3.0)
    apart = made.weight[0] - old.weight.mean(dim=0)
    assert torch.allclose(apart, torch.zeros_like(apart), atol=1e-7) == (start == "zeros")
    assert made.weight.requires_grad
    inputs = tiny_tokenizer()(["the red phone"], return_tensors="pt")
    assert model(**inputs, labels=torch.tensor([0])).logits.shape == (1, 3)


def test_a_new_label_of_several_starts_as_likely_as_it_is(parents, tmp_path):
    made = build_one(parents / "encoder", OLD, priors=[0.5] * 3, head_init="normal")
    saved_model.save_classifier(made, tiny_tokenizer(), tmp_path)
    choices = {"head_init": "keep", "new_labels": "zeros"}
    head = find_head(build_one(tmp_path, NEW, priors=[0.1, 0.5, 0.5], **choices))
    assert not head.weight[0].any()
    assert head.bias.sigmoid()[0].item() == pytest.approx(0.1)


def test_what_is_kept_new_and_gone_is_said():
    known = kept_labels.KeptLabels("runs/a", OLD, ("blue", "red"), ("phone",), ("green",))
    assert known.describe("label_names") == (
        "2 labels keep the weights of runs/a; 1 new, from their names: phone; "
        "1 no longer in the data: green"
    )
    alone = kept_labels.KeptLabels("m", OLD, ("red",), (), ())
    assert alone.describe("zeros") == "1 label keeps the weights of m"


def test_a_head_that_cannot_be_kept_is_refused(parents):
    with pytest.raises(InputError) as refused:
        build_one(parents / "linear", NEW, head_init="keep", pooling="cls", pooled_norm=10)
    assert [*refused.value.problems] == [
        "model.pooling: expected 'mean' with model.head_init 'keep', as the source's head was "
        "trained, got 'cls'",
        "model.pooled_norm: expected null with model.head_init 'keep', as the source's head was "
        "trained, got 10.0",
    ]
    with pytest.raises(InputError, match="found red, green, blue in"):
        build_one(parents / "linear", ("phone", "code"), head_init="keep")


def test_an_encoder_without_a_head_is_told_as_such():
    """Whatever model.head is: naming the other kind would not help."""
    bare = BertConfig(architectures=["BertModel"])
    for head in ("linear", "native"):
        options = Model(source="bert", head=head, head_init="keep")
        with pytest.raises(InputError, match="a trained classifier, such as a run folder, found"):
            kept_labels.match_labels(bare, "bert", options, ["a", "b"], multi_label=False)
