"""Documents and runs that several test files share."""

import json

import pytest
from hypothesis import settings

from tests.support.processes import launch
from tests.support.runs import RECIPE, finish
from tests.support.tiny import WORDS, tiny_encoder

settings.register_profile("untimed", deadline=None)  # a busy machine is no mistake of the code
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def documents(tmp_path_factory):
    """A folder with documents of three labels, a tiny encoder and a recipe of 36 steps."""
    folder = tmp_path_factory.mktemp("documents")
    tiny_encoder(folder / "encoder")
    (folder / "data").mkdir()
    for split, rows in {"train": 93, "validation": 13, "test": 17}.items():
        with (folder / "data" / f"{split}.jsonl").open("w") as out:
            for i in range(rows):
                words = [WORDS[(20 * (i % 3) + i * k) % 60] for k in range(1, 3 + i % 9)]
                line = {"text": " ".join([split, str(i), *words]), "label": "abc"[i % 3]}
                out.write(json.dumps(line) + "\n")
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def here(documents, tmp_path, monkeypatch):
    """A working folder of the test's own, with the documents linked in."""
    for name in ("encoder", "data", "tiny.yaml"):
        (tmp_path / name).symlink_to(documents / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def whole(documents):
    """The run that was never stopped, every checkpoint of it kept."""
    finish(documents, "run.dir=whole", "checkpoint.keep=99")
    return documents / "whole"


@pytest.fixture(scope="session")
def whole_by_two(documents):
    """The same by two processes."""
    finish(documents, "run.dir=by-two", "checkpoint.keep=99", launcher=launch(2))
    return documents / "by-two"
