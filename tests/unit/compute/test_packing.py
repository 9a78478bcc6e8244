"""Packed rows against padded ones: the same logits, the same gradients, whatever their lengths."""

import dataclasses
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoConfig

from finetune.compute import (
    flat_attention,
    flat_model,
    hardware_plan,
    packed_attention,
    packed_layer,
    packed_table,
    packing,
    packing_probe,
)
from finetune.config import schema
from finetune.inference import torch_engine
from finetune.inference.engines import EngineOptions, ModelSource
from finetune.modeling import build, pretrained
from finetune.tokenization import encoding
from finetune.training import optimizer as optimizer_module
from tests.support import forks
from tests.support.runs import results, run_here
from tests.support.tiny import HIDDEN, POSITIONS, tiny_encoder

CPU = torch.device("cpu")
needs_flat = pytest.mark.skipif(
    flat_model.why_not_flat(AutoConfig.for_model("modernbert")) is not None,
    reason="this release of transformers takes no attention of ours",
)
LENGTHS = [1, 3, 40, 17, 5, 60, 25, 2, 17]


def built(folder, architecture="bert", freeze="none"):
    encoder = str(tiny_encoder(folder, architecture))
    of = schema.Model(source=encoder, freeze=freeze)
    net = build.build_classifier(encoder, of, ["a", "b", "c"], "eager", seed=0)
    torch.nn.init.normal_(net.classifier.weight, generator=torch.Generator().manual_seed(0))
    packed_table.attach_packed_layers(net)
    return net.train(), pretrained.load_tokenizer(encoder, of)


def table_of(lengths, tokenizer):
    words = ["good", "team", "bad", "small", "goal"]
    texts = [" ".join(words[i % 5] for i in range(n)) for n in lengths]
    return encoding.encode(texts, tokenizer, POSITIONS)


def outcome(net, table, rows):
    """Logits, and the gradient of each weight that is trained."""
    net.zero_grad()
    logits = net(**table.batch(rows, CPU)).logits
    F.cross_entropy(logits.float(), torch.from_numpy(rows) % 3).backward()
    return logits.detach(), {n: p.grad for n, p in net.named_parameters() if p.requires_grad}


def assert_alike(one, other, tolerance):
    torch.testing.assert_close(one[0], other[0], rtol=tolerance, atol=tolerance)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        # A key's bias moves all scores alike: its gradient is nothing but rounding.
        size = max(float(gradient.abs().max()), 0.01)
        assert float((gradient - other[1][name]).abs().max()) < tolerance * size, name


@pytest.mark.parametrize(
    "architecture", ["bert", "roberta", "xlm-roberta", "electra", "distilbert", "mpnet"]
)
@pytest.mark.parametrize("freeze", ["none", "embeddings", 1])
def test_the_gradient_is_that_of_the_padded_batch(tmp_path, architecture, freeze):
    net, tokenizer = built(tmp_path, architecture, freeze)
    table = table_of(LENGTHS, tokenizer)
    rows = np.argsort(-table.lengths, kind="stable")
    packed = packed_table.PackedTable.of(table)
    batch = packed.batch(rows, CPU)["attention_mask"]
    assert batch.layout.tokens == table.lengths.sum()
    assert len(batch.layout.groups) == 3
    assert_alike(outcome(net, packed, rows), outcome(net, table, rows), 1e-5)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return built(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module", params=["bert", "distilbert", "mpnet"])
def encoder(request, tmp_path_factory):
    return built(tmp_path_factory.mktemp(request.param), request.param)


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.integers(0, 80), min_size=1, max_size=12),
    st.randoms(),
    st.sampled_from(["mean", "cls"]),
)
def test_any_lengths_in_any_order(encoder, lengths, draw, pooling):
    net, tokenizer = encoder
    net.config.pooling = pooling
    table = table_of(lengths, tokenizer)
    rows = list(range(len(lengths)))
    draw.shuffle(rows)
    rows = np.array(rows)
    packed = packed_table.PackedTable.of(table)
    assert_alike(outcome(net, packed, rows), outcome(net, table, rows), 1e-5)


@given(st.lists(st.integers(1, 600), min_size=1, max_size=40), st.booleans())
def test_a_layout_holds_each_token_once(lengths, learns):
    lengths = np.array(lengths)
    with torch.set_grad_enabled(learns):
        layout = packed_attention.layout(lengths)
    assert layout.tokens == lengths.sum()
    assert layout.tokens < layout.capacity <= layout.tokens + packed_attention.ROUND
    assert sum(group.rows for group in layout.groups) == len(lengths)
    packed = torch.arange(1.0, layout.capacity + 1)[:, None]
    packed[layout.tokens :] = 0
    places = layout.to_groups(packed)
    assert len(places) == layout.groups[-1].end
    assert torch.equal(layout.to_packed(places), packed)
    for group in layout.groups:
        assert group.rows == 1 or group.rows * group.length**2 <= packed_attention.AT_ONCE


def test_in_bf16_it_is_as_near_to_the_truth_as_autocast(bert):
    net, tokenizer = bert
    table = table_of(LENGTHS, tokenizer)
    rows = np.argsort(-table.lengths, kind="stable")
    _, truth = outcome(net, table, rows)
    distance = []
    for each in (table, packed_table.PackedTable.of(table)):
        with torch.autocast("cpu", torch.bfloat16):
            _, found = outcome(net, each, rows)
        distance.append(sum(float((found[n] - truth[n]).square().sum()) for n in truth) ** 0.5)
    assert distance[1] < 1.2 * distance[0]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("way", ["step", "load"])
def test_weights_that_changed_are_cast_again(bert, name, way):
    net, tokenizer = bert
    table = table_of(LENGTHS, tokenizer)
    rows = np.arange(len(LENGTHS))
    packed = packed_table.PackedTable.of(table)
    optimizer = optimizer_module.build_optimizer(net, schema.Optim(name=name, lr=0.1))
    with torch.autocast("cpu", torch.bfloat16):
        before, _ = outcome(net, packed, rows)
        if way == "step":
            optimizer.step()
        else:
            net.load_state_dict({key: 2 * value for key, value in net.state_dict().items()})
        logits, _ = outcome(net, packed, rows)
        padded, _ = outcome(net, table, rows)
    assert not torch.allclose(before, logits, atol=0.1)
    torch.testing.assert_close(logits, padded, rtol=0.1, atol=0.1)


def test_scoring_and_padded_batches_are_unchanged(encoder):
    net, tokenizer = encoder
    table = table_of(LENGTHS, tokenizer)
    rows = np.arange(len(LENGTHS))
    with torch.no_grad():
        packed = net(**packed_table.PackedTable.of(table).batch(rows, CPU)).logits
        padded = net(**table.batch(rows, CPU)).logits
    torch.testing.assert_close(packed, padded, rtol=1e-5, atol=1e-5)
    assert all(key.startswith(("encoder.", "classifier.")) for key in net.state_dict())


@pytest.mark.parametrize(
    ("architecture", "sections", "why"),
    [
        ("bert", {}, None),
        ("distilbert", {}, None),
        ("mpnet", {}, None),
        ("deberta-v2", {}, None),
        pytest.param("bert", {"model": {"head": "native"}}, None, marks=needs_flat),
        pytest.param("bert", {"model": {"dropout": 0.1}}, None, marks=needs_flat),
        ("mpnet", {"model": {"dropout": 0.1}}, None),
        ("bert", {"train": {"packing": "off"}}, "the recipe says so"),
        # A run's saved recipe names the attention, and repeats the run.
        ("bert", {"model": {"attention": "eager"}}, None),
    ],
)
def test_who_is_packed(tmp_path, architecture, sections, why):
    encoder = str(tiny_encoder(tmp_path, architecture))
    of = schema.Recipe(
        data=schema.Data(source="x"),
        model=schema.Model(source=encoder, **sections.get("model", {})),
        train=schema.Train(**sections.get("train", {})),
    )
    config = pretrained.load_config(encoder, of.model)
    plan = dataclasses.replace(hardware_plan.plan_hardware(of.model, of.train), device="cpu")
    found = packing.plan_packing(plan, of, config)
    assert found.packed == (why is None)
    if why is not None:
        assert found.reasons[-1] == f"rows padded: {why}"
        assert found.micro_batch_tokens == plan.micro_batch_tokens


def test_hidden_size_of_the_states(bert):
    net, tokenizer = bert
    batch = packed_table.PackedTable.of(table_of(LENGTHS, tokenizer)).batch(np.arange(3), CPU)
    states = net.encoder(**batch).last_hidden_state
    assert states.shape == (batch["attention_mask"].layout.capacity, HIDDEN)


def test_a_compiled_model_runs_padded_and_is_saved_under_its_own_names(documents):
    """`accelerate launch --dynamo_backend`, here with the backend that needs no compiler."""
    for name, backend in {"plain": "NO", "compiled": "EAGER"}.items():
        env = {"ACCELERATE_DYNAMO_BACKEND": backend}
        more = ["train.packing=off"] if name == "plain" else []
        words = f"run.dir={name}-model", "train.epochs=1", "model.dropout=0", *more
        done = forks.run(forks.TRAIN, "tiny.yaml", *words, cwd=documents, environment=env)
        assert done.returncode == 0, done.stdout + done.stderr
    plain, compiled = (
        load_file(documents / f"{name}-model/model/model.safetensors")
        for name in ("plain", "compiled")
    )
    assert plain.keys() == compiled.keys()
    for name, weight in plain.items():
        torch.testing.assert_close(compiled[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["bert", pytest.param("modernbert", marks=needs_flat)])
def test_a_run_in_16_bits_is_packed(here, capsys, name):
    """What trains in bf16 is tried before it does: in its rounding, nothing would pass."""
    encoder = tiny_encoder(here / name, name)
    words = "model.dropout=0", "train.precision=bf16", "train.max_steps=2"
    run_here("run.dir=low", f"model.source={encoder}", *words)
    assert results(here / "low")["hardware"]["packed"]
    assert "rows padded" not in capsys.readouterr().out


@needs_flat
def test_a_run_through_the_class_s_own_code_is_the_padded_run(here):
    """Frozen layers, scoring, saving and predicting go through flat batches too."""
    encoder = tiny_encoder(here / "modern", "modernbert")
    words = f"model.source={encoder}", "model.freeze=1", "model.dropout=0", "train.max_steps=14"
    run_here("run.dir=flat", *words)
    run_here("run.dir=padded", *words, "train.packing=off")
    flat, padded = (results(here / name) for name in ("flat", "padded"))
    assert flat["hardware"]["packed"]
    assert not padded["hardware"]["packed"]
    for split in ("validation", "test"):
        assert flat[split]["loss"] == pytest.approx(padded[split]["loss"], rel=1e-4)
    config = json.loads((here / "flat/model/config.json").read_text())
    assert flat_attention.NAME not in json.dumps(config)
    of = EngineOptions(precision="fp32")
    engine = torch_engine.load(ModelSource(str(here / "flat/model")), of).build()
    assert "rows end to end, without padding" in engine.reasons
    plain = torch_engine.load(ModelSource(str(here / "flat/model")), replace(of, packing=False))
    table = table_of(LENGTHS, plain.tokenizer)
    np.testing.assert_allclose(engine.logits(table), plain.build().logits(table), atol=1e-5)


@pytest.mark.parametrize("fault", ["ignores rows", "raises"])
@pytest.mark.parametrize("architecture", ["bert", pytest.param("modernbert", marks=needs_flat)])
def test_a_class_that_computes_something_else_of_packed_rows_is_padded(
    tmp_path, monkeypatch, architecture, fault
):
    encoder = str(tiny_encoder(tmp_path, architecture))
    options = schema.Model(source=encoder, freeze="none")
    net = build.build_classifier(encoder, options, ["a", "b"], "sdpa", seed=0)
    table = table_of(LENGTHS, pretrained.load_tokenizer(encoder, options))
    rows = np.arange(len(LENGTHS))
    torch.nn.init.normal_(net.classifier.weight)
    before = net(**table.batch(rows, CPU)).logits

    def wrong(*given, **named):
        if fault == "raises":
            raise ValueError("what is this?")
        return torch.zeros(100, HIDDEN)

    monkeypatch.setattr(packed_layer, "attend_only", wrong)
    monkeypatch.setattr(flat_attention, "attend_only", wrong)
    packed = packing.attach_packing(net, "fp32")
    assert packed.why_not == f"{type(net.encoder).__name__} computes something else of packed rows"
    of = schema.Model(source="x")
    plan = dataclasses.replace(
        hardware_plan.plan_hardware(of, schema.Train()), packed=True, reasons=(packing.PACKED,)
    )
    after_all = packed.apply(plan)
    assert not after_all.packed
    assert after_all.reasons == (f"rows padded: {packed.why_not}",)
    assert packed.table(table) is table
    on_gpu = packing.leave_padded(net, "cuda").table(table)
    assert (on_gpu.multiple, on_gpu.longest) == (8, POSITIONS)
    assert on_gpu.batch(rows[[2, 5]], CPU)["input_ids"].shape == (2, POSITIONS)
    assert on_gpu.batch(rows[[0]], CPU)["input_ids"].shape == (1, int(table.lengths[0]))
    assert torch.equal(net(**table.batch(rows, CPU)).logits, before)
    assert net.encoder.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("architecture", ["bert", pytest.param("modernbert", marks=needs_flat)])
def test_a_gradient_that_is_another_is_found(tmp_path, monkeypatch, architecture):
    """By a model that learns; one that only predicts has none."""
    encoder = str(tiny_encoder(tmp_path, architecture))
    options = schema.Model(source=encoder, freeze="none")
    net = build.build_classifier(encoder, options, ["a", "b"], "sdpa", seed=0)
    backward = packed_attention.attend_backward

    def wrong(*given, **named):
        return 1.05 * backward(*given, **named)

    monkeypatch.setattr(packed_layer, "attend_backward", wrong)
    monkeypatch.setattr(flat_attention, "attend_backward", wrong)
    assert packing.attach_packing(net, "fp32").why_not is not None
    assert packing.attach_packing(net, "fp32", learns=False).why_not is None


@pytest.mark.parametrize(
    ("precision", "rate", "installed", "tried"),
    [
        ("bf16", 0.0, "torch", ["torch", None]),
        ("bf16", 0.1, "torch", [None]),
        ("fp32", 0.0, "torch", [None]),
        ("fp16", 0.0, None, [None]),
    ],
)
def test_which_attention_a_gpu_is_given(monkeypatch, precision, rate, installed, tried):
    """No GPU is needed to choose."""
    monkeypatch.setattr(flat_attention, "find_kernel", lambda size, precision: installed)
    config = AutoConfig.for_model("bert", attention_probs_dropout_prob=rate)
    assert packing.flat_kernels("cuda", precision, config) == tried
    assert packing.flat_kernels("cpu", precision, config) == [None]


@needs_flat
def test_on_cuda_every_class_with_flat_batches_is_packed():
    for kind in ("bert", "modernbert", "albert", "mpnet", "deberta", "deberta-v2"):
        assert packing.why_not_packable("cuda", AutoConfig.for_model(kind)) is None
    assert packing.why_not_packable("mps", AutoConfig.for_model("bert")) is not None


@pytest.mark.parametrize("pad", [0, 3, 11, 12, 40])
def test_the_rows_on_which_packing_is_tried_hold_no_padding(bert, monkeypatch, pad):
    net, _ = bert
    monkeypatch.setattr(net.encoder.config, "pad_token_id", pad)
    table = packing_probe.Probe(net, learns=True).rows
    assert pad not in table.ids
    assert table.pad_id == pad


@needs_flat
@pytest.mark.parametrize(
    "architecture",
    ["bert", "roberta", "electra", "albert", "distilbert", "mpnet", "deberta-v2", "modernbert"],
)
def test_a_class_s_own_head_takes_rows_end_to_end(tmp_path, architecture):
    """Its pooler and its head read padded states, spread out after the last layer alone."""
    encoder = str(tiny_encoder(tmp_path, architecture))
    options = schema.Model(source=encoder, freeze="none", head="native", head_init="normal")
    net = build.build_classifier(encoder, options, ["a", "b", "c"], "sdpa", seed=0).train()
    table = table_of(LENGTHS, pretrained.load_tokenizer(encoder, options))
    rows = np.argsort(-table.lengths, kind="stable")
    before = outcome(net, table, rows)
    packed = packing.attach_packing(net, "fp32")
    assert packed.why_not is None
    batch = packed.table(table).batch(rows, CPU)
    assert batch["input_ids"].numel() < table.lengths.sum() + packed_attention.ROUND + 1
    assert batch["attention_mask"].sum() == table.lengths.sum()
    assert_alike(outcome(net, packed.table(table), rows), before, 1e-5)
    assert_alike(outcome(net, table, rows), before, 1e-6)


@needs_flat
def test_dropout_on_a_cpu_is_drawn_of_packed_rows_too(tmp_path):
    encoder = str(tiny_encoder(tmp_path))
    options = schema.Model(source=encoder, freeze="none", dropout=0.5, head_init="normal")
    net = build.build_classifier(encoder, options, ["a", "b", "c"], "sdpa", seed=0).train()
    packed = packing.attach_packing(net, "fp32")
    assert (packed.why_not, packed.by_hand) == (None, False)
    table = table_of(LENGTHS, pretrained.load_tokenizer(encoder, options))
    rows = np.argsort(-table.lengths, kind="stable")
    batch = packed.table(table).batch(rows, CPU)
    with torch.no_grad():
        one, other = net(**batch).logits, net(**batch).logits
        assert not torch.equal(one, other)
        net.eval()
        padded = net(**table.batch(rows, CPU)).logits
        torch.testing.assert_close(net(**batch).logits, padded, rtol=1e-5, atol=1e-5)
    assert packing.attach_packing(net, "fp32", learns=False).by_hand


@pytest.mark.parametrize(
    ("given", "longest"),
    [
        ({}, 20),
        ({"sliding_window": 64}, 73),
        ({"local_attention": 128, "use_sliding_window": True}, 137),
        ({"attention_window": [16, 32, 16]}, 41),
        ({"window_size": -1, "sliding_window": None}, 20),
        ({"attention_window": 500, "max_position_embeddings": 100}, 100),
        ({"position_buckets": 60}, 39),
    ],
)
def test_one_of_the_tried_rows_is_longer_than_what_a_layer_sees(given, longest):
    config = SimpleNamespace(vocab_size=20, **given)
    config.model_type = "any"
    rows = packing_probe._rows(SimpleNamespace(base_model=SimpleNamespace(config=config)))
    assert rows.lengths.max() == longest
