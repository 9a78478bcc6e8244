"""Which files belong to a model, by their names."""

import pytest

from finetune.modeling import file_names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("README.md", True), ("model-00001-of-00012.safetensors", True), ("merges.txt", True),
        ("modeling_document_classifier.py", True), ("sentencepiece.bpe.model", True),
        ("pytorch_model.bin", False), (".env", False), ("config.json.bak", False),
        ("onnx/model.onnx", True), ("onnx/model_quantized.onnx", True), ("model.onnx", False),
        ("notes.txt", False), ("optimizer.safetensors", False), ("setup.py", False),
    ],
)  # fmt: skip
def test_the_allow_list(name, expected):
    assert file_names.is_model_file(name) is expected
