"""scripts/export_onnx.py: the answers are torch's, int8 says what it costs, or is refused."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest

from finetune.cli import export_onnx as script
from finetune.inference import engines, onnx_comparison, onnx_export, onnx_quantization
from finetune.inference.classifier import Classifier
from finetune.runtime.errors import InputError
from tests.end_to_end.test_predict import classifier, expected, here, predicted, run, texts, write  # noqa: F401

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")


@pytest.fixture(scope="session")
def exported(classifier, shared):  # noqa: F811
    def export(folder):
        folder.mkdir()
        write(folder / "a.jsonl")
        words = [str(classifier), str(folder / "onnx"), "--data", str(folder / "a.jsonl")]
        assert script.main([*words, "--threads", "1"]) == 0

    return shared("exported", export) / "onnx"


def test_answers_are_torch_s(exported, here, expected):  # noqa: F811
    assert (exported / engines.ONNX).is_file()
    assert not list(exported.glob("*.safetensors"))
    operators = Counter(node.op_type for node in onnx.load(exported / engines.ONNX).graph.node)
    assert (operators["Attention"], operators["Gelu"]) == (2, 2)  # each layer's, in one piece
    classify = Classifier(exported, threads=1)
    assert "ONNX Runtime" in classify.engine.reasons[0]
    found = classify(texts(), probabilities=True)
    chances = [list(answer["probabilities"].values()) for answer in found]
    np.testing.assert_allclose(chances, expected, atol=5e-5)
    write(here / "a.csv")
    run(str(exported), "a.csv", "--output", "out.csv", "--engine", "onnx")
    assert [row["label"] for row in predicted(here / "out.csv")] == [
        answer["label"] for answer in found
    ]


@pytest.fixture
def quick(monkeypatch, exported):
    """The graph as it was exported already, which takes seconds."""

    def again(source, table, file, opset):
        for made in exported.glob(f"{engines.ONNX}*"):
            shutil.copy(made, file.with_name(made.name))

    monkeypatch.setattr(onnx_export, "to_onnx", again)


def labelled(here, expected, flipped=0):  # noqa: F811
    names = Classifier(here / "model", precision="fp32", threads=1).labels
    rows = [
        {"text": text, "label": names[(int(chances.argmax()) + (i < flipped)) % 3]}
        for i, (text, chances) in enumerate(zip(texts(), expected, strict=True))
    ]
    write(here / "l.jsonl", rows)


def test_int8_says_its_accuracy(quick, here, expected, capsys, monkeypatch):  # noqa: F811
    labelled(here, expected, flipped=30)
    monkeypatch.setattr(onnx_quantization, "MAX_LOST", 0.2)
    words = ["model", "int8", "--data", "l.jsonl", "--label", "label", "--int8", "--threads", "1"]
    assert script.main(words) == 0
    said = capsys.readouterr().out
    assert "300 rows" in said
    assert said.split("torch fp32")[1].split()[3:5] == ["90.00", "%"]
    assert "Written to int8: int8" in said
    small, large = ((here / name / engines.ONNX) for name in ("int8", "model"))
    assert small.is_file()
    assert not large.exists()
    operators = (here / "int8" / engines.ONNX).read_bytes()
    assert b"MatMulInteger" in operators or b"QuantizeLinear" in operators
    run("int8", "l.jsonl", "--output", "out.csv")
    same = [
        row["label"] == json.loads(line)["label"]
        for row, line in zip(predicted(here / "out.csv"), (here / "l.jsonl").open(), strict=True)
    ]
    assert 0.6 < np.mean(same) < 0.95


def test_int8_that_answers_otherwise_is_refused(quick, here, expected, capsys, monkeypatch):  # noqa: F811
    labelled(here, expected)
    words = ["model", "int8", "--data", "l.jsonl", "--int8", "--threads", "1"]
    worse = np.roll(np.eye(3, dtype=np.float32)[expected.argmax(1)], 1, axis=1)

    def compared(name, folder, reference):
        logits = worse if "int8" in name else reference.logits
        same = float((logits.argmax(1) == reference.logits.argmax(1)).mean())
        return onnx_comparison.Check(name, same, 0.0, reference.accuracy(logits), 1.0, 1.0)

    monkeypatch.setattr(onnx_comparison, "compare_with_torch", compared)
    assert script.main(words) == 2
    assert capsys.readouterr().err == (
        "error: --int8: 100.0 % of 300 predicted labels change (int8 dynamic, the best of 2); "
        "nothing was written. Export without --int8, or give labelled rows with --data and "
        "--label\n"
    )
    assert script.main([*words, "--label", "label"]) == 2
    assert capsys.readouterr().err == (
        "error: --int8: accuracy falls from 100.00 to 0.00 % (int8 dynamic, the best of 2); "
        "nothing was written. Export without --int8\n"
    )
    assert sorted(path.name for path in here.iterdir()) == ["l.jsonl", "model"]


def test_messages(here, capsys, tmp_path):  # noqa: F811
    write(here / "a.csv")
    (here / "taken").mkdir()
    assert script.main(["./none", "taken", "--data", "none.csv"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: taken: exists already; choose another name",
        "error: MODEL: ./none: no such file or folder; the folder . contains: a.csv, model, taken",
        "error: INPUT: none.csv: no such file or folder; did you mean a.csv?",
    ]
    assert script.main(["model", "new", "--data", "a.csv", "--label", "n"]) == 2
    assert "--label n: expected sports, money, tech, found 0, 1, 10" in capsys.readouterr().err
    assert script.main(["model", "new", "--data", "a.csv", "--label", "lable"]) == 2
    assert capsys.readouterr().err == (
        "error: a.csv: no column 'lable' (--label) (columns: 'text', 'n')\n"
    )
    (tmp_path / "bad").mkdir()
    shutil.copy(here / "model" / "config.json", tmp_path / "bad")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(here / "model" / name, tmp_path / "bad")
    with pytest.raises(InputError, match=r"expected model.onnx, found none"):
        Classifier(tmp_path / "bad", engine="onnx")
    (tmp_path / "bad" / engines.ONNX).write_bytes(b"no graph")
    with pytest.raises(InputError, match="ONNX Runtime cannot read it"):
        Classifier(tmp_path / "bad")
