"""A dry run shows documents as the encoder reads them, a time and how it was got, and own keys."""

import pytest

from finetune import pipeline
from finetune.compute.time_estimate import TimeEstimate
from finetune.config import loader
from finetune.reporting import dry_run_report
from finetune.runtime.signals import SignalListener


def dry_run(*overrides):
    pipeline.dry_run(loader.load("tiny.yaml", ["cache.tokens=false", *overrides]), SignalListener())


def test_three_documents_are_shown_as_they_are_read(here, capsys):
    dry_run("data.max_length=6")
    said = capsys.readouterr().out
    shown = said.split("Documents as they are read\n")[1].split("\nLearning rate")[0]
    documents = shown.replace("\n    ", " ").strip("\n").split("\n")
    assert len(documents) == dry_run_report.SHOWN
    assert documents[0].strip().startswith("train.jsonl: ")
    for document in documents:
        _, label, length = document.strip().split(", ", 2)
        assert label in ("a", "b", "c")
        count, text = length.split(": ", 1)
        assert text.startswith("[CLS] ")
        assert text.endswith("[SEP]")
        assert len(text.split()) <= 6
        assert count.endswith(" tokens")
    assert any("6 of " in document for document in documents)


def test_windows_are_counted(here, capsys):
    dry_run("data.max_length=6", "data.truncation=windows", "data.stride=2")
    assert " windows, of which the first is: [CLS] " in capsys.readouterr().out.replace("\n   ", "")


def test_only_keys_that_differ_from_the_defaults_are_shown(here, capsys):
    dry_run("optim.lr=0.25")
    own = capsys.readouterr().out.split("differs from the defaults\n")[1].split("A dry run")[0]
    assert "lr: 0.25" in own
    assert "label_smoothing" not in own
    (here / "own.yaml").write_text(own)
    again = loader.load("own.yaml", ["run.name=tiny"])
    assert again == loader.load("tiny.yaml", ["cache.tokens=false", "optim.lr=0.25"])


def test_the_time_says_how_it_was_got(here, capsys):
    dry_run()
    said = " ".join(capsys.readouterr().out.split("\nTime\n")[1].split())
    assert said.startswith("about ")
    assert " of training on this machine. That is an estimate: " in said
    assert dry_run_report.describe_time(TimeEstimate(7300, 2_000_000, 0.5, 1000)) == (
        "about 2.03 hours of training on this machine. That is an estimate: 1,000 tokens of train, "
        "forward and backward through an encoder of this shape with random weights, took 0.5 s, "
        "and training reads 2,000,000. The optimizer, scoring and saving come on top; sequence "
        "packing, and frozen layers that are computed once, save some."
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 second"), (40, "40 seconds"), (130, "2 minutes"), (7200, "2 hours")],
)
def test_durations(seconds, said):
    assert dry_run_report.format_duration(seconds) == said
