"""Long documents, pairs and templates: every token in its place, and the loss per document."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from finetune.compute import micro_batches
from finetune.compute.packed_table import PackedTable, attach_packed_layers
from finetune.config import schema
from finetune.data.columns import ColumnSpec
from finetune.modeling.build import DocumentClassifier
from finetune.runtime.errors import InputError
from finetune.tokenization import encoding, token_cache, token_table
from finetune.tokenization.document_format import DocumentFormat
from finetune.training import losses
from tests.support.runs import finish, results, run_here
from tests.support.tiny import ARCHITECTURES, tiny_encoder, tiny_tokenizer

TOKENIZERS = {name: tiny_tokenizer(name) for name in ARCHITECTURES}
CPU = torch.device("cpu")
DOCUMENTS = st.lists(st.text(alphabet="abc .,", max_size=80), min_size=1, max_size=6)


def bare(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def pieces(table, row=None):
    spans = [table.ids[table.span(i)].tolist() for i in range(len(table.starts) - 1)]
    return spans if row is None else spans[table.first[row] : table.first[row + 1]]


@settings(max_examples=60, deadline=None)
@given(
    texts=DOCUMENTS,
    length=st.integers(4, 20),
    overlap=st.integers(0, 17),
    most=st.none() | st.integers(1, 3),
)
def test_windows_hold_every_token_and_share_as_many_as_asked(texts, length, overlap, most):
    tokenizer = TOKENIZERS["bert"]
    room = length - 2
    overlap = min(overlap, room - 1)
    options = encoding.TruncationOptions("windows", overlap, most)
    table = encoding.encode(texts, tokenizer, length, options, chunk_size=2)
    begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    for i, text in enumerate(texts):
        own, windows = bare(tokenizer, text), pieces(table, i)
        assert all(w[0] == begin and w[-1] == end and len(w) <= length for w in windows)
        inner = [w[1:-1] for w in windows]
        joined = [*inner[0], *(token for w in inner[1:] for token in w[overlap:])]
        assert joined == own[: len(joined)]
        assert len(joined) == table.kept[i] - 2
        assert most is not None or joined == own
        assert most is None or len(windows) <= most
        assert all(len(w) == room for w in inner[:-1])
        assert all(a[room - overlap :] == b[:overlap] for a, b in itertools.pairwise(inner))
        # No window repeats another alone.
        assert all(len(w) > overlap for w in inner[1:])
    assert table.lengths.tolist() == [sum(map(len, pieces(table, i))) for i in range(len(texts))]
    assert table.full.tolist() == [len(bare(tokenizer, text)) + 2 for text in texts]
    if most is None:
        assert table.total_lost_tokens == table.truncated == 0


@settings(max_examples=40, deadline=None)
@given(texts=DOCUMENTS, length=st.integers(4, 20))
def test_what_stays_of_a_longer_document(texts, length):
    tokenizer = TOKENIZERS["roberta"]
    room = length - 2
    head = room // 4
    tables = {
        long: encoding.encode(
            texts, tokenizer, length, encoding.TruncationOptions(long), chunk_size=2
        )
        for long in ("head", "tail", "head_tail")
    }
    for i, text in enumerate(texts):
        own = bare(tokenizer, text)
        found = {long: pieces(table)[i][1:-1] for long, table in tables.items()}
        assert found["head"] == own[:room]
        assert found["tail"] == own[-room:]
        whole = len(own) <= room
        assert found["head_tail"] == (own if whole else own[:head] + own[-(room - head) :])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(max_examples=20, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), min_size=1),
    room=st.integers(8, 24),
)
def test_pairs_are_the_tokenizer_s_own(architecture, pairs, room):
    tokenizer = TOKENIZERS[architecture]
    texts, seconds = map(list, zip(*pairs, strict=True))
    table = encoding.encode(texts, tokenizer, room, seconds=seconds, chunk_size=2)
    wanted = tokenizer(texts, seconds, truncation="longest_first", max_length=room, padding=True,
                       return_tensors="pt")  # fmt: skip
    found = table.batch(np.arange(len(texts)), CPU)
    assert found.keys() == wanted.keys()
    real = wanted["attention_mask"].bool()
    assert torch.equal(found["attention_mask"], wanted["attention_mask"])
    for name in found:
        assert torch.equal(found[name][real], wanted[name][real])
    assert table.full.tolist() == [len(ids) for ids in tokenizer(texts, seconds)["input_ids"]]


def classifier(folder, classes=3):
    torch.manual_seed(1)
    config = DocumentClassifier.config_class(
        encoder=AutoConfig.from_pretrained(tiny_encoder(folder / "encoder")), num_labels=classes
    )
    model = DocumentClassifier(config).eval()
    torch.nn.init.normal_(model.classifier.weight)
    return model


TEXTS = ["one two three " * n for n in (1, 9, 3, 20, 2, 6)]
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def gradient(model, table, parts):
    """Of the mean loss over all documents, summed up over parts of them."""
    model.zero_grad()
    loss_of = losses.row_loss(schema.Train())
    for part in parts:
        logits = table.pooled(model(**table.batch(part, CPU)).logits, part)
        (loss_of(logits, LABELS[torch.from_numpy(part)]).sum() / len(LABELS)).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("pool", ["mean", "max", "softmax"])
def test_a_document_s_loss_is_one_however_the_step_is_split(tmp_path, pool, monkeypatch):
    model = classifier(tmp_path)
    windows = encoding.TruncationOptions("windows", stride=2, window_pooling=pool)
    table = encoding.encode(TEXTS, TOKENIZERS["bert"], 12, windows)
    rows = np.arange(len(TEXTS))
    whole = gradient(model, table, [rows])
    each = gradient(model, table, [rows[i : i + 1] for i in rows[::-1]])
    budget = gradient(model, table, micro_batches.micro_batches(rows, table.lengths, 30))
    torch.testing.assert_close(each, whole, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(budget, whole, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        logits = table.pooled(model(**table.batch(rows, CPU)).logits, rows)
        alone = table.by_piece()
        at_once = model(**alone.batch(np.arange(len(alone)), CPU)).logits.numpy()
        pooled = torch.from_numpy(table.pool_windows(at_once))  # as where nothing is trained
        torch.testing.assert_close(pooled, logits, rtol=1e-4, atol=1e-5)
        summed = np.add.reduceat(table.window_shares(at_once) * at_once, table.first[:-1])
        torch.testing.assert_close(torch.from_numpy(summed), pooled, rtol=1e-4, atol=1e-5)
        for i in rows:  # against windows one by one
            one = [model(input_ids=torch.tensor([ids])).logits[0] for ids in pieces(table, i)]
            together = torch.stack(one)
            wanted = {
                "mean": together.mean(0),
                "max": together.max(0).values,
                "softmax": (together.softmax(0) * together).sum(0),
            }[pool]
            torch.testing.assert_close(logits[i], wanted, rtol=1e-4, atol=1e-5)
    with monkeypatch.context() as without:  # as on CUDA and MPS
        without.setattr(token_table, "SEGMENT_REDUCE_DEVICES", ())
        assert torch.equal(gradient(model, table, [rows]), whole)
    attach_packed_layers(model)
    packed = gradient(
        model, PackedTable.of(table), micro_batches.micro_batches(rows, table.lengths, 60)
    )
    torch.testing.assert_close(packed, whole, rtol=1e-4, atol=1e-5)


def test_packed_pairs_are_the_padded_ones(tmp_path):
    model = classifier(tmp_path)
    table = encoding.encode(TEXTS, TOKENIZERS["bert"], 24, seconds=TEXTS[::-1])
    rows = np.arange(len(TEXTS))
    padded = gradient(model, table, [rows])
    types = model.encoder.embeddings.token_type_embeddings.weight.grad
    assert (types.abs().sum(1) > 0).all()
    attach_packed_layers(model)
    torch.testing.assert_close(
        gradient(model, PackedTable.of(table), [rows]), padded, rtol=1e-4, atol=1e-5
    )


WINDOWS = "data.truncation=windows", "data.max_length=8", "data.stride=2"


def test_a_run_in_windows_by_one_process_and_by_two(here):
    words = *WINDOWS, "model.dropout=0", "run.seed=3"
    run_here("run.dir=one", *words)
    finish(here, "run.dir=two", *words, processes=2)
    run_here("run.dir=padded", *words, "train.packing=off", "train.micro_batch_tokens=40")
    one, two, padded = (results(here / name) for name in ("one", "two", "padded"))
    assert two["num_processes"] == 2
    for other in (two, padded):
        assert other["test"]["loss"] == pytest.approx(one["test"]["loss"], rel=1e-4)
        assert other["validation"]["loss"] == pytest.approx(one["validation"]["loss"], rel=1e-4)
    assert one["data"]["splits"]["train"]["cut_tokens"] == 0
    config = json.loads((here / "one/model/config.json").read_text())
    assert config["document"] == {
        "text": ["text"], "template": None, "text_pair": None, "max_length": 8,
        "truncation": "windows", "stride": 2, "max_windows": None, "window_pooling": "mean",
        "thresholds": None, "abstain_below": None, "id": None, "out_of_scope": False,
            "interval": None,
    }  # fmt: skip


@pytest.mark.parametrize("freeze", ["1", "encoder"])
def test_windows_through_kept_states(here, freeze):
    words = *WINDOWS, "model.dropout=0", f"model.freeze={freeze}", f"cache.dir={here}/cache"
    run_here("run.dir=kept", *words)
    run_here("run.dir=anew", *words, "cache.frozen_states=off")
    assert list((here / "cache").glob("prefix-*"))
    kept, anew = (results(here / name)["test"]["loss"] for name in ("kept", "anew"))
    assert kept == pytest.approx(anew, rel=1e-4)


def test_pairs_and_templates_from_files(here):
    (here / "pairs").mkdir()
    for split, rows in {"train": 40, "validation": 9, "test": 9}.items():
        with (here / "pairs" / f"{split}.csv").open("w") as out:
            out.write("title,body,other,label\n")
            for i in range(rows):
                out.write(
                    f"{split} {i},{'one two ' * (i % 3)},{'three ' * (i % 5 + 1)},{'xy'[i % 2]}\n"
                )
    run_here("data.source=pairs", "data.template={title}: {body}", "data.text_pair=other",
             "run.dir=run", "train.epochs=1", "score.every=epoch")  # fmt: skip
    document = json.loads((here / "run/model/config.json").read_text())["document"]
    assert document["text"] == ["title", "body"]
    assert document["template"] == "{title}: {body}"
    assert document["text_pair"] == "other"
    run_here("data.source=pairs", "data.text=[title, body, other]", "run.dir=again",
             "train.epochs=1", "score.every=epoch")  # fmt: skip
    assert results(here / "again")["hashes"]["data"] != results(here / "run")["hashes"]["data"]


@pytest.mark.parametrize(
    ("cells", "template", "joined"),
    [
        (("a", "b"), None, "a\n\nb"),
        (("a", None), None, "a"),
        ((None, None), None, None),
        (("a", "b"), "{x} {{{y}}} {x}", "a {b} a"),
        ((None, "b"), "{x}-{y}", "-b"),
        ((None, None), "{x}-{y}", None),
    ],
)
def test_columns_are_joined(cells, template, joined):
    assert ColumnSpec(("x", "y"), "label", template=template).join_texts(cells) == joined


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.text_pair=b", "data.truncation=windows"],
         "data.truncation: expected head with data.text_pair, as pairs are cut where they are "
         "longest, got 'windows'"),
        (["data.stride=3"],
         "data.stride: expected no choice without data.truncation 'windows', got 3"),
        (["data.template={title"], "data.template: expected columns as {title}, got '{title' "
         "(expected '}' before end of string)"),
        (["data.template=title"], "data.template: expected a column as {title} in it, got 'title'"),
        (["data.text=[a, b]", "data.template={a}"],
         "data.template: expected just the columns of data.text, ['a', 'b']; it has ['a']"),
        (["data.text_pair=text"], "data.text_pair: expected another column than data.text and "
         "data.label, got 'text' again"),
        (["data.truncation=windows", "data.max_length=8", "data.stride=6"],
         "data.stride: expected fewer tokens than the 6 that a window has for text, got 6"),
        (["data.text=[text, title]", "data.text_pair=body"], None),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(here, capsys, words, message):
    run_here(*words, code=2)
    said = capsys.readouterr().err
    if message is None:
        assert "no column 'title' (data.text) (columns: 'text', 'label')" in said
        assert "no column 'body' (data.text_pair) (columns: 'text', 'label')" in said
    else:
        assert message in said


def test_a_kept_table_is_the_same_and_never_stale(tmp_path, monkeypatch):
    monkeypatch.setattr(token_cache, "WORTH_CACHING", 0)
    tokenizer, calls = tiny_tokenizer("bert"), []
    encode = DocumentFormat.encode
    monkeypatch.setattr(
        DocumentFormat, "encode", lambda *a, **k: calls.append(1) or encode(*a, **k)
    )

    short = DocumentFormat(max_length=12)

    def table(reading=short, texts=TEXTS, seconds=None, by=tokenizer):
        calls.clear()
        found = token_cache.encode(reading, texts, seconds, by, tmp_path)
        plain = encode(reading, texts, seconds, by)
        for name in ("ids", "starts", "full", "first", "kept", "seconds"):
            kept, made = getattr(found, name), getattr(plain, name)
            assert (kept is None and made is None) or np.array_equal(kept, made)
        assert (found.pad_id, found.window_pooling) == (plain.pad_id, plain.window_pooling)
        return "made" if calls else "found"

    windows = DocumentFormat(max_length=12, truncation="windows", stride=3, window_pooling="max")
    assert [table(), table()] == ["made", "found"]
    assert [table(windows), table(windows)] == ["made", "found"]
    assert [table(seconds=TEXTS[::-1]), table(seconds=TEXTS[::-1])] == ["made", "found"]
    assert table(DocumentFormat(max_length=13)) == "made"
    assert table(texts=[*TEXTS[:-1], "one three"]) == "made"
    assert table(texts=["".join(TEXTS[:2]), "", *TEXTS[2:]]) == "made"
    other = tiny_tokenizer("bert")
    other.add_tokens(["two three"])
    assert [table(by=other), table(by=tokenizer)] == ["made", "found"]
    tokenizer(["one"], truncation=True, max_length=5, padding="max_length")  # leaves no trace
    assert table() == "found"
    for broken in tmp_path.glob("tokens-*/ids.bin"):
        content = bytearray(broken.read_bytes())
        content[5] ^= 1
        broken.write_bytes(content)
    assert [table(), table()] == ["made", "found"]
    for broken in tmp_path.glob("tokens-*/table.safetensors"):
        broken.write_bytes(broken.read_bytes()[:30])
    assert [table(), table()] == ["made", "found"]
    assert list(tmp_path.glob(".*")) == []


def test_a_model_says_how_it_reads(tmp_path):
    config = AutoConfig.from_pretrained(tiny_encoder(tmp_path / "encoder"))
    tokenizer = tiny_tokenizer("bert")
    reading = DocumentFormat(
        text=("a", "b"), max_length=9, truncation="windows", stride=1, thresholds=(0.2, 0.5)
    )
    reading.note(config)
    config.save_pretrained(tmp_path)
    back = AutoConfig.from_pretrained(tmp_path)
    assert DocumentFormat.of_model(back, tokenizer, "m") == reading
    back.document["truncation"] = "windings"
    with pytest.raises(InputError, match=r"m/config.json: document.truncation: .*, got 'windings'"):
        DocumentFormat.of_model(back, tokenizer, "m")
    del back.document
    tokenizer.model_max_length = 16
    assert DocumentFormat.of_model(back, tokenizer, "m") == DocumentFormat(max_length=16)
