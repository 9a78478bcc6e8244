"""What the audit says of each way of reading long documents is what reading them so would do."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, pipeline

from finetune.data.corpus import Places, Split
from finetune.reporting import console_report
from finetune.tokenization import truncation_audit
from finetune.tokenization.document_format import DocumentFormat
from tests.support.runs import results, run_here
from tests.support.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer("bert")
CONFIG = BertConfig(hidden_size=32, intermediate_size=64, num_attention_heads=4)
LABELS = ("a", "b", "c")


def audited(texts, reading, labels=None, limit=None, budget=64, seconds=None):
    labels = np.arange(len(texts)) % 3 if labels is None else labels
    split = Split("train", texts, labels, Places("x", range(len(texts)), "row"), "x", seconds)
    encoder = truncation_audit.AuditedEncoder(
        CONFIG, limit, TOKENIZER.num_special_tokens_to_add(), budget, batch_size=4
    )
    return truncation_audit.audit_truncation(
        split, LABELS, reading.encode(texts, seconds, TOKENIZER), reading, encoder
    )


def test_only_rows_with_a_label_of_their_own_count_for_labels():
    texts, labels = ["a b c", "d", "e f g h"], np.array([0, 1, 0])
    split = Split(
        "train", texts, labels, Places("x", range(3), "row"), "x",
        is_labelled=np.array([True, True, False]),
    )  # fmt: skip
    reading = DocumentFormat(max_length=4)
    found = truncation_audit.audit_truncation(
        split, LABELS, reading.encode(texts, None, TOKENIZER), reading,
        truncation_audit.AuditedEncoder(CONFIG, None, 2, 64, batch_size=4),
    )  # fmt: skip
    alone = audited(texts[:2], reading, labels[:2])
    assert [one.classes for one in found] == [one.classes for one in alone]


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(alphabet="abc .,", max_size=90), min_size=1, max_size=6),
    length=st.integers(4, 20),
    stride=st.integers(0, 12),
    most=st.none() | st.integers(1, 3),
    truncation=st.sampled_from(["head", "tail", "head_tail", "windows"]),
)
def test_what_it_says_is_what_reading_so_does(texts, length, stride, most, truncation):
    windows = truncation == "windows"
    reading = DocumentFormat(
        max_length=length,
        truncation=truncation,
        stride=min(stride, length - 3) if windows else 0,
        max_windows=most if windows else None,
    )
    found = audited(texts, reading)
    assert sum(choice.chosen for choice in found) == 1
    for choice in found:
        other = DocumentFormat(
            max_length=choice.max_length,
            truncation="windows" if choice.windows else "tail",
            stride=min(choice.max_length // 4, choice.max_length - 3),
        )
        table = (reading if choice.chosen else other).encode(texts, None, TOKENIZER)
        assert choice.rows_cut == table.truncated
        assert choice.tokens_cut == table.total_lost_tokens
        assert choice.tokens_read == table.lengths.sum()
        assert choice.pieces == len(table.starts) - 1
        assert (choice.rows, choice.tokens) == (len(texts), table.full.sum())
        for key in ("rows_cut", "tokens", "tokens_cut"):
            assert sum(getattr(one, key) for one in choice.classes.values()) == getattr(choice, key)
        if choice.chosen:
            assert (choice.time, choice.memory) == (1, 1)


def test_costs_are_those_of_the_products_and_of_the_largest_micro_batch():
    texts = ["a " * 100] * 8
    short, windows, long = audited(texts, DocumentFormat(max_length=26), limit=128)
    assert [*map(str, (short, windows, long))] == [
        "truncated to 26", "windows of 26", "truncated to 104",
    ]  # fmt: skip

    def products(*pieces):
        return sum(n * (8 * 32**2 + 4 * 32 * 64) + n**2 * 4 * 32 for n in pieces)

    # Of 102 tokens: 26; six windows that share 6 tokens each; or all at once.
    assert windows.time == pytest.approx(products(26, 26, 26, 26, 26, 12) / products(26))
    assert long.time == pytest.approx(products(102) / products(26))
    # 64 tokens at once, or one document: its windows stand in one micro-batch.
    kept = {n: 34 * 32 + 5 * 4 * n for n in (26, 102)}
    assert windows.memory == pytest.approx((5 * 26 + 12) / 64)
    assert long.memory == pytest.approx(102 * kept[102] / (64 * kept[26]))


def test_a_pair_is_never_in_windows_and_several_labels_count_for_each():
    texts = ["a " * n for n in (3, 30, 40)]
    pairs = audited(texts, DocumentFormat(text_pair="b", max_length=12), seconds=texts)
    assert [(c.windows, c.max_length, c.tokens_cut) for c in pairs] == [
        (False, 12, 2 * 73 + 9 - 9 - 24),
        (False, 96, 0),
    ]
    both = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], np.int8)
    several = audited(texts, DocumentFormat(max_length=12), labels=both)[0]
    assert [several.classes[name].rows_cut for name in LABELS] == [0, 1, 0]
    assert several.rows_cut == 2
    assert truncation_audit.most_truncated(several) == (("b", 20 / 37), ("a", 0.0))


def test_nothing_long_nothing_said(capsys):
    [whole] = audited(["a", "b"], DocumentFormat(max_length=12))
    console_report.print_audit([whole])
    assert capsys.readouterr().out == ""
    assert (whole.rows_cut, str(whole)) == (0, "truncated to 12")


def test_a_run_says_what_each_way_would_cut(here, capsys):
    run_here("--dry-run", "data.max_length=8")
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "truncated to 8, as here" in said
    assert "windows of 8 " in said
    assert "loses the largest share of its tokens" in " ".join(said.split())
    run_here("data.max_length=8", "data.truncation=windows", "data.max_windows=2", "run.dir=run",
             "train.epochs=1", "score.every=epoch")  # fmt: skip
    data = results(here / "run")["data"]
    assert data["reading"] == json.loads((here / "run/model/config.json").read_text())["document"]
    [now] = [one for one in data["truncation_audit"] if one["chosen"]]
    assert (now["windows"], now["max_length"]) == (True, 8)
    assert now["rows_cut"] == data["splits"]["train"]["truncated_rows"] > 0
    assert now["tokens_cut"] == data["splits"]["train"]["cut_tokens"]
    page = (here / "run/report.html").read_text()
    assert "windows of 8, as here" in page
    assert "2 windows of 8 tokens that are read" in page
    card = (here / "run/model/README.md").read_text()
    assert "It reads a document in windows of 8 tokens, the first 2 of them" in card


def test_a_model_of_pairs_loads_as_its_card_says(here):
    (here / "pairs").mkdir()
    for split in ("train", "validation", "test"):
        rows = [{"text": f"{split} one {i}", "text_pair": "two " * (i % 5), "label": "xy"[i % 2]}
                for i in range(1, 13) if i % 5]  # fmt: skip
        (here / f"pairs/{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    run_here("data.source=pairs", "data.text_pair=text_pair", "data.max_length=12", "run.dir=run",
             "train.epochs=2", "score.every=epoch")  # fmt: skip
    card = (here / "run/model/README.md").read_text()
    assert 'classify({"text": "A text.", "text_pair": "Its second text."}, truncation=True)' in card
    assert "It reads pairs of texts, 12 tokens together" in card
    classify = pipeline("text-classification", model=str(here / "run/model"), top_k=None,
                        trust_remote_code=True)  # fmt: skip
    lines = (here / "run/predictions/test.jsonl").read_text().splitlines()
    for row, line in zip(rows, map(json.loads, lines), strict=True):
        pair = {"text": row["text"], "text_pair": row["text_pair"]}
        given_back = {one["label"]: one["score"] for one in classify(pair, truncation=True)}
        assert given_back == pytest.approx(line["probabilities"], abs=1e-5)
