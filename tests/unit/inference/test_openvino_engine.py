"""OpenVINO: the logits are torch's, by a graph of its own or of ONNX; int8 is calibrated."""

import json
import shutil

import numpy as np
import pytest

from finetune.cli import export_onnx as script
from finetune.inference import engines, onnx_quantization, openvino_engine, openvino_export
from finetune.inference.classifier import Classifier
from finetune.inference.engines import EngineOptions
from finetune.runtime.errors import InputError
from tests.unit.inference.test_onnx_architectures import (
    CHECKED,
    OTHERS,
    records,
    saved_classifier,
)

pytest.importorskip("openvino", reason="the extra openvino is not installed")
pytest.importorskip("onnxruntime", reason="the extra openvino is not installed")
pytest.importorskip("onnxscript", reason="the extra openvino is not installed")


@pytest.fixture(scope="session")
def home(shared):
    def export(folder):
        folder.mkdir()
        source = saved_classifier(folder, "bert", {})
        (folder / "rows.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in CHECKED))
        words = [source, str(folder / "out"), "--data", str(folder / "rows.jsonl")]
        assert script.main([*words, "--layout", "openvino", "--threads", "1"]) == 0

    return shared("openvino", export)


def logits_of(folder, engine, **options):
    classify = Classifier(folder, engine=engine, precision="fp32", **options)
    return classify.engine.logits(classify.encode(records(OTHERS)))


def test_the_logits_are_torch_s(home):
    expected = logits_of(home / "model", "torch", threads=1)
    assert engines.pick_engine(None, str(home / "out")) == "openvino"
    for options in ({"threads": 1}, {"threads": 2}, {"threads": 2, "tokens": 16}):
        found = logits_of(home / "out", None, **options)
        np.testing.assert_allclose(found, expected, atol=2e-5)
    classify = Classifier(home / "out", threads=2)
    assert classify.engine.reasons[0].startswith("OpenVINO ")
    assert "2 batches" in classify.engine.reasons[-1]


def test_auto_finds_the_export_beside_the_model(home):
    """Whichever is faster here, the labels are those of torch."""
    expected = Classifier(home / "model", engine="torch", precision="fp32", threads=1)(OTHERS)
    classify = Classifier(home / "model", engine="auto", precision="fp32", threads=1)
    assert classify.engine_name in ("torch", "openvino")
    assert f"auto: {classify.engine_name}, the fastest " in classify.engine.reasons[0]
    assert [one["label"] for one in classify(OTHERS)] == [one["label"] for one in expected]
    identity = json.loads((home / "out" / "identity.json").read_text())
    of_model = json.loads((home / "model" / "identity.json").read_text())
    assert identity["exported_from"] == of_model["weights"]


def test_changed_weights_are_refused(home, tmp_path):
    copy = shutil.copytree(home / "out", tmp_path / "copy")
    weights = copy / "openvino_model.bin"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    with pytest.raises(InputError, match=r"openvino_model\.bin differs"):
        Classifier(copy)


def test_it_reads_an_onnx_graph_too(home, tmp_path):
    from finetune.inference import onnx_export

    source = str(home / "model")
    classifier = Classifier(source, engine="torch", precision="fp32", threads=1)
    rows = records(CHECKED)
    reference, _ = onnx_export.make_reference(classifier, source, rows, None, 1)
    onnx_export.write_checked(source, tmp_path, reference, openvino_export.OPSETS)
    onnx_export.save_config(source, tmp_path)
    expected = logits_of(source, "torch", threads=1)
    np.testing.assert_allclose(logits_of(tmp_path, "openvino"), expected, atol=2e-5)


def test_int8_is_calibrated_and_small(home, tmp_path, monkeypatch):
    pytest.importorskip("nncf", reason="the extra openvino is not installed")
    monkeypatch.setattr(onnx_quantization, "is_good", lambda check, reference: True)
    monkeypatch.setattr(openvino_export, "multiplies_bf16", lambda: True)  # as it is on some CPUs
    source = str(home / "model")
    classifier = Classifier(source, engine="torch", precision="fp32", threads=1)
    rows = records(CHECKED)
    checks = openvino_export.export_openvino(
        classifier, source, tmp_path / "int8", rows, None, int8=True, threads=1
    )
    assert [check.name for check in checks] == ["torch fp32", "fp32", "int8 in bf16", "int8"]
    assert checks[3].megabytes < checks[1].megabytes
    identity = json.loads((tmp_path / "int8" / "identity.json").read_text())
    assert identity["kept_labels"] == checks[3].agreement
    assert identity["kept_labels_bf16"] == checks[2].agreement
    assert "FakeQuantize" in (tmp_path / "int8" / engines.OPENVINO).read_text()
    found = logits_of(tmp_path / "int8", "openvino")
    assert found.shape == (len(OTHERS), 3)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("multiplies", "in_fp32", "kept", "precision", "why"),
    [
        (True, 1.0, 1.0, "bf16", "bf16: this CPU multiplies it natively, and the export was check"),
        (True, 1.0, 0.99, "fp32", "fp32: bf16 kept 99.00 % of the labels when it was exported"),
        (True, 0.99, 0.99, "bf16", "bf16: this CPU multiplies it natively, and the export was"),
        (True, 0.99, 0.98, "fp32", "fp32: bf16 kept 98.00 % of the labels when it was exported"),
        (
            True,
            1.0,
            None,
            "fp32",
            "fp32: what the export was checked in; --precision bf16 is faster",
        ),
        (False, 1.0, 1.0, "fp32", "fp32: this CPU has no native bf16"),
    ],
)
def test_bf16_is_chosen_where_it_is_fast_and_was_checked(
    home, tmp_path, monkeypatch, multiplies, in_fp32, kept, precision, why
):
    monkeypatch.setattr(openvino_engine, "multiplies_bf16", lambda: multiplies)
    folder = shutil.copytree(home / "out", tmp_path / "out")
    file = folder / "identity.json"
    shares = {"kept_labels": in_fp32, "kept_labels_bf16": kept}
    file.write_text(json.dumps(json.loads(file.read_text()) | shares))
    engine = Classifier(folder, threads=1).engine
    assert engine.identity.endswith(f" openvino {precision}")
    assert engine.reasons[1].startswith(why)


def test_what_cannot_be_computed_is_told(tmp_path):
    with pytest.raises(InputError, match=r"expected openvino_model.xml or model.onnx, found neith"):
        openvino_engine.openvino_engine(tmp_path, EngineOptions())
    (tmp_path / engines.OPENVINO).write_text("no graph")
    with pytest.raises(InputError, match=r"OpenVINO cannot read it"):
        openvino_engine.openvino_engine(tmp_path, EngineOptions())
    with pytest.raises(InputError, match=r"--precision fp16: OpenVINO computes with auto, fp32 or"):
        openvino_engine.openvino_engine(tmp_path, EngineOptions(precision="fp16"))
