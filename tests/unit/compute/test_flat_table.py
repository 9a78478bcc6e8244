"""Flat batches against padded ones, through transformers' own classes: the same, of any lengths."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from finetune.compute import (
    checkpointing,
    flat_attention,
    flat_encoders,
    flat_model,
    flat_table,
    micro_batches,
)
from finetune.compute.cached_table import CachedTable
from finetune.compute.frozen_prefix import attach_frozen_prefix
from finetune.config import schema
from finetune.modeling.freezing import encoder_layers
from finetune.modeling.modeling_document_classifier import (
    POOLINGS,
    DocumentClassifier,
    DocumentClassifierConfig,
)
from finetune.tokenization.token_table import TokenTable

CPU = torch.device("cpu")
SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
AFTER_PADDING = {"pad_token_id": 1, "max_position_embeddings": 66, "type_vocab_size": 1}
V3 = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_buckets": 12,
    "max_relative_positions": -1,
    "type_vocab_size": 0,
}
# By class, what differs; no dropout anywhere.
CLASSES = {
    "bert": {},
    "roberta": AFTER_PADDING,
    "xlm-roberta": AFTER_PADDING,
    "camembert": AFTER_PADDING,
    "ernie": {},
    "electra": {"embedding_size": 16},
    "albert": {"embedding_size": 16},
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 2},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
    "nomic_bert": {},
    "gte": {},
    "eurobert": {"num_key_value_heads": 1, "hidden_act": "silu"},
    "mpnet": AFTER_PADDING,
    # As v3's are published; in 60 tokens, far distances share a vector.
    "deberta-v2": V3,
    # As v2's largest are: with a convolution, and positions of their own projections.
    "deberta-v2, large": {
        **V3, "share_att_key": False, "conv_kernel_size": 3, "conv_act": "gelu",
        "position_biased_input": True, "type_vocab_size": 2, "embedding_size": 16,
    },
    "deberta-v2, keys alone": {**V3, "pos_att_type": ["c2p"], "position_buckets": -1},
    "deberta-v2, no distances": {**V3, "relative_attention": False, "pos_att_type": []},
    "deberta": {
        "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": -1,
        "position_biased_input": False, "type_vocab_size": 0,
    },
    "deberta, few distances": {
        "relative_attention": True, "pos_att_type": ["p2c"], "max_relative_positions": 24,
    },
}  # fmt: skip
RATES = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout",
    "embedding_dropout", "mlp_dropout", "classifier_dropout_prob", "resid_pdrop", "embd_pdrop",
)  # fmt: skip


def built(name, pooling="mean"):
    """A classifier over a tiny encoder of a class; skipped where this release has none."""
    sizes = {**SIZES, **CLASSES[name]}
    try:
        config = AutoConfig.for_model(name.split(",")[0], **sizes)
    except ValueError:
        pytest.skip(f"this release of transformers has no {name}")
    for rate in RATES:
        if hasattr(config, rate):
            setattr(config, rate, 0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = DocumentClassifierConfig(encoder=config, pooling=pooling, num_labels=3)
        return DocumentClassifier(whole).train()


def table_of(lengths, pad):
    draw = np.random.default_rng(0)
    lengths = np.array(lengths)
    ids = draw.integers(2, 60, lengths.sum()).astype(np.int32)
    return TokenTable(ids, np.concatenate([[0], np.cumsum(lengths)]), lengths, pad)


def outcome(net, table, rows):
    """Logits, and the gradient of each weight."""
    net.zero_grad()
    logits = table.pooled(net(**table.batch(rows, CPU)).logits, rows)
    F.cross_entropy(logits, torch.from_numpy(rows) % 3).backward()
    return logits.detach(), {n: p.grad for n, p in net.named_parameters() if p.grad is not None}


def assert_alike(one, other, tolerance=1e-5):
    torch.testing.assert_close(one[0], other[0], rtol=tolerance, atol=tolerance)
    assert one[1].keys() == other[1].keys()
    size = max(float(gradient.abs().max()) for gradient in one[1].values())
    for name, gradient in one[1].items():
        assert float((gradient - other[1][name]).abs().max()) < tolerance * size, name


def flat(net, table):
    return flat_table.FlatTable.of(table, net, None)


def rows_of(table):
    return np.argsort(-table.lengths, kind="stable")


def attached(name, pooling="mean"):
    net = built(name, pooling)
    why_not = flat_model.why_not_flat(net.encoder.config)
    if why_not is not None:
        pytest.skip(why_not)
    flat_model.attach_flat_rows(net)
    return net


@pytest.fixture(scope="module", params=CLASSES)
def classifier(request):
    return attached(request.param)


@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.sampled_from([*POOLINGS]))
def test_hidden_states_and_gradients_are_those_of_the_padded_batch(classifier, lengths, pooling):
    classifier.config.pooling = pooling
    table = table_of(lengths, classifier.encoder.config.pad_token_id or 0)
    rows = rows_of(table)
    assert_alike(
        outcome(classifier, flat(classifier, table), rows), outcome(classifier, table, rows)
    )


def test_pairs_and_windows_go_through_it():
    net = attached("bert")
    whole = table_of([30, 12, 30, 5, 9, 20], 0)
    pairs = dataclasses.replace(whole, seconds=np.array([10, 3, 0, 4, 9, 1]))
    rows = rows_of(pairs)
    assert_alike(outcome(net, flat(net, pairs), rows), outcome(net, pairs, rows))
    types = flat(net, pairs).batch(rows, CPU)["token_type_ids"]
    assert types.sum() == (pairs.lengths - pairs.seconds).sum()
    windows = dataclasses.replace(pairs, first=np.array([0, 2, 3, 6]), full=np.array([42, 30, 34]))
    rows = np.array([1, 0, 2])
    assert_alike(outcome(net, flat(net, windows), rows), outcome(net, windows, rows))


def test_a_token_that_is_called_padding_is_counted_as_the_class_counts_it():
    net = attached("roberta")
    table = table_of([9, 14, 6], 1)
    table.ids[[3, 12, 13]] = 1
    rows = rows_of(table)
    batch = table.batch(rows, CPU)
    batch["attention_mask"].fill_(1)  # the class counts by ids, whatever the mask says
    positions = flat(net, table).batch(rows, CPU)["attention_mask"].positions[0]
    kind = type(net.encoder.embeddings)
    want = kind.create_position_ids_from_input_ids(batch["input_ids"], 1)
    want = torch.cat([row[:n] for row, n in zip(want, table.lengths[rows], strict=True)])
    assert torch.equal(positions[: len(want)], want)


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_states_of_frozen_layers_are_taken(name):
    net = attached(name)
    for parameter in net.encoder.embeddings.parameters():
        parameter.requires_grad_(False)
    recipe = schema.Recipe(data=schema.Data(source="x"), model=schema.Model(source="x"))
    blocks = encoder_layers(net.encoder)
    blocks[0].requires_grad_(False)
    prefix = attach_frozen_prefix(net, recipe, epochs=2)
    assert prefix is not None, "nothing is skipped"
    table = table_of([20, 7, 13], 0)
    rows = rows_of(table)
    padded = prefix.states(net, table.batch(rows, CPU)).detach()
    states = torch.zeros(len(table.ids), padded.shape[-1])
    for i, row in enumerate(rows):
        states[table.span(row)] = padded[i, : table.lengths[row]]
    fields = {f.name: getattr(table, f.name) for f in dataclasses.fields(TokenTable)}
    cached = CachedTable(**fields, states=states)
    assert_alike(outcome(net, flat(net, cached), rows), outcome(net, table, rows))


def test_long_rows_keep_no_scores(monkeypatch):
    """Above some length each group goes to torch's own attention, which keeps none."""
    net = attached("modernbert")
    table = table_of([60, 41, 41, 7], 0)
    rows = rows_of(table)
    monkeypatch.setattr(flat_attention, "BY_HAND_UP_TO", 16)
    monkeypatch.setattr(flat_attention, "_Attend", None)
    assert_alike(outcome(net, flat(net, table), rows), outcome(net, table, rows))


@pytest.mark.parametrize("up_to", [512, 16])
def test_layers_that_are_computed_again_have_the_same_gradient(monkeypatch, up_to):
    monkeypatch.setattr(flat_attention, "BY_HAND_UP_TO", up_to)
    net = attached("modernbert")
    table = table_of([60, 41, 41, 7], 0)
    with torch.inference_mode():  # what scoring leaves behind serves training
        net(**flat(net, table).batch(rows_of(table), CPU))
    before = outcome(net, flat(net, table), rows_of(table))
    assert checkpointing.enable_checkpointing(net)
    assert_alike(outcome(net, flat(net, table), rows_of(table)), before, 1e-6)


def reference(query, key, value, ends, longest, scale, window):
    """What a kernel for rows of any lengths computes, row by row."""
    assert longest >= ends.diff().max()
    assert ends.dtype == torch.int32
    mixed = torch.zeros_like(query)
    for begin, end in zip(ends.tolist(), ends.tolist()[1:], strict=False):
        place = torch.arange(end - begin)
        sees = torch.ones(len(place), len(place), dtype=torch.bool)
        if window != (-1, -1):
            distance = place[None] - place[:, None]
            sees = (distance >= -window[0]) & (distance <= window[1])
        each = (x[begin:end].transpose(0, 1)[None] for x in (query, key, value))
        one = F.scaled_dot_product_attention(*each, sees, scale=scale)
        mixed[begin:end] = one[0].transpose(0, 1)
    return mixed


def test_a_kernel_is_tried_before_it_is_used():
    def right(kernel):
        return flat_attention.is_right(kernel, 16, torch.bfloat16, "cpu")

    def without_window(*given):
        return reference(*given[:-1], (-1, -1))

    def without_gradient(*given):
        return reference(*given).detach()

    assert right(reference)
    assert not right(without_window)
    assert not right(without_gradient)
    assert not right(lambda *given: reference(*given[:3], given[3][[0, -1]], 16, *given[5:]))


@pytest.mark.parametrize("name", ["bert", "modernbert", "eurobert"])
def test_a_kernel_is_told_rows_windows_and_scale(monkeypatch, name):
    """The kernels themselves run on GPUs alone: a reference takes what they would be given."""
    net = attached(name).eval()
    monkeypatch.setitem(flat_attention.KERNELS, "reference", reference)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: torch.float32)
    table = table_of([30, 17, 30, 2], 0)
    rows = rows_of(table)
    with torch.no_grad():
        given = flat_table.FlatTable.of(table, net, "reference").batch(rows, CPU)
        assert given["attention_mask"].layout is None
        found = net(**given).logits
        expected = net(**table.batch(rows, CPU)).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_flat_batch_holds_hardly_any_padding():
    """At most 3 in 100 of the tokens that a GPU computes, for texts of the lengths of news."""
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(3.9, 0.4, 640).astype(int), 8, 512)
    table = flat_table.FlatTable.of(table_of(lengths, 0), built("bert"), "torch")
    meta = torch.device("meta")  # any device but a CPU
    for size in (32, 256):
        real = computed = 0
        for rows in np.split(np.arange(640), range(size, 640, size)):
            for part in micro_batches.split_rows(table, rows, 16_384):
                computed += table.batch(part, meta)["input_ids"].numel()
                real += int(table.lengths[part].sum())
        assert computed - real <= 0.03 * computed


def test_who_has_flat_batches():
    for kind in ("mpnet", "deberta", "deberta-v2"):  # by code of this package's own
        assert flat_encoders.computes_own_attention(AutoConfig.for_model(kind))
        assert flat_model.why_not_flat(AutoConfig.for_model(kind)) is None
    mixed = AutoConfig.for_model("deberta", talking_head=True)
    assert "talking_head" in flat_model.why_not_flat(mixed)
    assert flat_model.POOLINGS.keys() == POOLINGS.keys()
