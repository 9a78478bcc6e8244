"""The standard layout: other libraries load it without this package, and give torch's logits."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finetune.cli import export_onnx as script
from finetune.evaluation.probabilities import to_probabilities
from finetune.inference import (
    engines,
    onnx_quantization,
    sample_texts,
    sentence_layout,
    standard_layout,
)
from finetune.inference.classifier import Classifier
from finetune.inference.decision import DecisionRules
from finetune.inference.onnx_comparison import Check
from finetune.modeling import model_identity, saved_model
from finetune.runtime.errors import InputError
from finetune.tokenization.document_format import DocumentFormat
from tests.unit.inference.test_onnx_architectures import OTHERS, records, saved_classifier

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

LOAD_WITH_OPTIMUM = """
import json, sys
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer
model = ORTModelForSequenceClassification.from_pretrained(
    sys.argv[1], subfolder="onnx", file_name="model.onnx")
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
print(json.dumps([model(**tokenizer(text, truncation=True, return_tensors="pt")).logits[0].tolist()
                  for text in json.loads(sys.argv[2])]))
"""
LOAD_WITH_NODE = """
const { AutoTokenizer, AutoModelForSequenceClassification, env } =
  await import("@huggingface/transformers");
env.allowRemoteModels = false;
env.localModelPath = process.argv[1] + "/";
const name = process.argv[2];
const model = await AutoModelForSequenceClassification.from_pretrained(name, { dtype: "fp32" });
const tokenizer = await AutoTokenizer.from_pretrained(name);
const rows = [];
for (const text of JSON.parse(process.argv[3])) {
  const { logits } = await model(await tokenizer(text, { truncation: true }));
  rows.push(Array.from(logits.data));
}
console.log(JSON.stringify(rows));
"""


@pytest.fixture(scope="session")
def standard(shared):
    def export(folder):
        folder.mkdir()
        source = saved_classifier(folder, "bert", {"pooled_norm": 3.0})
        words = [source, str(folder / "standard"), "--layout", "standard", "--threads", "1"]
        assert script.main(words) == 0

    return shared("standard", export) / "standard"


@pytest.fixture(scope="session")
def expected(standard):
    """torch's logits of each text. (texts, classes)"""
    return logits_of(standard.parent / "model", "torch")


def logits_of(folder, engine):
    classify = Classifier(folder, engine=engine, precision="fp32", threads=1)
    return classify.engine.logits(classify.encode(records(OTHERS)))


def test_the_files_are_those_that_others_look_for(standard, expected):
    config = json.loads((standard / "config.json").read_text())
    assert config["model_type"] == "bert"
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "a", "1": "b", "2": "c"}
    assert config["label2id"] == {"a": 0, "b": 1, "c": 2}
    assert "auto_map" not in config
    assert not [*standard.glob("*.safetensors"), *standard.glob("*.py")]
    for name in (engines.STANDARD_ONNX, engines.STANDARD_INT8):
        graph = onnx.load(standard / name)
        (opset,) = (one.version for one in graph.opset_import if one.domain == "")
        assert opset == 18
        assert [one.name for one in graph.graph.output] == ["logits"]
        assert {one.name for one in graph.graph.input} >= {"input_ids", "attention_mask"}
    assert engines.pick_engine(None, str(standard)) == "onnx"
    np.testing.assert_allclose(logits_of(standard, None), expected, atol=2e-5)


def test_a_changed_graph_is_refused(standard, tmp_path):
    copy = shutil.copytree(standard, tmp_path / "copy")
    identity = json.loads((copy / model_identity.FILE).read_text())
    assert list(identity["weights"]) == [engines.STANDARD_ONNX, engines.STANDARD_INT8]
    assert 0.9 < identity["kept_labels_int8"] <= identity["kept_labels"] == 1
    with (copy / "onnx" / "model.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match=r"not as they were saved: onnx/model\.onnx differs"):
        Classifier(copy)


def test_embeddings_are_int8_by_row(standard, expected):
    graph = onnx.load(standard / engines.STANDARD_INT8).graph
    large = [one for one in graph.initializer if len(one.dims) == 2 and one.dims[0] > 150]
    assert {one.data_type for one in large if one.dims[1] > 1} == {onnx.TensorProto.INT8}
    small = standard.parent / "int8"
    small.mkdir(exist_ok=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(standard / name, small)
    shutil.copy(standard / engines.STANDARD_INT8, small / engines.ONNX)
    found = logits_of(small, "onnx")
    difference = to_probabilities(found, False) - to_probabilities(expected, False)
    assert np.abs(difference).max() < 0.1


def test_sentence_transformers_encode_gives_the_logits(standard, expected):
    reason = "sentence-transformers is not installed"
    library = pytest.importorskip("sentence_transformers", reason=reason)
    model = library.SentenceTransformer(str(standard / sentence_layout.FOLDER), device="cpu")
    np.testing.assert_allclose(model.encode(OTHERS), expected, atol=2e-5)


def test_optimum_gives_torch_s_logits(standard, expected):
    python = os.environ.get("OPTIMUM_PYTHON", sys.executable)
    asked = "from optimum.onnxruntime import ORTModelForSequenceClassification"
    if subprocess.run([python, "-c", asked], capture_output=True, check=False).returncode:
        pytest.skip("optimum[onnxruntime] is not installed, and OPTIMUM_PYTHON names no python")
    words = [python, "-c", LOAD_WITH_OPTIMUM, str(standard), json.dumps(OTHERS)]
    done = subprocess.run(words, capture_output=True, check=True, text=True)
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), expected, atol=2e-5)


def test_transformers_js_gives_torch_s_logits(standard, expected):
    home = os.environ.get("TRANSFORMERS_JS")
    if home is None or shutil.which("node") is None:
        pytest.skip("TRANSFORMERS_JS names no folder with @huggingface/transformers, or no node")
    short = [0, 2]  # of a longer text, it cuts the last special token off too
    where = [str(standard.parent), standard.name, json.dumps([OTHERS[i] for i in short])]
    words = ["node", "--input-type=module", "-e", LOAD_WITH_NODE, "--", *where]
    done = subprocess.run(words, capture_output=True, check=True, text=True, cwd=home)
    np.testing.assert_allclose(json.loads(done.stdout), expected[short], atol=2e-5)


def test_int8_that_predicts_worse_is_left_out(standard, tmp_path, monkeypatch, capsys):
    def refuse(file, reference):
        yield Check("int8 dynamic", 0.5, 9.0, None, 1.0, 1.0)
        raise InputError(
            "--int8: 50.0 % of 4 predicted labels change; nothing was written. Export without"
        )

    def again(source, table, file, opset):
        shutil.copy(standard / "onnx" / "model.onnx", file)

    monkeypatch.setattr(onnx_quantization, "quantize", refuse)
    monkeypatch.setattr(standard_layout.onnx_export, "to_onnx", again)
    source = str(standard.parent / "model")
    words = [source, str(tmp_path / "out"), "--layout", "standard", "--threads", "1"]
    assert script.main([*words, "--int8"]) == 2
    assert not list(tmp_path.iterdir())
    assert script.main(words) == 0
    assert "50.0 % of 4 predicted labels change" in capsys.readouterr().out
    graphs = tmp_path / "out" / "onnx"
    assert [file.name for file in graphs.iterdir()] == ["model.onnx"]
    assert not (tmp_path / "out" / "int8").exists()


def test_what_the_layout_cannot_carry_is_named():
    plain = DocumentFormat()
    assert [*standard_layout.find_limits(plain, DecisionRules(("a", "b")))] == []
    rules = DecisionRules(("a", "b"), True, thresholds=(0.25, 0.5), abstain_below=0.7)
    reading = DocumentFormat(
        text=("title", "body"), text_pair="other", truncation="windows", max_length=64
    )
    limits = " ".join(standard_layout.find_limits(reading, rules))
    for said in ("0.25 to 0.50", "below 0.7", "windows of 64", "(other)", "title, body"):
        assert said in limits


def test_options_that_need_documents_say_so(capsys):
    assert script.main(["./none", "./new", "--label", "label"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == [
        "error: --layout onnx needs --data FILE, with the documents to check the export on",
        "error: --label needs --data FILE, with the documents to check the export on",
    ]


def test_sample_texts(standard, tmp_path):
    assert sample_texts.read_test_texts(tmp_path, 5) == []
    (tmp_path / "predictions").mkdir()
    rows = [{"text": f"text {i}", "label": "a"} for i in range(9)]
    (tmp_path / sample_texts.TEST).write_text("\n".join(map(json.dumps, rows)))
    assert sample_texts.read_test_texts(tmp_path, 2) == [("text 0",), ("text 1",)]
    assert sample_texts.read_test_texts(tmp_path, 2, is_pair=True) == []  # of an earlier version
    rows = [row | {"texts": [row["text"], "its second"]} for row in rows]
    (tmp_path / sample_texts.TEST).write_text("\n".join(map(json.dumps, rows)))
    (record,) = sample_texts.sample_records(tmp_path, None, True, 1)
    assert record.texts == ("text 0", "its second")
    _, tokenizer = saved_model.load_classifier(Path(standard.parent) / "model")
    assert len(sample_texts.draw_texts(tokenizer, 7)) == 7
