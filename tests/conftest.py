"""Documents and runs that several test files share, and what each test finds as if it were first.

Every worker computes with one thread: several that spin while they wait for each other take a
hundred times as long on a busy machine.
"""

import json
import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"  # before anything imports torch

import pytest
from hypothesis import settings

from tests.support import cost
from tests.support.runs import RECIPE, finish
from tests.support.shared import make_once, session_folder
from tests.support.tiny import WORDS, tiny_encoder

settings.register_profile("untimed", deadline=None)  # a busy machine is no mistake of the code
settings.load_profile("untimed")


def pytest_addoption(parser):
    parser.addoption("--costliest", type=int, default=0, help="list so many tests by CPU seconds")


def pytest_configure(config):
    cost.install(config)


# What trains a run, exports a graph or is told of a run's files: seconds of a core each.
SLOW = {"documents", "exported", "run"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the tests that `make test-fast` leaves out, by what they are given."""
    for item in items:
        if SLOW & set(item.fixturenames):
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def process_state():
    """Undo what a run leaves in its process: threads, accelerate's state, the console's."""
    _reset_state()
    yield
    _reset_state()


def _reset_state():
    import torch
    from accelerate.state import AcceleratorState, GradientState, PartialState

    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    GradientState._reset_state()
    console = sys.modules.get("finetune.runtime.console")
    if console is not None:
        vars(console.CONSOLE).update(vars(console.Console()))


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Makes what is made once in a session: `shared(name, make)`; see `tests.support.shared`."""
    root = session_folder(tmp_path_factory.getbasetemp(), os.environ.get("PYTEST_XDIST_WORKER"))
    return lambda name, make: make_once(root / name, make)


@pytest.fixture(scope="session")
def documents(shared):
    """A folder with documents of three labels, a tiny encoder and a recipe of 36 steps."""
    return shared("documents", _write_documents)


def _write_documents(folder):
    tiny_encoder(folder / "encoder")
    (folder / "data").mkdir()
    for split, rows in {"train": 93, "validation": 13, "test": 17}.items():
        with (folder / "data" / f"{split}.jsonl").open("w") as out:
            for i in range(rows):
                words = [WORDS[(20 * (i % 3) + i * k) % 60] for k in range(1, 3 + i % 9)]
                line = {"text": " ".join([split, str(i), *words]), "label": "abc"[i % 3]}
                out.write(json.dumps(line) + "\n")
    (folder / "tiny.yaml").write_text(RECIPE)


@pytest.fixture
def here(documents, tmp_path, monkeypatch):
    """A working folder of the test's own, with the documents linked in."""
    for name in ("encoder", "data", "tiny.yaml"):
        (tmp_path / name).symlink_to(documents / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def whole(documents, shared):
    """The run that was never stopped, every checkpoint of it kept."""
    words = "run.dir=whole", "checkpoint.keep=99"
    return shared("documents/whole", lambda folder: finish(folder.parent, *words))


@pytest.fixture(scope="session")
def whole_by_two(documents, shared):
    """The same by two processes."""
    words = "run.dir=by-two", "checkpoint.keep=99"
    return shared("documents/by-two", lambda folder: finish(folder.parent, *words, processes=2))
