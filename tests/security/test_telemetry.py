"""Nothing calls home: no name is looked up while a model is trained, exported, used and shown."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from finetune.runtime import telemetry
from tests.support import watched_network
from tests.support.processes import ROOT

# As a user has it: nothing is offline, and no library was told to be silent.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("HF_", "TRANSFORMERS_")) and name not in telemetry.OFF and name != "CI"
} | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def python(code):
    return [sys.executable, "-c", textwrap.dedent(code)]


@pytest.fixture(scope="module")
def network():
    if reason := watched_network.why_not():
        pytest.skip(reason)


def test_the_watch_sees_native_look_ups_and_lets_loopback_through(network):
    code = """
        import ctypes, socket
        assert ctypes.CDLL(None).gethostbyname(b"native.example.com") == 0
        try:
            socket.getaddrinfo("python.example.com", 80)
        except OSError:
            pass
        with socket.create_server(("localhost", 0)) as server:
            socket.create_connection(server.getsockname()).close()
    """
    done, looked_up = watched_network.run_watched(python(code))
    assert (done.returncode, done.stderr) == (0, "")
    assert set(looked_up) == {"native.example.com", "python.example.com"}


STORY = """
    import os, sys, threading, time, urllib.request
    from pathlib import Path

    from finetune.cli import main

    def finetune(*words):
        code = main.main(words)
        assert code == 0, (words, code)

    finetune("train", "tiny.yaml", "run.dir=run", "train.max_steps=4")
    finetune("predict", "run", "data/test.jsonl", "--output", "torch.jsonl")
    from importlib.util import find_spec
    if find_spec("onnxruntime"):
        finetune("export", "run", "onnx", "--data", "data/test.jsonl", "--int8")
        finetune("predict", "onnx", "data/test.jsonl", "--engine", "onnx", "--output", "onnx.jsonl")
    if find_spec("gradio"):
        from finetune.inference import demo
        from finetune.inference.classifier import Classifier
        page = demo.show(Classifier("run"), "run")
        assert b"<html" in urllib.request.urlopen(page.local_url, timeout=60).read()
        page.close(verbose=False)
    time.sleep(15)  # ONNX Runtime collects for as long before it looks for its host
"""


def test_train_export_predict_and_demo_look_nothing_up(network, here, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    environment = ENVIRONMENT | {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    done, looked_up = watched_network.run_watched(python(STORY), cwd=here, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert looked_up == []
    written = [file.relative_to(home).as_posix() for file in home.rglob("*") if file.is_file()]
    assert [name for name in written if "Microsoft" in name or "deviceid" in name] == []
    rows = len(Path("data/test.jsonl").read_text(encoding="utf-8").splitlines())
    for name in ("torch", "onnx"):
        if name == "torch" or (here / "onnx").is_dir():
            assert len((here / f"{name}.jsonl").read_text().splitlines()) == rows


def told(code, **environment):
    done = subprocess.run(
        python(code), env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_commands_turn_it_off_before_libraries_load():
    code = """
        import json, os, sys
        import finetune.cli
        from finetune.runtime.telemetry import OFF
        heavy = {"transformers", "huggingface_hub", "gradio", "onnxruntime", "ray"} & {*sys.modules}
        print(json.dumps([{name: os.environ.get(name) for name in OFF}, sorted(heavy)]))
    """
    assert told(code) == [telemetry.OFF, []]


@pytest.mark.parametrize("name", sorted(telemetry.OFF))
def test_what_the_user_chose_stays(name, monkeypatch):
    monkeypatch.setenv(name, "as chosen")
    telemetry.turn_off()()
    assert os.environ[name] == "as chosen"


def test_the_caller_s_environment_stays_as_it_was(monkeypatch):
    for name in telemetry.OFF:
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    restore = telemetry.turn_off()
    assert {name: os.environ[name] for name in telemetry.OFF} == telemetry.OFF
    restore()
    assert dict(os.environ) == before
    assert telemetry.import_silently("json") is json
    assert dict(os.environ) == before


def test_onnx_runtime_writes_no_id_where_it_is_used_from_python(tmp_path):
    """In a process that is the caller's, which has set nothing."""
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    code = """
        import json, os
        from pathlib import Path
        from finetune.runtime import telemetry
        runtime = telemetry.import_silently("onnxruntime")
        runtime.SessionOptions()
        files = [str(file) for file in Path.home().rglob("*") if file.is_file()]
        print(json.dumps([files, [name for name in telemetry.OFF if name in os.environ]]))
    """
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache")}
    assert told(code, **home) == [[], []]
    # And so it does where somebody asks for it: else this test would see nothing.
    assert told(code, **home, ORT_DISABLE_TELEMETRY="0")[0]
