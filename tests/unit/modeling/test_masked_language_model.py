"""An encoder under a language model's head: transformers' own logits, in every layout of rows."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from finetune.compute import packing
from finetune.compute.packing import why_not_packable
from finetune.config import schema
from finetune.modeling import masked_language_model, pretrained
from finetune.modeling.masked_language_model import log_frequencies
from finetune.runtime.errors import InputError
from finetune.tokenization import encoding
from finetune.training.masking import MaskedRows, Masking
from tests.support.tiny import tiny_encoder

CPU = torch.device("cpu")
TEXTS = ["good team in the final", "bad", "the stock price fell on monday again", "small chip data"]
ARCHITECTURES = ["bert", "distilbert", "roberta", "electra", "albert", "mpnet", "deberta-v2"]


def load(source, vocabulary=None, **options):
    options = schema.Model(source=str(source), freeze="none", **options)
    config = pretrained.load_config(str(source), options)
    counts = np.arange(config.vocab_size)
    model, is_new = masked_language_model.load_language_model(
        str(source), options, "eager", log_frequencies(counts), seed=0
    )
    return model, is_new, pretrained.load_tokenizer(str(source), options), options


def masked(table, tokenizer):
    rows = MaskedRows(table, 1000, Masking.of_tokenizer(tokenizer, fraction=0.4))
    return rows.objective(schema.Train(), CPU).of_step(0, np.arange(len(table)))


def outcome(model, task, table):
    """Losses and gradients, of rows that are laid out as this table's."""
    order = np.argsort(-table.lengths, kind="stable")
    losses = task.losses_of(model(**table.batch(order, CPU)).logits.float(), order)
    learning = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(losses.sum(), learning, allow_unused=True)
    return losses[np.argsort(order)], [one for one in gradients if one is not None]


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "modernbert"])
def test_the_logits_are_those_of_the_class_s_own(tmp_path, architecture):
    encoder = tiny_encoder(tmp_path / "encoder", architecture)
    model, is_new, tokenizer, options = load(encoder)
    assert is_new
    table = encoding.encode(TEXTS, tokenizer, 32)
    task = masked(table, tokenizer)
    padded = outcome(model, task, task.table)
    packed = packing.attach_packing(model, "fp32")
    if why_not_packable("cpu", model.encoder.config) is None:
        assert packed.why_not is None
    found = outcome(model, task, packed.table(task.table))
    assert torch.allclose(found[0], padded[0], atol=1e-5)
    for one, other in zip(found[1], padded[1], strict=True):
        assert torch.allclose(one, other, atol=1e-5 * max(1.0, float(other.abs().max())))
    # What is saved is the architecture's own, and says the same.
    original, unreached = masked_language_model.read_unreached(str(encoder), options)
    batch = task.table.batch(task.rows, CPU)
    places = batch.pop("asked")
    with torch.no_grad():
        own = model(**batch, asked=places).logits
    masked_language_model.save_encoder(model, tokenizer, tmp_path / "saved", original, unreached)
    saved = AutoModelForMaskedLM.from_pretrained(tmp_path / "saved", attn_implementation="eager")
    with torch.no_grad():
        logits = saved.eval()(**batch).logits
    assert torch.allclose(logits.flatten(0, 1)[places], own, atol=1e-5)
    # Untrained, its encoder is the source's, and the head is found again.
    before, after = (
        AutoModel.from_pretrained(folder).state_dict() for folder in (encoder, tmp_path / "saved")
    )
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    _, is_new, _, _ = load(tmp_path / "saved")
    assert not is_new


def test_a_new_head_starts_from_frequencies_and_dropout_is_put_back(tmp_path):
    encoder = tiny_encoder(tmp_path / "encoder")
    model, _, tokenizer, options = load(encoder, dropout=0.0)
    bias = model.whole.cls.predictions.bias
    assert torch.equal(bias, log_frequencies(np.arange(len(bias))))
    assert bias.exp().sum().item() == pytest.approx(1)
    assert model.classifier.weight is model.encoder.embeddings.word_embeddings.weight
    assert model.encoder.config.hidden_dropout_prob == 0
    original, unreached = masked_language_model.read_unreached(str(encoder), options)
    masked_language_model.save_encoder(model, tokenizer, tmp_path / "s", original, unreached)
    config = pretrained.load_config(str(tmp_path / "s"), options)
    assert config.hidden_dropout_prob == original.hidden_dropout_prob == 0.1
    assert "bert.pooler.dense.weight" in load_file(tmp_path / "s" / "model.safetensors")


def test_architectures_without_a_language_model_are_refused():
    config = AutoConfig.for_model("gpt2")
    with pytest.raises(InputError) as caught:
        masked_language_model.check_language_model(config, "here")
    assert str(caught.value) == (
        "ENCODER: expected an architecture that transformers has as a masked language model, such "
        "as BERT, found 'gpt2' in 'here'"
    )
