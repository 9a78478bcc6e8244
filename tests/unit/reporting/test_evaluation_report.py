"""What an evaluation says of a model on new rows: sentences, and a page that escapes its data."""

import pytest

from finetune.evaluation.drift import Change, Drift, LengthChange, LengthShare, Share
from finetune.reporting.evaluation_model import SCHEMA, Evaluation
from finetune.reporting.evaluation_report import (
    describe_drift,
    explain_abstention,
    explain_calibration,
    headline,
    render,
)
from finetune.reporting.number_formats import percent, shown_difference, signed
from finetune.reporting.results_model import FindingSummary
from tests.unit.reporting.made import made_results


def change(label, before, after, p):
    sides = [
        Share(rows=rows, of=100, share=rows / 100, interval=(0, 1)) for rows in (before, after)
    ]
    return Change(label=label, before=sides[0], after=sides[1], p=p,
                  difference=(after - before) / 100, interval=(-0.2, 0.05))  # fmt: skip


def drift(p=0.5):
    return Drift(
        before=100, after=100, tests=4, accuracy=change(None, 90, 80, p),
        shares=[change("<b>", 30, 50, p)], recalls=[change("<b>", 90, 70, p)],
        lengths=LengthChange(
            median_before=20, median_after=45, p=p,
            buckets=[LengthShare(shortest=0, longest=20, before=50, after=10,
                                 difference=-0.4, interval=(-0.51, -0.28)),
                     LengthShare(shortest=21, longest=None, before=50, after=90,
                                 difference=0.4, interval=(0.28, 0.51))],
        ),
    )  # fmt: skip


def evaluation(**changes):
    made = made_results()
    analysis = {
        name: getattr(made, name)
        for name in ("validation", "test", "thresholds", "calibration", "abstention", "analysed",
                     "classes", "confusion", "confused_pairs", "lengths", "truncation", "mistakes")
    }  # fmt: skip
    data = {
        "source": "<i>june</i>.csv", "labels": made.data.labels, "multi_label": False,
        "splits": {"test": made.data.splits["test"]}, "reading": made.data.reading,
        "unknown_labels": {}, "hash": "0f",
        "findings": [FindingSummary(kind="empty", split="june.csv", count=1, places=["x"],
                                    rule="left out", other="", message="<script>1</script>")],
    }  # fmt: skip
    model = {"source": "runs/a", "run": "runs/a", "max_length": 64, "engine": ["fp32"],
             "identity": "1a"}  # fmt: skip
    given = {
        "started": "2026-11-29T12:00:00", "seconds": 1.0, "model": model, "data": data,
        "drift": drift(), "is_test_of_run": False, "machine": made.machine,
        "versions": made.versions, "baselines": None, **analysis, **changes,
    }  # fmt: skip
    return Evaluation.model_validate(given)


def test_changes_in_sentences():
    clear = " ".join(describe_drift(drift(0.001), multi_label=False)).replace("\u00a0", " ")
    assert clear == (
        "Accuracy is clearly lower: 80.0 %, and was 90.0 % on the 100 documents of the run's test "
        "split (difference in points, 95 % interval: −10.0, −20.0 to +5.0; p = 0.001). The share "
        "of documents has changed for 1 label: ‘<b>’ from 30.0 % to 50.0 %. The accuracy by label "
        "(recall) has changed for 1 label: ‘<b>’ from 90.0 % to 70.0 %. Documents have other "
        "lengths: 45 tokens in the median, 20 before (p = 0.001)."
    )
    unclear = [*describe_drift(drift(), multi_label=True)]
    assert unclear[0].startswith("Exact-match accuracy has not clearly changed: 80.0")
    assert unclear[1:] == [
        "Label shares, accuracy by label and lengths have not changed by more than chance."
    ]


def test_the_page_is_escaped_and_asks_no_network():
    page = render(evaluation())
    assert "<script>1</script>" not in page
    assert "&lt;script&gt;1&lt;/script&gt;" in page
    assert "<i>june</i>" not in page
    assert "&lt;b&gt;" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert "default-src 'none'" in page
    for section in ("scores", "drift", "classes", "calibration", "errors", "data"):
        assert f'<section id="{section}">' in page
    assert 'id="drift"' not in render(evaluation(drift=None))


def test_a_headline_calibration_and_abstention():
    found = evaluation()
    assert headline(found).startswith("Accuracy ")
    assert "the new documents" in explain_calibration(found)
    assert "the new documents" in explain_abstention(found)
    none = found.abstention.model_copy(update={"threshold": None})
    assert explain_abstention(evaluation(abstention=none)) == (
        "The model has no threshold below which it abstains."
    )
    assert explain_abstention(evaluation(abstention=None)).startswith("Each label has its own")


def test_the_json_begins_with_its_schema():
    assert next(iter(evaluation().as_json())) == "schema"
    assert evaluation().as_json()["schema"] == SCHEMA
    with pytest.raises(ValueError, match="extra"):
        evaluation(other=1)


def test_differences_are_of_the_shares_that_are_shown():
    """Of 400 documents, halves of a tenth are shown; both labels change by as much."""
    for before, after in ((0.86, 0.8875), (0.14, 0.1125), (0.5, 0.50125), (0.0, 0.0)):
        shown = [percent(share).split("\u00a0")[0] for share in (before, after)]
        difference = shown_difference(before, after).replace("−", "-")
        assert float(difference) == pytest.approx(float(shown[1]) - float(shown[0]))
    assert shown_difference(0.86, 0.8875) == "+2.8"
    assert shown_difference(0.14, 0.1125) == "−2.8"
    assert (signed(2.75), signed(-2.75), signed(100 * (0.8875 - 0.86))) == ("+2.8", "−2.8", "+2.8")
    assert signed(-0.01) == "+0.0"
