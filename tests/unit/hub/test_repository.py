"""`repository`: which files differ from those on the Hub, and valid names."""

import hashlib
from types import SimpleNamespace

import pytest

from finetune.hub.repository import Change, check_repo_id, compare_files
from finetune.runtime.errors import InputError


def blob(content):
    name = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return SimpleNamespace(size=len(content), lfs=None, blob_id=name)


def large(content):
    lfs = SimpleNamespace(sha256=hashlib.sha256(content).hexdigest())
    return SimpleNamespace(size=len(content), lfs=lfs, blob_id="of the pointer")


def test_every_state_of_a_file(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    files = {
        "model.safetensors": weights, "config.json": b"{}", "vocab.txt": b"ab", "merges.txt": b"a",
        "README.md": b"card",
    }  # fmt: skip
    there = {
        "model.safetensors": large(b"weights"), "config.json": blob(b"{ }"),
        "vocab.txt": blob(b"cd"), "README.md": large(b"card"),
        "model-00001-of-00001.safetensors": large(b"old"), "LICENSE": blob(b"theirs"),
    }  # fmt: skip
    assert compare_files(files, there) == [
        Change("model.safetensors", 7, "same"),
        Change("config.json", 2, "changed", "3 bytes there, 2 here"),
        Change("vocab.txt", 2, "changed", "other content"),
        Change("merges.txt", 1, "new"),
        Change("README.md", 4, "same"),
        Change("model-00001-of-00001.safetensors", 3, "removed"),
    ]


def test_a_card_that_was_written_there_stays():
    assert compare_files({}, {"README.md": blob(b"by hand"), "config.json": blob(b"")}) == [
        Change("config.json", 0, "removed")
    ]


def test_names_of_repositories():
    check_repo_id("ann/my-model_1.0", "")
    for name in ("model", "ann/a--b", "-ann/model", "ann/model.git", "ann/" + "a" * 97):
        with pytest.raises(
            InputError, match=r"^key: '.*' is not a valid repository name; expected"
        ):
            check_repo_id(name, "key: ")
