"""`engines`: the table, which engine a folder gets, and what a missing library is told by."""

import subprocess
import sys
from pathlib import Path

import pytest

from finetune.cli import export_onnx
from finetune.inference import engines, openvino_engine
from finetune.inference.engines import ENGINES, EngineEntry, EngineOptions, ModelSource
from finetune.runtime.errors import InputError


def test_a_folder_s_file_picks_the_engine(tmp_path):
    assert engines.pick_engine(None, str(tmp_path)) == "torch"
    (tmp_path / engines.ONNX).touch()
    assert engines.pick_engine(None, str(tmp_path)) == "onnx"
    assert engines.pick_engine("torch", str(tmp_path)) == "torch"


def test_a_graph_beside_weights_is_not_picked_by_itself(tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / engines.STANDARD_ONNX).touch()
    assert engines.pick_engine(None, str(tmp_path)) == "onnx"
    (tmp_path / "model.safetensors").touch()
    assert engines.pick_engine(None, str(tmp_path)) == "torch"
    assert engines.pick_engine("onnx", str(tmp_path)) == "onnx"


@pytest.mark.parametrize("option", ["--rows", "--threads"])
@pytest.mark.parametrize("word", ["-1", "0"])
def test_export_refuses_counts_below_one(capsys, option, word):
    with pytest.raises(SystemExit) as ended:
        export_onnx.main(["./none", "./new", f"{option}={word}"])
    assert ended.value.code == 2
    assert "expected a whole number above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "computed"), [("auto", "fp32"), ("fp32", "fp32"), ("bf16", "bf16")]
)
def test_openvino_computes_in_the_checked_precision(asked, computed):
    assert openvino_engine._choose_precision(asked, Path("model.onnx"))[0] == computed


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
