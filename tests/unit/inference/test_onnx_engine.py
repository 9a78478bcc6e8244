"""The engine of ONNX Runtime on a hand-made graph; `test_onnx_export.py` has exported ones."""

import hashlib

import numpy as np
import pytest

from finetune.inference import onnx_engine
from finetune.inference.engines import ONNX, EngineOptions, ModelSource
from finetune.runtime.errors import InputError
from finetune.tokenization.token_table import TokenTable

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")


@pytest.fixture
def folder(tmp_path):
    """A graph whose logits are the ids' sum and the number of tokens."""
    from onnx import TensorProto, helper

    shape = ["rows", "tokens"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, shape)
        for name in ("input_ids", "attention_mask")
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 2])
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["real"]),
        helper.make_node("ReduceSum", ["real", "axis"], ["sum"], keepdims=1),
        helper.make_node("ReduceSum", ["attention_mask", "axis"], ["count"], keepdims=1),
        helper.make_node("Concat", ["sum", "count"], ["both"], axis=1),
        helper.make_node("Cast", ["both"], ["logits"], to=TensorProto.FLOAT),
    ]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "sums", inputs, [logits], [axis])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / ONNX)
    return tmp_path


def test_each_row_s_logits_are_the_graph_s(folder):
    lengths = np.array([3, 1, 2])
    starts = np.concatenate([[0], lengths.cumsum()])
    table = TokenTable(np.array([5, 6, 7, 8, 9, 1], np.int32), starts, lengths, 99)
    for tokens in (1, 100):
        engine = onnx_engine.onnx_engine(folder, threads=1, tokens=tokens)
        assert engine.logits(table).tolist() == [[18, 3], [8, 1], [10, 2]]
        assert (engine.classes, engine.budget) == (2, tokens)


def test_the_identity_is_the_file_s_hash(folder):
    engine = onnx_engine.onnx_engine(folder, threads=1)
    assert engine.identity == hashlib.sha256((folder / ONNX).read_bytes()).hexdigest()
    assert engine.budget == onnx_engine.BATCH_TOKENS
    assert str(folder / ONNX) in engine.reasons[0]


def test_a_folder_that_was_not_exported(tmp_path):
    with pytest.raises(InputError, match=r"finetune export wrote, with config.json"):
        onnx_engine.load(ModelSource(str(tmp_path)), EngineOptions())
    with pytest.raises(InputError, match=f"expected {ONNX}, found none"):
        onnx_engine.onnx_engine(tmp_path)


def test_a_damaged_graph(tmp_path):
    (tmp_path / ONNX).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"ONNX Runtime cannot read it \(.*\); export it again"):
        onnx_engine.onnx_engine(tmp_path, threads=1)
