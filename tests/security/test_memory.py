"""Memory runs out for real, at every stage: it is called that, and what to lower is said.

Each command runs in a process of its own under RLIMIT_AS.
"""

import json
import struct
import sys

import pytest
import torch

from finetune.runtime import memory_errors
from finetune.runtime.errors import InputError
from finetune.runtime.memory_errors import explain_memory_errors, is_out_of_memory
from tests.end_to_end.test_predict import classifier, here, write  # noqa: F401
from tests.support import forks
from tests.support.runs import RECIPE
from tests.support.tiny import tiny_encoder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is Linux's")
LIMITED = "tests.support.limited"
ENDING = "error: out of memory while "


def limited(folder, place, code, module, *words, mib=64):
    return forks.run(LIMITED, str(mib), place, code, module, *words, cwd=folder)


def last_line(done):
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "did you mean" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture
def work(tmp_path):
    """A tiny recipe, as the tests of resuming have it."""
    tiny_encoder(tmp_path / "encoder")
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    (tmp_path / "data").mkdir()
    for split in ("train", "validation", "test"):
        rows = [
            {
                "text": f"a match of team {i} won the {['game', 'goal', 'cup'][i % 3]}",
                "label": "abc"[i % 3],
            }
            for i in range(30)
        ]
        write(
            tmp_path / "data" / f"{split}.jsonl",
            [row | {"text": f"{split} {row['text']}"} for row in rows],
        )
    return tmp_path


TRAIN = ("tiny.yaml", "run.dir=run", "train.max_steps=4", "checkpoint.every=2")
BIG = {
    "torch": "import torch; torch.zeros(10**9)",
    "numpy": "import numpy; numpy.zeros(10**9)",
    "python": "bytearray(10**9)",
    "arrow": "import pyarrow; pyarrow.allocate_buffer(10**12)",
    "mmap": "import mmap; mmap.mmap(-1, 10**9)",
}


@pytest.mark.parametrize(
    ("place", "big", "doing", "remedy"),
    [
        (
            "finetune.training.train_log:TrainLog.end_step",
            "torch",
            "training",
            "train.micro_batch_",
        ),
        (
            "finetune.evaluation.metrics:measure",
            "numpy",
            "preparing the data",
            "data.max_train_rows",
        ),
        (
            "finetune.data.prepare:prepare_corpus",
            "arrow",
            "preparing the data",
            "data.max_train_rows",
        ),
        ("finetune.modeling.build:build_classifier", "mmap", "building the model", "model.source"),
    ],
)
def test_in_training(work, place, big, doing, remedy):
    said = last_line(limited(work, place, BIG[big], "finetune.run", *TRAIN))
    assert said.startswith(ENDING + doing)
    assert f"{remedy}" in said.partition("; ")[2]


def test_in_predicting(here):  # noqa: F811
    write(here / "a.jsonl")
    words = ("predict", "model", "a.jsonl", "--output", "out.csv", "--threads", "1")
    for place, big, doing in (
        ("finetune.compute.forward:forward_rows", "torch", "predicting"),
        ("finetune.inference.chunks:read_records", "python", "reading and predicting"),
        ("finetune.modeling.saved_model:load_classifier", "torch", "loading the model"),
    ):
        done = limited(here, place, BIG[big], "finetune.cli.main", *words, "--overwrite")
        assert last_line(done).startswith(ENDING + doing), done.stderr
        assert not (here / "out.csv").exists()


def test_a_model_that_does_not_fit(here, classifier):  # noqa: F811
    """Its file is mapped by another library than the one that allocates its tensors."""
    (here / "model").unlink()
    folder = here / "model"
    folder.mkdir()
    for file in classifier.iterdir():
        if file.name not in ("identity.json", "model.safetensors", "config.json"):
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((classifier / "config.json").read_text())
    config["encoder"]["vocab_size"] = rows = 8_000_000
    (folder / "config.json").write_text(json.dumps(config))
    old = (classifier / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", old[:8])[0]
    header, rest, end = json.loads(old[8 : 8 + size]), old[8 + size :], 0
    offsets = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        many = last - first
        if name.endswith("word_embeddings.weight"):
            entry["shape"][0] = rows
            many = rows * entry["shape"][1] * 4
        else:
            offsets[end] = rest[first:last]
        entry["data_offsets"] = [end, end + many]
        end += many
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for offset, content in offsets.items():
            out.seek(8 + len(text) + offset)
            out.write(content)
        out.truncate(8 + len(text) + end)  # a sparse file of a gigabyte
    write(here / "a.jsonl")
    words = ("predict", "model", "a.jsonl", "--output", "out.csv", "--threads", "1")
    done = limited(here, "finetune.modeling.saved_model:load_classifier", "", "finetune.cli.main",
                   *words, mib=256)  # fmt: skip
    assert last_line(done).startswith(f"{ENDING}loading the model")


@pytest.mark.parametrize("big", [*BIG.values(), "raise OSError(12, 'Cannot allocate memory')"])
def test_in_python(tmp_path, big):
    code = (
        f"try:\n {big}\n"
        "except Exception as error:\n"
        " from finetune.runtime.memory_errors import is_out_of_memory\n"
        " raise SystemExit(0 if is_out_of_memory(error) else 3)"
    )
    limited_code = f"import finetune.runtime.memory_errors\nexec({code!r})"
    done = limited(tmp_path, "finetune.cli.main:main", limited_code, "finetune.cli.main", "--help")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 4000000000 bytes. Error code 12 (Cannot allocate memory)",
        "std::bad_alloc",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception in initialization: bad allocation",
        "could not create a primitive",
        "Unable to allocate 7.45 GiB for an array",
    ],
)
def test_what_libraries_say(said):
    error = torch.OutOfMemoryError(said) if said.startswith("CUDA") else RuntimeError(said)
    assert is_out_of_memory(error)
    with (
        pytest.raises(InputError, match=r"^out of memory while scoring.*; lower this$"),
        explain_memory_errors("scoring", "lower this"),
    ):
        raise error
    wrapped = OSError("cannot load the weights")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("this text says: out of memory"),
        InputError("out of memory while training"),
        OSError(28, "No space left on device"),
        RuntimeError("shape mismatch"),
        KeyError("bad_alloc"),
    ],
)
def test_other_errors_stay_what_they_are(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as raised, explain_memory_errors("scoring", "lower this"):
        raise error
    assert raised.value is error


def test_the_general_remedy_names_keys_that_exist():
    assert "train.micro_batch_tokens" in memory_errors.GENERAL
