"""`engines`: the table, which engine a folder gets, and what a missing library is told by."""

import subprocess
import sys

import pytest

from finetune.inference import engines
from finetune.inference.engines import ENGINES, EngineEntry, EngineOptions, ModelSource
from finetune.runtime.errors import InputError


def test_a_folder_s_file_picks_the_engine(tmp_path):
    assert engines.pick_engine(None, str(tmp_path)) == "torch"
    (tmp_path / engines.ONNX).touch()
    assert engines.pick_engine(None, str(tmp_path)) == "onnx"
    assert engines.pick_engine("torch", str(tmp_path)) == "torch"


@pytest.mark.parametrize("name", list(ENGINES))
def test_a_missing_library_is_named_with_its_command(monkeypatch, name):
    monkeypatch.setattr(engines, "find_spec", lambda module: None)
    with pytest.raises(InputError) as caught:
        engines.load_model(name, ModelSource("model"), EngineOptions())
    assert str(caught.value).startswith(f"--engine {name} needs {ENGINES[name].library}; pip inst")


def test_a_new_engine_is_one_entry(monkeypatch):
    entry = EngineEntry("tests.unit.inference.test_engines", "json", "JSON", "pip install json")
    monkeypatch.setitem(ENGINES, "mine", entry)
    source, options = ModelSource("model"), EngineOptions(threads=3)
    assert engines.load_model("mine", source, options) == (source, options)


def load(source, options):
    """The `load` of the engine above."""
    return source, options


def test_naming_the_engines_loads_none():
    code = "import sys; import finetune.inference.engines; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
