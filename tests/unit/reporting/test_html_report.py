"""The report of a run whose documents and labels try to break it, in a real browser."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from finetune.reporting import html_report
from finetune.reporting.results_model import read_results
from tests.support import forks
from tests.support.browser import Browser, chromium
from tests.support.runs import results, run_here
from tests.support.tiny import WORDS, tiny_encoder
from tests.unit.reporting.made import made_results

PLANTED = "<script>window.planted = 1; fetch('http://example.com/x')</script>"
LABELS = (f"war{PLANTED}", 'art" onmouseover="window.planted = 2', "sea & <b>sand</b>")

needs_chromium = pytest.mark.skipif(chromium() is None, reason="no Chromium is installed here")


@pytest.fixture(scope="session")
def run(shared):
    """A run on documents with scripts in their texts and in their labels, some of them long."""
    return shared("hostile", train_on_scripts) / "run"


def train_on_scripts(folder):
    tiny_encoder(folder / "encoder")
    (folder / "data").mkdir()
    for split, rows in {"train": 60, "validation": 24, "test": 30}.items():
        with (folder / "data" / f"{split}.jsonl").open("w") as out:
            for i in range(rows):
                words = [WORDS[(i * k) % 60] for k in range(1, 3 + i % 40)]
                text = f"{split} {i} {PLANTED} {' '.join(words)} <img src=x onerror='planted=3'>"
                out.write(json.dumps({"text": text, "label": LABELS[i % 3]}) + "\n")
    (folder / "tiny.yaml").write_text(
        "data: {source: data, max_length: 32}\nmodel: {source: encoder}\n"
        "train: {epochs: 2, batch_size: 8, log_every: 2, precision: fp32, threads: 1}\n"
        "score: {every: 3}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_here("run.dir=run")


class Reader(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def test_what_is_planted_stays_text(run):
    tags = Reader((run / "report.html").read_text(encoding="utf-8")).tags
    assert len(tags) > 300
    assert sum(tag == "script" for tag, _ in tags) == 1
    assert not any(tag in ("img", "b") and attributes for tag, attributes in tags)
    assert not any(name.startswith("on") for _, attributes in tags for name in attributes)
    links = [a[n] for _, a in tags for n in ("src", "href", "xlink:href", "action") if a.get(n)]
    beside = {  # of the run's folder, which may move
        "recipe.yaml", "results.json", "metrics.jsonl", "predictions/test.jsonl", "model/README.md",
        "preflight.json",
    }  # fmt: skip
    files = {link for link in links if link[0] != "#" and link != "data:,"}
    assert files == beside
    assert all((run / file).is_file() for file in files)


def test_charts_have_axes_and_text_alternatives(run):
    text = (run / "report.html").read_text(encoding="utf-8")
    found = re.findall(r'<svg class="chart".*?</svg>', text, re.DOTALL)
    assert len(found) >= 8
    for chart in found:
        names = re.search(r'aria-labelledby="(\S+) (\S+)"', chart)
        assert f'<title id="{names[1]}">' in chart
        assert re.search(rf'<desc id="{names[2]}">[^<]{{5,}}</desc>', chart)
        assert "nan" not in chart.lower()
    assert sum('class="axis"' in chart for chart in found) >= 7
    ids = re.findall(r'\bid="(\S+?)"', text)
    assert len(ids) == len(set(ids))


def test_it_shows_the_numbers_of_the_results(run):
    text, found = (run / "report.html").read_text(encoding="utf-8"), results(run)
    low, high = found["test"]["intervals"]["accuracy"]
    for number in (found["test"]["accuracy"], found["validation"]["f1_macro"]):
        assert f"{number:.4f}" in text
    assert f"{low:.4f} to {high:.4f}" in text
    assert f"{found['calibration']['test']['after']['ece']:.4f}" in text
    assert len(found["mistakes"]) == min(20, 30 - round(30 * found["test"]["accuracy"]))
    assert found["hashes"]["weights"] in text
    assert (
        html_report.render(read_results(run), [], "") != text
    )  # a run that has no log still gives a page


def test_it_is_drawn_anew_from_the_run_s_files(run, tmp_path):
    run = shutil.copytree(run, tmp_path / "run")
    whole = (run / "report.html").read_text(encoding="utf-8")
    (run / "report.html").unlink()
    done = forks.run("scripts.report", run, cwd=run)
    assert done.returncode == 0, done.stderr
    assert (run / "report.html").read_text(encoding="utf-8") == whole
    done = forks.run("scripts.report", run / "model", cwd=run)
    assert (done.returncode, done.stderr) == (
        2, f"error: {run / 'model'}: expected the folder of a finished run, found no results.json "
        "in it\n",
    )  # fmt: skip


@needs_chromium
def test_in_a_real_browser(run):
    with Browser() as browser:
        for width, dark in ((1280, False), (360, False), (360, True)):
            browser.open(run / "report.html", width, dark)
            assert browser.problems == []
            assert browser.value("typeof window.planted") == "undefined"
            wide = browser.value("document.documentElement.scrollWidth")
            assert wide <= width, (width, wide)
        assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(22, 22, 20)"
        # Ours is the only address that was asked for.
        assert {url.split(":")[0] for url in browser.requests} <= {"file", "data"}
        assert sum(url.startswith("file:") for url in browser.requests) == 3
        labels = "[...document.querySelectorAll('#classes .sortable tbody')[0].rows]"
        assert sorted(browser.value(f"{labels}.map((row) => row.cells[0].textContent)")) == sorted(
            LABELS
        )
        shown = f"{labels}.map((row) => Number(row.cells[5].dataset.value))"
        head = "document.querySelectorAll('#classes .sortable thead th')[5]"
        browser.value(f"{head}.querySelector('button').click()")
        assert browser.value(shown) == sorted(browser.value(shown), reverse=True)
        browser.value(f"{head}.querySelector('button').click()")
        assert browser.value(shown) == sorted(browser.value(shown))
        assert browser.value(f"{head}.getAttribute('aria-sort')") == "ascending"
        printed = browser.call("Page.printToPDF")["data"]
        assert len(printed) > 20_000
        assert browser.problems == []


@needs_chromium
def test_the_browser_would_tell(tmp_path):
    """What the test above counts on: a page that misbehaves is seen to."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<script>console.error('x'); fetch('http://127.0.0.1:9/y').catch(() => 0)</script>"
    )
    with Browser() as browser:
        browser.open(bad)
        browser.value("1")
        assert browser.problems
        assert "http://127.0.0.1:9/y" in browser.requests


@pytest.mark.parametrize("classes", [2, 40, 250])
def test_runs_of_any_number_of_labels(classes):
    """The page of made-up results, as of a run with many labels and one without a mistake."""
    made = made_results(classes, test_noise=0.3 if classes > 2 else 0.0)
    assert (made.confusion is None) == (classes > 200)
    text = html_report.render(made, [])
    assert ('class="heat"' in text) == (classes <= 30)
    assert text.count("<tr") > 2 * classes


def test_what_is_between_backticks_is_code():
    assert html_report.mark_code("Run `finetune compare 'a<b>'`, <i>now</i>.") == (
        "Run <code>finetune compare &#39;a&lt;b&gt;&#39;</code>, &lt;i&gt;now&lt;/i&gt;."
    )
    text = html_report.render(made_results(2, test_noise=0.3), [])
    assert "<code>finetune suspects" in text
    assert "`finetune" not in text
