"""Requests of many threads are computed together, in bounds; one that fails costs no other."""

import threading

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="the extra `serve` is not installed")

from finetune.inference import request_batcher
from finetune.inference.classifier import Classifier
from finetune.inference.documents import DocumentReader
from finetune.inference.request_batcher import (
    ClosingError,
    QueueFullError,
    QueueLimits,
    RequestBatcher,
)
from tests.support.served import PATIENCE, Gate, read_as, wait_for, write_classifier

TEXTS = ["the match", "bank share price and tax", "a robot", "the team", "a rate", "space"]


@pytest.fixture(scope="module")
def model(shared):
    return shared("served", write_classifier) / "model"


@pytest.fixture
def classifier(model):
    return Classifier(model, precision="fp32", threads=1)


def read(classifier, *texts):
    return DocumentReader(classifier.reading).read(texts)


@pytest.fixture
def start(classifier):
    """Makes a batcher that is closed at the end."""
    made = []

    def make(observe=lambda batch: None, **limits):
        made.append(RequestBatcher(classifier, QueueLimits(**limits), observe))
        return made[-1]

    yield make
    for one in made:
        one.close()


def queued(batcher):
    return len(batcher._queue)


def test_what_waits_is_computed_together_and_like_each_alone(classifier, start, monkeypatch):
    rows = [read(classifier, text) for text in TEXTS]
    alone = [classifier.engine.logits(classifier.encode(row)) for row in rows]
    gate, batches = Gate(classifier, monkeypatch), []
    batcher = start(batches.append)
    first = batcher.submit(rows[0])
    gate.wait()
    others = [batcher.submit(row) for row in rows[1:]]
    wait_for(lambda: queued(batcher) == len(others))
    gate.open()
    for future, expected in zip([first, *others], alone, strict=True):
        np.testing.assert_allclose(future.result().logits, expected, atol=1e-5)
    wait_for(lambda: len(batches) == 2)
    assert gate.calls == [1, 5]
    assert [(batch.requests, batch.rows) for batch in batches] == [(1, 1), (5, 5)]
    assert batches[1].tokens == sum(int(classifier.encode(row).full[0]) for row in rows[1:])


def test_a_batch_keeps_to_its_tokens(classifier, start, monkeypatch):
    """A request of more is a batch of its own, and nobody overtakes it."""
    gate = Gate(classifier, monkeypatch)
    batcher = start(tokens=8)  # "the match" has 4
    first = batcher.submit(read(classifier, "the match"))
    gate.wait()
    asked = [["the match"], ["the match"], ["the match"] * 3, ["the match"], ["the match"]]
    futures = [batcher.submit(read(classifier, *texts)) for texts in asked]
    wait_for(lambda: queued(batcher) == len(futures))
    gate.open()
    assert [len(future.result().logits) for future in [first, *futures]] == [1, 1, 1, 3, 1, 1]
    assert gate.calls == [1, 2, 3, 2]


def test_windows_and_pairs_are_computed_together(model, tmp_path, monkeypatch):
    long = " ".join(TEXTS * 4)
    for name, document, rows in (
        ("windows", {"max_length": 12, "truncation": "windows", "stride": 3}, [long, "a rate"]),
        ("pairs", {"text_pair": "claim"}, [("the team", "a rate"), ("space", "a robot")]),
    ):
        classifier = Classifier(
            read_as(model, tmp_path / name, **document), precision="fp32", threads=1
        )
        expected = [one["label"] for one in classifier(rows)]
        with monkeypatch.context() as patch:
            gate, batcher = Gate(classifier, patch), RequestBatcher(classifier, QueueLimits())
            first = batcher.submit(read(classifier, rows[0]))
            gate.wait()
            futures = [batcher.submit(read(classifier, row)) for row in rows]
            wait_for(lambda batcher=batcher: queued(batcher) == 2)
            gate.open()
            logits = np.concatenate([future.result().logits for future in futures])
            batcher.close()
        assert gate.calls == [1, 2]
        assert [classifier.labels[i] for i in logits.argmax(axis=1)] == expected
        np.testing.assert_allclose(first.result().logits, logits[:1], atol=1e-5)


def test_the_queue_is_bounded_by_rows_and_by_characters(classifier, start, monkeypatch):
    gate = Gate(classifier, monkeypatch)
    batcher = start(rows=3, characters=40)
    large = batcher.submit(read(classifier, *["the match"] * 9))  # alone, it may be larger
    gate.wait()
    with pytest.raises(QueueFullError) as caught:
        batcher.submit(read(classifier, "the match"))
    assert caught.value.retry_after == 1  # nothing is known of the rate yet
    gate.open()
    large.result()
    wait_for(lambda: batcher.held_rows == 0)
    gate._open.clear()
    gate._reached.clear()
    some = batcher.submit(read(classifier, "the match"))
    gate.wait()
    with pytest.raises(QueueFullError):
        batcher.submit(read(classifier, "x" * 32))
    more = batcher.submit(read(classifier, "x" * 31))
    gate.open()
    assert len(some.result().logits) == len(more.result().logits) == 1


def test_what_was_cancelled_is_not_computed(classifier, start, monkeypatch):
    gate = Gate(classifier, monkeypatch)
    batcher = start()
    first = batcher.submit(read(classifier, "the match"))
    gate.wait()
    gone, other = (batcher.submit(read(classifier, *TEXTS[:n])) for n in (3, 2))
    wait_for(lambda: queued(batcher) == 2)
    tokens = batcher._queued_tokens
    assert gone.cancel()
    assert batcher.held_rows == 3
    # Neither its place nor its memory is held until a batch would take it.
    assert queued(batcher) == 1
    assert 0 < batcher._queued_tokens < tokens
    gate.open()
    assert len(other.result().logits) == 2
    assert len(first.result().logits) == 1
    assert gate.calls == [1, 2]


def test_a_request_that_fails_costs_no_other(classifier, start, monkeypatch):
    whole = classifier.engine.logits
    poisoned = len(classifier.encode(read(classifier, "x" * 20)).ids)

    def fail(table):
        if (table.lengths == poisoned).any():
            raise RuntimeError("no")
        return whole(table)

    monkeypatch.setattr(classifier.engine, "logits", fail)
    gate = Gate(classifier, monkeypatch)
    batcher = start()
    first = batcher.submit(read(classifier, "the match"))
    gate.wait()
    bad, good = (batcher.submit(read(classifier, text)) for text in ("x" * 20, "a rate"))
    wait_for(lambda: queued(batcher) == 2)
    gate.open()
    assert isinstance(bad.exception(), RuntimeError)
    assert len(good.result().logits) == len(first.result().logits) == 1
    assert batcher.held_rows == 0


def test_a_tokenizer_that_fails_and_rows_that_are_all_wrong(classifier, start, monkeypatch):
    batcher = start()
    nothing = batcher.submit(read(classifier, None, "")).result()
    assert (len(nothing.table), nothing.logits) == (0, None)

    class PanicException(BaseException):  # as a library in Rust raises it
        pass

    for raised, told in ((ValueError, ValueError), (PanicException, RuntimeError)):

        def fail(rows, raised=raised):
            raise raised("no")

        with monkeypatch.context() as patch:
            patch.setattr(classifier, "encode", fail)
            found = batcher.submit(read(classifier, "a")).exception(timeout=PATIENCE)
            assert type(found) is told
        assert len(batcher.submit(read(classifier, "a")).result(timeout=PATIENCE).logits) == 1


def test_what_arrives_meanwhile_is_tokenized_in_one_call(classifier, start, monkeypatch):
    """Only as many characters at once; where a call fails, each request is tried alone."""
    whole, calls, reached, go_on = classifier.encode, [], threading.Event(), threading.Event()

    def encode(rows):
        calls.append(len(rows))
        reached.set()
        assert go_on.wait(PATIENCE)
        if any("x" * 20 in text for row in rows for text in row.texts):
            raise ValueError("no")
        return whole(rows)

    monkeypatch.setattr(classifier, "encode", encode)
    monkeypatch.setattr(request_batcher, "ENCODED_CHARACTERS", 60)
    batcher = start()
    first = batcher.submit(read(classifier, "the match"))
    assert reached.wait(PATIENCE)
    asked = [["a rate", None, "space"], ["a robot"], ["x" * 20], ["y" * 50], ["the team"]]
    futures = [batcher.submit(read(classifier, *texts)) for texts in asked]
    go_on.set()
    found = [None if future.exception() else len(future.result().logits) for future in futures]
    assert found == [2, 1, None, 1, 1]
    assert isinstance(futures[2].exception(), ValueError)
    assert calls == [1, 5, 3, 1, 1, 2]
    alone = classifier.engine.logits(whole(read(classifier, "the team")))
    np.testing.assert_allclose(futures[4].result().logits, alone, atol=1e-5)
    assert len(first.result().logits) == 1


def test_closing_finishes_what_was_taken(classifier, start, monkeypatch):
    gate = Gate(classifier, monkeypatch)
    batcher = start(wait=3600)  # closing waits for no others
    futures = [batcher.submit(read(classifier, text)) for text in TEXTS]
    gate.open()
    batcher.close()
    assert all(len(future.result().logits) == 1 for future in futures)
    with pytest.raises(ClosingError):
        batcher.submit(read(classifier, "a"))
    batcher.close()
