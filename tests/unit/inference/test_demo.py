"""The page to try texts on: what it says, in a real browser, and that it asks nobody else."""

import contextlib
import dataclasses
import json
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from html.parser import HTMLParser

import pytest

pytest.importorskip("gradio", reason="the extra `demo` is not installed")

from finetune.evaluation.hierarchy import path_of
from finetune.inference import demo
from finetune.inference.classifier import Classifier
from finetune.runtime.errors import InputError
from tests.support.browser import Browser, chromium
from tests.support.processes import ENVIRONMENT, ROOT
from tests.support.runs import run_here
from tests.support.tiny import WORDS

LONG = " ".join(WORDS)  # far more than the 32 tokens that are read
PLANTED = "<img src=x onerror='window.planted = 1'> ${window.planted = 2} {{ 7 * 7 }}"

# Any word to another machine ends the server.
GUARDED = """
import os, runpy, socket, sys
connect = socket.socket.connect
def guarded(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "localhost", "::1"):
        print("asked", address, flush=True)
        os._exit(99)
    return connect(self, address)
socket.socket.connect = guarded
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="session")
def run(documents, shared):
    def train(folder):
        with contextlib.chdir(documents):
            run_here("run.dir=shown", "train.epochs=1")

    return shared("documents/shown", train)


@pytest.fixture(scope="module")
def classifier(run):
    return Classifier(run)


class Reader(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_a_short_text_is_read_whole(classifier):
    seen = demo.inspect_texts(classifier, ["A team and a goal."])
    answer = classifier(["A team and a goal."], probabilities=True)[0]
    assert list(seen.predicted) == [answer["label"]] == list(seen.probabilities)[:1]
    assert seen.probabilities == answer["probabilities"]
    assert list(seen.probabilities.values()) == sorted(seen.probabilities.values(), reverse=True)
    assert seen.tokens == seen.read == seen.windows[0].tokens == 8
    assert [window.text for window in seen.windows] == ["a team and a goal ."]
    said = Reader(demo.as_html(seen)).text
    assert said.startswith(f"{answer['label']} {100 * answer['score']:.1f} %")
    assert "The whole text: 8 tokens, special ones included." in said


def test_what_is_cut_off_is_said(classifier):
    seen = demo.inspect_texts(classifier, [LONG])
    assert (seen.tokens, seen.read, len(seen.windows)) == (len(WORDS) + 2, 32, 1)
    assert seen.windows[0].text == " ".join(WORDS[:30])
    assert (
        f"32 of {len(WORDS) + 2} tokens: the document is longer than the model reads. "
        f"{len(WORDS) - 30} tokens were not read."
    ) in Reader(demo.as_html(seen)).text


def test_windows_and_what_each_says_alone(documents, monkeypatch):
    monkeypatch.chdir(documents)
    run_here("run.dir=in-windows", "train.max_steps=6", "data.truncation=windows", "data.stride=10")
    classifier = Classifier(documents / "in-windows")
    seen = demo.inspect_texts(classifier, [LONG])
    assert seen.tokens == seen.read == len(WORDS) + 2
    assert [window.tokens for window in seen.windows] == [32] * 5 + [len(WORDS) - 100 + 2]
    assert [window.text for window in seen.windows] == [
        " ".join(WORDS[start : start + 30]) for start in range(0, 101, 20)
    ]
    alone = [demo.inspect_texts(classifier, [window.text]) for window in seen.windows]
    for window, other in zip(seen.windows, alone, strict=True):
        assert window.label == next(iter(other.probabilities))
        assert window.score == pytest.approx(other.probabilities[window.label], abs=1e-5)
    said = Reader(demo.as_html(seen)).text
    assert f"{seen.tokens} of {seen.tokens} tokens, in 6 windows that overlap." in said
    assert f"Window 2, 32 tokens; alone: {seen.windows[1].label} " in said
    assert "not read" not in said


def test_a_model_may_abstain(classifier, monkeypatch):
    monkeypatch.setattr(classifier, "rules", dataclasses.replace(classifier.rules, abstain_below=1))
    seen = demo.inspect_texts(classifier, [LONG])
    assert list(seen.predicted) == []
    best, score = next(iter(seen.probabilities.items()))
    assert Reader(demo.as_html(seen)).text.startswith(
        f"No label: {best} is the most probable, with {100 * score:.1f} %; this model abstains "
        "below 100.0 %."
    )


def test_labels_with_levels_show_each(classifier, monkeypatch):
    labels = ("a/x", "a/y", "b")
    rules = dataclasses.replace(classifier.rules, hierarchy="/", labels=labels)
    monkeypatch.setattr(classifier, "rules", rules)
    seen = demo.inspect_texts(classifier, [LONG])
    (label,) = seen.predicted
    assert [name for name, _ in seen.levels] == [*path_of(label, "/")]
    said = ", ".join(f"{name} {100 * value:.1f} %" for name, value in seen.levels)
    assert f"By level: {said}" in Reader(demo.as_html(seen)).text
    assert "By level" not in Reader(demo.as_html(dataclasses.replace(seen, levels=()))).text


def test_several_labels_or_none(classifier, monkeypatch):
    for thresholds, given in (((0.0, 1.0, 0.0), 2), ((1.0, 1.0, 1.0), 0)):
        rules = dataclasses.replace(classifier.rules, multi_label=True, thresholds=thresholds)
        monkeypatch.setattr(classifier, "rules", rules)
        seen = demo.inspect_texts(classifier, [LONG])
        assert len(seen.predicted) == given
        said = Reader(demo.as_html(seen)).text
        assert said.startswith("No label: none is probable enough.") is (given == 0)


def test_texts_and_labels_stay_text():
    label = "war<script>planted()</script>"
    probabilities = {label: 0.6, **{f"label {i}": 0.01 for i in range(40)}}
    windows = [demo.Window(PLANTED, 9, label, 0.5) for _ in range(25)]
    seen = demo.Inspection([label], probabilities, None, False, 900, 225, windows)
    page = Reader(demo.as_html(seen))
    assert not any(tag in ("img", "script") for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count(label) == 2 + 20
    assert "21 less likely labels are not shown." in page.text
    assert "225 of 900 tokens, in 25 windows that overlap. 675 tokens were not read." in page.text
    assert f"Window 20, 9 tokens; alone: {label} 50.0 % {PLANTED}" in page.text
    assert "5 more windows are not shown." in page.text


def test_a_port_that_cannot_be(classifier):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError) as caught:
            demo.show(classifier, "model", port)
    assert str(caught.value) == f"--port: {port} is not free; choose another"
    with pytest.raises(InputError) as caught:
        demo.show(classifier, "model", 70000)
    assert str(caught.value) == "--port: expected a number from 1 to 65535, got 70000"


def test_without_gradio(monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        demo.require_gradio()
    assert str(caught.value) == "Gradio is not installed; pip install 'finetune-documents[demo]'"


@pytest.fixture(scope="module")
def pairs(run, tmp_path_factory):
    """The same model, which reads two columns."""
    folder = tmp_path_factory.mktemp("demo") / "pairs"
    shutil.copytree(run / "model", folder)
    config = json.loads((folder / "config.json").read_text())
    config["document"] |= {"text": ["premise"], "text_pair": "claim"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_pair_is_shown_as_two_texts(pairs):
    classifier = Classifier(pairs)
    seen = demo.inspect_texts(classifier, ["A team.", "A goal."])
    answer = classifier([{"premise": "A team.", "claim": "A goal."}], probabilities=True)[0]
    assert seen.probabilities == answer["probabilities"]
    assert [window.text for window in seen.windows] == ["a team .\n\na goal ."]
    assert seen.tokens == seen.read == 9
    with pytest.raises(InputError, match="this page: document 1: 'claim' is empty"):
        demo.inspect_texts(classifier, ["A team.", " "])


@contextmanager
def serving(folder):
    """The page as a user starts and ends it; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = str(ROOT / "scripts" / "serve_demo.py")
    process = subprocess.Popen(
        [sys.executable, "-c", GUARDED, script, str(folder), "--port", str(port)],
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert select.select([process.stdout], [], [], 300)[0]
        line = process.stdout.readline()
        address = re.fullmatch(r".*: (http://127\.0\.0\.1:\d+/)  \(Ctrl-C ends it\)\n", line)[1]
        assert address == f"http://127.0.0.1:{port}/"
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=120)[0]
    assert (process.returncode, rest) == (0, "")


def classify(browser, *texts):
    """Type a text into each box, and press the button."""
    for number, text in enumerate(texts):
        browser.value(f"document.querySelector('#text-{number} textarea').select()")
        browser.type(text)
    browser.value("document.querySelector('#classify').click()")


def shows(browser, text):
    browser.wait(f"document.querySelector('#answer').innerText.includes({json.dumps(text)})")


def assert_sound(browser, address):
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")
    assert browser.problems == []
    assert len(browser.requests) > 3
    assert [asked for asked in browser.requests if not asked.startswith(address)] == []


@pytest.mark.skipif(chromium() is None, reason="no Chromium is installed here")
def test_in_a_browser(run, classifier):
    with serving(run) as address, Browser() as browser:
        browser.open(address)
        browser.wait("document.querySelector('#text-0 textarea') !== null")
        for text in ("A team.", PLANTED, LONG):
            classify(browser, text)
            shows(browser, f"{demo.inspect_texts(classifier, [text]).tokens} tokens")
        shown = browser.value("document.querySelector('#answer').innerText")
        assert re.search(r"[abc] \d+\.\d %", shown)
        assert "tokens were not read." in shown
        assert len(browser.value("document.querySelector('#answer ul').innerText.split('%')")) == 4
        assert browser.value("window.planted") is None
        assert_sound(browser, address)


@pytest.mark.skipif(chromium() is None, reason="no Chromium is installed here")
def test_pairs_in_a_browser(pairs):
    with serving(pairs) as address, Browser() as browser:
        browser.open(address)
        browser.wait("document.querySelector('#text-1 textarea') !== null")
        labels = "[...document.querySelectorAll('label span')].map(one => one.innerText)"
        assert browser.value(labels) == ["Premise", "Claim"]
        classify(browser, "A team.")
        shows(browser, "this page: document 1: 'claim' is empty")
        classify(browser, "A team.", "A goal.")
        shows(browser, "The whole text: 9 tokens")
        said = browser.value("document.querySelector('#answer .window').innerText")
        assert [line for line in said.splitlines() if line] == ["9 tokens", "a team .", "a goal ."]
        assert_sound(browser, address)


def test_the_words_that_spoke_for_the_label_are_marked(classifier, monkeypatch):
    text = "the coach and the <b>team</b> win"
    found = demo.inspect_texts(classifier, [text])
    (reason,) = found.reasons
    assert reason.label == found.predicted[0]
    ((column, segments),) = reason.texts
    assert (column, "".join(one.text for one in segments)) == ("", text)
    assert any(one.grade == 3 for one in segments)
    page = demo.as_html(found)
    assert f"<h3>Why {reason.label}</h3>" in page
    assert '<mark class="grade3">' in page
    assert "<b>team" not in page
    monkeypatch.setattr(demo, "EXPLAINED_TOKENS", 3)
    assert not demo.inspect_texts(classifier, [text]).reasons
    monkeypatch.setattr(classifier, "engine_name", "onnx")
    assert not demo.inspect_texts(classifier, ["the coach"]).reasons
