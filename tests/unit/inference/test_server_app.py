"""What the server answers: scores as text-embeddings-inference, and the model's decisions."""

import asyncio
import json
import threading

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from finetune.inference import (
    explanation_queue,
    server_app,
    server_guard,
    server_models,
    server_shortcut,
)
from finetune.inference.classifier import Classifier
from finetune.inference.classifier_service import model_name, split_predict_inputs
from finetune.inference.documents import DocumentReader
from finetune.inference.request_batcher import Computed
from finetune.inference.request_error import RequestError
from finetune.inference.server import ServerOptions, make_server
from finetune.inference.server_metrics import PATHS, ServerMetrics
from tests.support.served import LABELS, PATIENCE, read_as, serving, write_classifier

TEXTS = ["the match", "bank share price and tax", "a robot"]


@pytest.fixture(scope="module")
def model(shared):
    return shared("served", write_classifier) / "model"


@pytest.fixture(scope="module")
def classifier(model):
    return Classifier(model, precision="fp32", threads=1)


@pytest.fixture(scope="module")
def served(classifier):
    with serving(classifier) as one:
        yield one


def test_predict_has_the_shapes_of_text_embeddings_inference(served, classifier):
    expected = classifier(TEXTS, probabilities=True)
    for inputs in (TEXTS[0], [TEXTS[0]]):
        one = served.post("/predict", {"inputs": inputs, "truncate": True, "unknown": 1}).json
        assert {row["label"]: row["score"] for row in one} == pytest.approx(
            expected[0]["probabilities"], abs=1e-5
        )
        assert [row["score"] for row in one] == sorted((row["score"] for row in one), reverse=True)
        assert {*one[0]} == {"score", "label"}
    many = served.post("/predict", {"inputs": [[text] for text in TEXTS]}).json
    assert [rows[0]["label"] for rows in many] == [row["label"] for row in expected]
    raw = served.post("/predict", {"inputs": TEXTS[1], "raw_scores": True}).json
    logits = {row["label"]: row["score"] for row in raw}
    softmax = np.exp([logits[label] for label in LABELS])
    assert softmax / softmax.sum() == pytest.approx(
        [*expected[1]["probabilities"].values()], abs=1e-5
    )
    cut = served.post("/predict", {"inputs": "a " * 50, "truncate": False})
    assert cut.status == 422
    assert cut.json == {
        "error": "inputs: row 1 has 52 tokens, and the model reads 32 of them; send a shorter "
        "text, or truncate: true",
        "error_type": "tokenizer",
    }
    refused = served.post("/predict", {"inputs": TEXTS})
    assert refused.status == 422
    assert refused.json["error"] == (
        "inputs: a list of texts is one document, with a text for each column: the model reads 1 "
        'column, got 3 texts; send a batch as [["one"], ["two"]], or a list of documents to '
        "/v1/classify"
    )


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("a", (["a"], False)),
        (["a", "b"], ([["a", "b"]], False)),
        ([["a"], ["b", "c"]], ([["a"], ["b", "c"]], True)),
    ],
)
def test_what_a_request_to_predict_means(inputs, expected):
    assert split_predict_inputs(inputs) == expected


@pytest.mark.parametrize("inputs", [None, 3, [], {}, ["a", ["b"]], [["a"], "b"], [3]])
def test_a_request_without_such_a_shape(inputs):
    with pytest.raises(RequestError) as caught:
        split_predict_inputs(inputs)
    assert caught.value.status == 422


def test_classify_answers_as_the_classifier(served, classifier):
    expected = classifier(TEXTS, probabilities=True)
    found = served.post("/v1/classify", {"inputs": TEXTS, "probabilities": True}).json
    for one, row in zip(found["predictions"], expected, strict=True):
        assert one["label"] == row["label"]
        assert one["probabilities"] == pytest.approx(row["probabilities"], abs=1e-5)
        assert one["tokens"] == one["tokens_read"]
        assert one["windows"] == 1
    for inputs in (TEXTS[0], {"text": TEXTS[0]}, [{"text": TEXTS[0]}], [[TEXTS[0]]]):
        only = served.post("/v1/classify", {"inputs": inputs}).json["predictions"]
        assert [row["label"] for row in only] == [expected[0]["label"]]
        assert "probabilities" not in only[0]
    wrong = served.post("/v1/classify", {"inputs": {"txt": "a"}})
    assert (wrong.status, wrong.json["error"]) == (422, "inputs: row 1: 'text' is missing")
    assert served.post("/v1/classify", {"inputs": "a", "more": 1}).json["error"] == (
        "more: no such key; the keys are: inputs, probabilities, explain"
    )


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/v1/classify", {"input": "a"}, "input: no such key; did you mean 'inputs'?"),
        ("/v1/classify", {}, 'inputs: this key is missing; send {"inputs": "a text"}'),
        ("/predict", {"input": "a"}, 'inputs: this key is missing; send {"inputs": "a text"}'),
        ("/predict", ["a"], 'the body: expected an object; send {"inputs": "a text"}'),
    ],
)
def test_a_body_of_another_shape_is_told_the_right_one(served, path, body, error):
    answer = served.post(path, body)
    assert (answer.status, answer.json["error"]) == (422, error)


def test_which_words_spoke_for_an_answer(served, classifier, monkeypatch):
    rows = {"inputs": [*TEXTS, ""], "explain": 2}
    found = served.post("/v1/classify", rows).json["predictions"]
    for one, text, expected in zip(found, TEXTS, classifier.explain(TEXTS, 2), strict=False):
        assert [(w["start"], w["end"]) for w in one["explanation"]] == [
            (w["start"], w["end"]) for w in expected["explanation"]
        ]
        assert all(text[w["start"] : w["end"]] == w["word"] for w in one["explanation"])
    assert found[3]["explanation"] is None
    assert "explanation" not in served.post("/v1/classify", {"inputs": "a"}).json["predictions"][0]

    def refused(request):
        answer = served.post("/v1/classify", request)
        return answer.status, answer.json["error"]

    assert refused({"inputs": ["a"] * 17, "explain": 1}) == (
        413,
        "explain: expected at most 16 rows, got 17; send them in several requests",
    )
    assert refused({"inputs": "a", "explain": 101})[0] == 422
    monkeypatch.setattr(explanation_queue, "MOST_TOKENS", 9)
    assert refused({"inputs": TEXTS, "explain": 1}) == (
        413,
        "explain: expected at most 9 tokens in all rows together, got "
        f"{classifier.encode(DocumentReader(classifier.reading).read(TEXTS)).lengths.sum()}; send "
        "them in several requests, or shorter ones",
    )
    monkeypatch.setattr(classifier, "engine_name", "onnx")
    assert refused({"inputs": "a", "explain": 1})[0] == 422


def test_few_explanations_wait(classifier):
    queue = explanation_queue.ExplanationQueue(classifier)
    for _ in range(explanation_queue.MOST_REQUESTS):
        assert queue._room.acquire(blocking=False)
    found = Computed(classifier.encode([]), None)
    with pytest.raises(RequestError, match="4 requests wait already; try again in 5 s") as caught:
        asyncio.run(queue.explain([], found, [], 1))
    assert (caught.value.status, caught.value.retry_after) == (429, 5)
    queue._room.release()
    assert asyncio.run(queue.explain([], found, [], 1)) == []
    queue.close()
    with pytest.raises(RequestError, match="the server stops"):
        asyncio.run(queue.explain([], found, [], 1))
    assert queue._room.acquire(blocking=False)


def test_what_nobody_waits_for_is_given_up(classifier, monkeypatch):
    """A client that goes while its first document is explained costs no more than that one."""
    reached, opened, explained = threading.Event(), threading.Event(), []

    def explain(classifier, rows, *rest):
        explained.extend(rows)
        reached.set()
        assert opened.wait(PATIENCE)
        return [{}]

    monkeypatch.setattr(explanation_queue, "add_explanations", explain)
    queue = explanation_queue.ExplanationQueue(classifier)
    records = DocumentReader(classifier.reading).read(TEXTS)
    found = Computed(classifier.encode(records), None)

    async def ask_and_leave():
        asked = asyncio.ensure_future(queue.explain(records, found, [{}] * len(TEXTS), 1))
        await asyncio.to_thread(reached.wait, PATIENCE)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(ask_and_leave())
    opened.set()
    queue.close()
    assert explained == records[:1]
    assert queue._room._value == explanation_queue.MOST_REQUESTS


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": ["the match", ""], "probabilities": true}',
        b'{"inputs": ""}',
        b'{"inputs": []}',
        b'{"inputs": "a", "more": 1}',
        b'{"inputs": "a", "probabilities": "yes"}',
        b'{"inputs": NaN}',
        b"[]",
        b'{"inputs": ',
        b'{"inputs": "\xff"}',
        b'{"inputs": ' + b"[" * 100_000,
    ],
)
def test_the_shortcut_answers_as_fastapi_does(served, body):
    ordinary = served.post("/v1/classify", body)
    whole = served.post("/v1/classify", body, {"Content-Type": "application/json; charset=utf-8"})
    assert (ordinary.status, ordinary.body) == (whole.status, whole.body)
    assert {*ordinary.headers} == {*whole.headers}


def test_which_requests_take_the_shortcut():
    """A POST of JSON to one of its paths, without a query; the application gets all others."""
    seen = []

    async def app(scope, receive, send):
        seen.append("the application")

    async def answer(request):
        seen.append(request.inputs)
        return {}

    async def receive():
        return {"type": "http.request", "body": b'{"inputs": "a"}'}

    async def send(message):
        pass

    endpoint = server_shortcut.Endpoint(server_models.ClassifyRequest, answer)
    shortcut = server_shortcut.Shortcut(app, {"/v1/classify": endpoint})
    ordinary = {
        "type": "http",
        "method": "POST",
        "path": "/v1/classify",
        "query_string": b"",
        "headers": [(b"host", b"a"), (b"content-type", b"application/json")],
    }
    twice = {"headers": [(b"content-type", b"text/plain"), *ordinary["headers"]]}
    others = ({"method": "GET"}, {"path": "/"}, {"query_string": b"a=b"}, {"headers": []}, twice)
    for changed in ({}, *others, {"type": "lifespan"}):
        asyncio.run(shortcut(ordinary | changed, receive, send))
    assert seen == ["a", *["the application"] * 6]


def test_windows_abstention_thresholds_and_pairs(model, tmp_path):
    long = " ".join(TEXTS * 5)
    document = {"max_length": 12, "truncation": "windows", "stride": 3, "abstain_below": 0.999999}
    folder = read_as(model, tmp_path / "windows", **document)
    with serving(Classifier(folder, precision="fp32", threads=1)) as one:
        (found,) = one.post("/v1/classify", {"inputs": long}).json["predictions"]
        assert found["label"] is None
        assert found["windows"] > 3
        assert found["tokens_read"] == found["tokens"]
        assert one.ask("GET", "/info").json["abstain_below"] == 0.999999
    folder = read_as(model, tmp_path / "pairs", text_pair="claim", thresholds=[0.0, 1.0, 0.0])
    config = json.loads((folder / "config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (folder / "config.json").write_text(json.dumps(config))
    with serving(Classifier(folder, precision="fp32", threads=1)) as one:
        rows = [{"text": "the match", "claim": "a rate"}, ["the match", "a rate"], "the match"]
        found = one.post("/v1/classify", {"inputs": rows}).json["predictions"]
        assert {*found[0]["labels"]} == {"sports", "tech"}
        assert found[0] == found[1]
        assert found[2]["error"] == (
            "inputs: row 3: expected a row with the columns text, claim, got 'the match'"
        )
        pair = one.post("/predict", {"inputs": ["the match", "a rate"]}).json
        assert {row["label"] for row in pair} == {*LABELS}
        assert one.post("/predict", {"inputs": "the match"}).status == 422
        info = one.ask("GET", "/info").json
        assert info["columns"] == ["text", "claim"]
        assert info["thresholds"] == {"sports": 0.0, "money": 1.0, "tech": 0.0}
        assert info["model_type"]["classifier"]["id2label"] == dict(zip("012", LABELS, strict=True))


def test_logits_that_are_not_finite(served, classifier, monkeypatch):
    whole = classifier.engine.logits

    def broken(table):
        return np.where(np.arange(len(table))[:, None] == 0, np.nan, whole(table))

    monkeypatch.setattr(classifier.engine, "logits", broken)
    found = served.post("/v1/classify", {"inputs": TEXTS[:2]}).json["predictions"]
    assert "not finite" in found[0]["error"]
    assert found[1]["label"] in LABELS
    refused = served.post("/predict", {"inputs": TEXTS[0]})
    assert (refused.status, refused.json["error_type"]) == (424, "backend")


def test_the_description_names_every_path_and_the_page_shows_it(served):
    api = served.ask("GET", "/openapi.json").json
    assert {*api["paths"]} == {*PATHS} - {"/", "/openapi.json"}
    for path in ("/predict", "/v1/classify"):
        route = api["paths"][path]["post"]
        assert {"200", "400", "401", "413", "422", "424", "429", "503"} <= {*route["responses"]}
        assert route["security"] == [{"HTTPBearer": []}]
    page = served.ask("GET", "/").body.decode()
    for path in api["paths"]:
        assert f"{path}</code>" in page
    for path, (_, example) in server_app.EXAMPLES.items():
        assert served.post(path, example.encode()).status == 200


def test_metrics_count_requests_rows_and_batches(classifier):
    with serving(classifier) as one:
        assert one.post("/v1/classify", {"inputs": [*TEXTS, None]}).status == 200
        assert one.ask("GET", "/a/b").status == 404
        assert one.metric('finetune_requests_total{path="/v1/classify",status="200"}') == 1
        assert one.metric('finetune_requests_total{path="other",status="404"}') == 1
        assert one.metric("finetune_rows_total") == 4
        assert one.metric("finetune_row_errors_total") == 1
        assert one.metric("finetune_batch_rows_sum") == 3
        assert one.metric("finetune_tokens_total") == one.metric("finetune_batch_tokens_sum") > 9
        assert one.metric("process_resident_memory_bytes") > 2**20
    content, kind = ServerMetrics(lambda: 7).render()
    assert b"finetune_held_rows 7.0" in content
    assert kind.startswith("text/plain")


def test_an_error_is_written_as_its_type_says():
    body = server_guard.error_body(429, "the queue is full")
    assert server_models.ErrorResponse(**body).error_type == "overloaded"


def test_what_clients_are_told_of_where_the_model_is(tmp_path):
    (tmp_path / "news/model").mkdir(parents=True)
    assert model_name(str(tmp_path / "news/model")) == "news"
    assert model_name(str(tmp_path / "news")) == "news"
    assert model_name("you/news") == "you/news"


def test_a_websocket_is_closed(classifier):
    import asyncio

    sent = []

    async def send(message):
        sent.append(message)

    guard = make_server(classifier, ServerOptions("x")).config.app
    asyncio.run(guard({"type": "websocket", "path": "/"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
