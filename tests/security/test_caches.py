"""A cache that is damaged, full, read-only, or left half made by a kill: it never decides a number.

What is damaged is made anew, and who cannot use the cache goes without it, and says why.
"""

import errno
import os
import resource
import shutil
import signal
import socket
import sys

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from finetune.compute import frozen_cache, frozen_prefix, hardware_plan
from finetune.config import schema
from finetune.modeling import build
from finetune.runtime import cache_folder
from finetune.tokenization import token_cache
from finetune.tokenization.document_format import DocumentFormat
from tests.support.tiny import WORDS, tiny_encoder, tiny_tokenizer

TEXTS = [" ".join(WORDS[i : i + 1 + 3 * i]) for i in range(9)]
READS = DocumentFormat(max_length=32)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def said(capsys):
    """What was printed, in one line."""
    return " ".join(capsys.readouterr().out.split())


@pytest.fixture
def tokens(monkeypatch, folder):
    monkeypatch.setattr(token_cache, "WORTH_CACHING", 0)
    tokenizer = tiny_tokenizer()
    plain = READS.encode(TEXTS, None, tokenizer)

    def encode(texts=TEXTS, max_bytes=None):
        table = token_cache.encode(READS, texts, None, tokenizer, folder, max_bytes)
        if texts is TEXTS:
            assert np.array_equal(table.ids, plain.ids)
            assert np.array_equal(table.starts, plain.starts)
        return table

    return encode


@pytest.fixture
def states(tmp_path, folder):
    source = str(tiny_encoder(tmp_path / "encoder"))
    table = READS.encode(TEXTS, None, tiny_tokenizer())

    def fill(**cache):
        recipe = schema.Recipe(
            data=schema.Data(source="unused"),
            model=schema.Model(source=source, freeze=1, dropout=0.0, head_init="normal"),
            train=schema.Train(precision="fp32", micro_batch_tokens=64, threads=1),
            cache=schema.Cache(dir=str(folder), **cache),
        )
        plan = hardware_plan.plan_hardware(recipe.model, recipe.train)
        net = build.build_classifier(source, recipe.model, ["a", "b"], "eager", seed=0)
        prefix = frozen_prefix.attach_frozen_prefix(net, recipe, epochs=2)
        filled = frozen_cache.fill_cache(
            prefix, net, {"train": table}, recipe, plan, Accelerator(cpu=True)
        )["train"]
        return getattr(filled, "states", None)

    return fill


def flip(file, place):
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize("place", [0, 7, 100, -1])
@pytest.mark.parametrize("name", [token_cache.IDS, token_cache.TABLE])
def test_a_damaged_token_table_is_made_anew(tokens, folder, capsys, name, place):
    tokens()
    [entry] = folder.iterdir()
    flip(entry / name, place)
    tokens()
    assert "is damaged: its tokens are made anew" in said(capsys)
    assert [path.name for path in folder.iterdir()] == [entry.name]
    tokens()
    assert said(capsys) == ""


@pytest.mark.parametrize("name", [token_cache.IDS, token_cache.TABLE])
def test_so_is_one_that_lacks_a_file_or_its_end(tokens, folder, capsys, name):
    for damage in (lambda file: file.unlink(), lambda file: os.truncate(file, 9)):
        tokens()
        [entry] = folder.iterdir()
        damage(entry / name)
        tokens()
        assert "is damaged" in said(capsys)


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_damaged_states_are_computed_anew(states, folder, capsys, place):
    first = states().clone()
    [file] = folder.iterdir()
    assert torch.equal(states(), first)
    assert "found" in said(capsys)
    flip(file, place)
    assert torch.equal(states(), first)
    assert "is damaged, and is computed anew" in said(capsys)
    assert [path.name for path in folder.iterdir()] == [file.name]


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ENOMEM])
@pytest.mark.parametrize("kind", ["tokens", "states"])
def test_what_cannot_be_read_now_is_not_called_damaged(
    request, folder, capsys, monkeypatch, kind, code
):
    """It may be whole, and stays for later runs."""
    make = request.getfixturevalue(kind)
    first = make()
    first = first if kind == "tokens" else first.clone()
    before = {path: path.stat().st_ino for path in folder.rglob("*") if path.is_file()}
    said(capsys)

    def refuse(file):
        if ".new" not in file.as_posix():
            raise OSError(code, os.strerror(code))
        return checksum(file)

    checksum = cache_folder.checksum
    with monkeypatch.context() as patch:
        patch.setattr(cache_folder, "checksum", refuse)
        again = make()
    text = said(capsys)
    assert "damaged" not in text
    reason = cache_folder.describe_failure(OSError(code, os.strerror(code)), folder)
    # Long paths are wrapped anywhere.
    assert "".join(reason.split()) in "".join(text.split())
    assert before.keys() == {path for path in folder.rglob("*") if path.is_file()}
    assert kind == "tokens" or torch.equal(again, first)
    make()
    assert "cannot be read" not in said(capsys)


def test_a_check_that_takes_long_is_said(states, folder, capsys, monkeypatch):
    states()
    assert "checking" not in said(capsys)
    monkeypatch.setattr(frozen_cache, "LONG", 10)
    states()
    assert "frozen states of train: checking 0.0" in said(capsys)


def killed(folder, name="tokens-0"):
    """What a process that was killed left behind."""
    folder.mkdir(exist_ok=True)
    if (pid := os.fork()) == 0:
        (folder / cache_folder.aside_name(name)).write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="os.fork")
def test_what_kills_leave_is_swept_and_what_others_make_stays(folder, tokens, states):
    killed(folder)
    killed(folder, "prefix-0")
    host, me = cache_folder._host(), os.getpid()
    living = os.getppid()
    stays = [
        folder / f".tokens-1.{host}.{living}.0a.new",
        folder / f".tokens-1.another-{host}.1.0a.new",
        folder / cache_folder.aside_name("tokens-2"),
        folder / "notes.new",
    ]
    goes = [
        folder / f".tokens-3.{host}.{me}.0a.new",  # of an earlier process of this number
        folder / ".prefix-of-an-older-release.new",
    ]
    for path in (*stays, *goes):
        path.write_bytes(b"half")
    os.utime(goes[1], (0, 0))
    assert len(list(folder.iterdir())) == 8
    tokens()
    states()
    left = {path.name for path in folder.iterdir() if path.name.endswith(".new")}
    assert left == {path.name for path in stays}


def test_the_least_recently_used_go_first(tokens, folder, capsys):
    tokens()
    [first] = folder.iterdir()
    size = cache_folder.size_of(first)
    tokens([*TEXTS, "a"], max_bytes=2.5 * size)
    [second] = {*folder.iterdir()} - {first}
    for path, age in ((first, 100), (second, 50)):
        os.utime(path, (age, age))
    tokens(max_bytes=2.5 * size)  # used again, so that the other one is the oldest
    tokens([*TEXTS, "b"], max_bytes=2.5 * size)
    assert first.exists()
    assert not second.exists()
    assert len(list(folder.iterdir())) == 2
    assert said(capsys) == ""
    tokens([*TEXTS, "c"], max_bytes=10)
    assert "are more than cache.max_gb=1e-08" in said(capsys)
    assert first.exists()


def test_states_that_are_larger_than_the_limit(states, folder, capsys):
    assert states(max_gb=1e-6) is None
    out = said(capsys)
    assert "are not kept, so they are computed again in every epoch" in out
    assert "are more than cache.max_gb=1e-06" in out
    assert list(folder.iterdir()) == []


@pytest.fixture
def full():
    """No file may grow beyond some bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("how", ["full", "a file", "in a file"])
def test_without_a_usable_folder_there_is_no_cache(tokens, states, folder, capsys, full, how):
    if how == "a file":
        folder.write_text("x")
    if how == "in a file":
        folder.parent.joinpath("cache").write_text("x")
        shutil.move(folder, folder.parent / "other")
        (folder.parent / "cache").symlink_to(folder.parent / "other" / "deeper")
    if how == "full":
        full()
    tokens()
    out = said(capsys)
    assert f"tokens are not kept for later runs: {folder} (cache.dir): ".replace(" ", "") in (
        out.replace(" ", "")
    )
    assert "run.dir" not in out
    if how == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        states()  # its encoder's config is written by the libraries
        shutil.rmtree(folder)
        capsys.readouterr()
        full()
    assert states() is None
    out = said(capsys)
    assert "frozen states of train are not kept, so they are computed again in every epoch" in out
    assert "cache.dir" in out
    assert "run.dir" not in out
    if how == "full":
        assert list(folder.iterdir()) == []


def test_what_the_messages_say():
    for code, words in ((28, "the disk is full; free some space there"), (30, "is read-only; set")):
        said = cache_folder.describe_failure(OSError(code, "x"), "C")
        assert said.startswith("C (cache.dir): the ")
        assert words in said
    rust = cache_folder.describe_failure(ValueError("I/O error: x (os error 28)"), "C")
    assert "the disk is full" in rust
    assert socket.gethostname()
