"""Every text can be printed to any stream, and a reader that goes away ends nothing."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.runtime import console, streams
from tests.support.processes import ENVIRONMENT, ROOT

OURS = "Trained … 0.97 ± 0.01 — “über” → 京都 😀 \udc80"
ENCODINGS = ("ascii", "latin-1", "cp1252", "utf-8")


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        (
            "ascii",
            'Trained ... 0.97 +- 0.01 - "\\u00fcber" -> \\u4eac\\u90fd \\ud83d\\ude00 \\udc80',
        ),
        ("latin-1", 'Trained ... 0.97 ± 0.01 - "über" -> \\u4eac\\u90fd \\ud83d\\ude00 \\udc80'),
        ("cp1252", "Trained … 0.97 ± 0.01 — “über” -> \\u4eac\\u90fd \\ud83d\\ude00 \\udc80"),
        ("utf-8", "Trained … 0.97 ± 0.01 — “über” → 京都 😀 \\udc80"),
    ],
)
def test_what_an_encoding_lacks_stays_readable(encoding, printed):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding)
    streams.write_line(OURS, stream)
    assert raw.getvalue().decode(encoding) == f"{printed}\n"


@given(st.text(st.characters(exclude_categories=())), st.sampled_from(ENCODINGS))
def test_any_text_to_any_stream(text, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding, newline="")
    streams.write_line(text, stream)
    assert stream.tell() > 0
    assert streams.readable(text, io.StringIO()) == text or "\\" in streams.readable(
        text, io.StringIO()
    )


@given(st.text(), st.sampled_from(ENCODINGS))
def test_json_says_the_same_in_every_encoding(text, encoding):
    written = json.dumps({"label": text}, ensure_ascii=False)
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    printed = streams.readable_json(written, stream)
    assert json.loads(printed.encode(encoding).decode(encoding)) == {"label": text}


def test_a_process_without_streams(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # pythonw, a service
    monkeypatch.setattr(sys, "stderr", None)
    streams.prepare_streams()
    streams.flush_streams()
    console.print_line("x")
    console.print_json("{}")
    console.print_error("x")


def test_a_reader_that_has_gone():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", encoding="ascii") as stream:
        streams.write_line("x", stream)
        streams.write_line("y", stream)
    streams.write_line("closed in this process", stream)
    assert streams.take_failure() is None


class Full(io.StringIO):
    """A stream whose disk is full."""

    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_remembered_of_standard_output_alone(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Full())
    console.print_error("x")
    assert streams.take_failure() is None
    monkeypatch.setattr(sys, "stdout", Full())
    console.print_line("x")  # raises nothing: a run goes on
    console.print_line("y")
    assert streams.take_failure() == "No space left on device"
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert streams.take_failure() is None


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_command_in_an_encoding(encoding, tmp_path):
    """Its help, and an error that names a file with characters that the terminal lacks."""
    environment = ENVIRONMENT | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    for words, code in ([["train", "--help"], 0], [["train", "京都→é.yaml"], 2]):
        done = subprocess.run(
            [sys.executable, "-m", "finetune", *words],
            capture_output=True, cwd=tmp_path, env=environment, encoding=encoding,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
    shown = "京都→é.yaml" if encoding == "utf-8" else "\\u4eac\\u90fd"
    assert shown in done.stderr


def test_a_command_whose_reader_has_gone(tmp_path):
    command = f"'{sys.executable}' -m finetune train --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a disk always full")
@pytest.mark.parametrize("words", [["schema"], ["--version"], ["train", "--help"], ["recipes"]])
def test_what_cannot_be_written_is_no_success(words, tmp_path):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "finetune", *words],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert done.stderr == "error: standard output: cannot write: No space left on device\n"
    assert done.returncode == 2
