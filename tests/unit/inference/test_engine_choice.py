"""`--engine auto`: the fastest that keeps the labels, among exports of the very same weights."""

import json
import os
from types import SimpleNamespace

import pytest

from finetune.inference import engine_choice, engines
from finetune.inference.engine_choice import Choice, choose_engine
from finetune.inference.records import Record
from finetune.modeling import model_identity
from finetune.runtime.errors import InputError

WEIGHTS = {"model.safetensors": "0" * 64}


@pytest.fixture
def model(tmp_path):
    """A model, an export of it beside it, one in it, and others that are none of it."""
    folder = tmp_path / "run" / "model"
    write(folder, "model.safetensors", {"weights": WEIGHTS})
    ours = {"exported_from": WEIGHTS, "kept_labels": 0.999}
    write(folder.parent / "int8", engines.ONNX, ours)
    write(folder / "openvino", engines.OPENVINO, ours)
    write(folder.parent / "older", engines.ONNX, {"exported_from": {"model.safetensors": "1"}})
    write(folder.parent / "unknown", engines.ONNX, {})
    write(folder.parent / "damaged", engines.ONNX, None)
    (folder.parent / "link").symlink_to(folder.parent / "int8")
    return folder


def write(folder, file, identity):
    (folder / file).parent.mkdir(parents=True)
    (folder / file).touch()
    whole = {"tokenizer": "", "weights": {}, "labels": 2} | (identity or {})
    text = "{" if identity is None else json.dumps(whole)
    (folder / model_identity.FILE).write_text(text)


class Engines:
    """Stands for classifiers; each engine's time is that of a clock which only it moves."""

    def __init__(self, monkeypatch, seconds, wrong=()):
        self.now, self.seconds, self.wrong, self.seen = 0.0, seconds, wrong, []
        self.detector, self.abstains, self.cold = None, {}, {}
        monkeypatch.setattr(engine_choice, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(engines.EngineEntry, "is_installed", True)

    def load(self, choice):
        name = choice.engine if choice.graph is None else choice.graph
        if isinstance(self.seconds.get(name), Exception):
            raise self.seconds[name]
        if name not in self.seconds:
            raise InputError(f"{name}: cannot be read")

        def logits(table):
            self.now += self.seconds[name] * len(table) + self.cold.pop(name, 0)
            self.seen.append((name, len(table)))
            return table

        def decide(rows, logits):
            for number, row in enumerate(rows):
                yield {"label": "no" if name in self.wrong and number < 2 else row.texts[0]}

        abstains = self.abstains.get(name)
        rules = SimpleNamespace(
            detector=self.detector, number=None, tasks=None, abstain_below=abstains
        )
        return SimpleNamespace(
            engine=SimpleNamespace(logits=logits), encode=list, decide=decide, rules=rules,
            reading="as trained",
        )  # fmt: skip

    def choose(self, model, rows=400):
        return choose_engine(
            str(model), self.load, lambda _: [Record((str(i),), ()) for i in range(rows)]
        )


def test_the_fastest_is_chosen(model, monkeypatch):
    known = Engines(monkeypatch, {"torch": 0.01, "onnx": 0.005, "openvino": 0.008})
    choice = known.choose(model)
    assert (choice.engine, choice.folder) == ("onnx", str(model.parent / "int8"))
    (reason,) = choice.reasons
    assert reason.startswith(
        "auto: onnx, the fastest that keeps 99.8 % of the labels on the first 32 rows: "
        "torch 100 rows/s; "
    )
    assert "onnx of " in reason
    assert " 200 rows/s" in reason


def test_it_takes_about_a_second(model, monkeypatch):
    known = Engines(monkeypatch, {"torch": 0.001, "onnx": 0.001, "openvino": 0.001})
    known.choose(model)
    assert {count for _, count in known.seen} == {8, 16, 32, 64, 128, 256}
    assert known.now < 2.5
    slow = Engines(monkeypatch, {"torch": 0.001, "onnx": 0.1, "openvino": 0.1})
    assert slow.choose(model).engine == "torch"
    assert {count for name, count in slow.seen if name != "torch"} == {8}


def test_one_that_changes_labels_is_not_chosen(model, monkeypatch):
    known = Engines(monkeypatch, {"torch": 0.01, "onnx": 0.005, "openvino": 0.008}, wrong=("onnx",))
    choice = known.choose(model)
    assert (choice.engine, choice.folder) == ("openvino", str(model / "openvino"))
    assert "200 rows/s, but 2 labels changed" in choice.reasons[0]


@pytest.mark.parametrize(("kept", "said"), [(0.99, "99.00 %"), (None, "an unknown share")])
def test_one_that_changed_labels_when_it_was_exported_is_not_tried(model, monkeypatch, kept, said):
    """The probe has too few rows to see that."""
    file = model.parent / "int8" / model_identity.FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"kept_labels": kept}))
    known = Engines(monkeypatch, {"torch": 0.01, "onnx": 0.001, "openvino": 0.008})
    choice = known.choose(model)
    assert choice.engine == "openvino"
    assert f" kept {said} of the labels when it was exported; " in choice.reasons[0]
    assert "onnx" not in {name for name, _ in known.seen}


def test_one_that_cannot_be_loaded_is_told(model, monkeypatch):
    choice = Engines(monkeypatch, {"torch": 0.01, "onnx": 0.02}).choose(model)
    assert (choice.engine, choice.folder) == ("torch", str(model))
    assert " cannot be used (openvino: cannot be read)" in choice.reasons[0]


def test_a_library_that_lacks_one_of_its_own_is_told(model, monkeypatch):
    broken = ImportError("libgomp.so.1: cannot open shared object file")
    choice = Engines(monkeypatch, {"torch": 0.01, "onnx": 0.005, "openvino": broken}).choose(model)
    assert choice.engine == "onnx"
    assert f" cannot be used ({broken})" in choice.reasons[0]


def test_a_model_that_tells_documents_out_of_scope_keeps_its_engine(model, monkeypatch):
    """No export tells them: it has no states to compare."""
    known = Engines(monkeypatch, {"torch": 0.01, "onnx": 0.001, "openvino": 0.001})
    known.detector = object()
    said = "auto: torch, which alone tells documents out of scope"
    assert known.choose(model) == Choice("torch", str(model), (said,))
    assert not known.seen


def test_one_that_decides_in_another_way_is_not_tried(model, monkeypatch):
    """The few rows of the probe may all be decided alike."""
    known = Engines(monkeypatch, {"torch": 0.01, "onnx": 0.001, "openvino": 0.008})
    known.abstains = {"onnx": 0.5}
    choice = known.choose(model)
    assert choice.engine == "openvino"
    assert " reads or decides in another way: config.json was changed;" in choice.reasons[0]
    assert "onnx" not in {name for name, _ in known.seen}


def test_the_first_pass_of_no_engine_counts(model, monkeypatch):
    known = Engines(monkeypatch, {"torch": 0.05, "onnx": 0.06, "openvino": 0.06})
    known.cold = {"torch": 10, "onnx": 10, "openvino": 10}
    assert known.choose(model).engine == "torch"


def test_folders_that_may_not_be_read_are_passed_over(model, monkeypatch):
    known = Engines(monkeypatch, {"torch": 0.01, "onnx": 0.005, "openvino": 0.008})
    allowed, scandir = os.access, os.scandir

    def scan(place):
        if place == model.parent:
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scan)
        assert known.choose(model).folder == str(model / "openvino")
    monkeypatch.setattr(
        os, "access", lambda file, how: "int8" not in str(file) and allowed(file, how)
    )
    assert known.choose(model).folder == str(model / "openvino")


def test_no_export_and_no_row(model, monkeypatch, tmp_path):
    known = Engines(monkeypatch, {"torch": 0.01, "onnx": 0.005, "openvino": 0.005})
    assert known.choose(model, rows=0).reasons == (
        "auto: torch, as there is no row to compare engines on",
    )
    for folder in ("int8", "model/openvino"):
        (model.parent / folder / model_identity.FILE).unlink()
    said = "auto: torch, as no export of this model is beside it"
    assert known.choose(model) == Choice("torch", str(model), (said,))
    assert known.choose("org/name").reasons == (said,)
    assert not known.seen


@pytest.fixture
def standard(tmp_path):
    """An export in the standard layout, with its graph in int8."""
    folder = tmp_path / "standard"
    kept = {"kept_labels": 1.0, "kept_labels_int8": 0.999, "exported_from": WEIGHTS}
    write(folder, engines.STANDARD_ONNX, kept)
    (folder / engines.STANDARD_INT8).touch()
    return folder


def test_the_int8_graph_of_the_standard_layout_is_tried(model, standard, tmp_path, monkeypatch):
    int8 = engines.STANDARD_INT8
    known = Engines(monkeypatch, {"onnx": 0.01, "openvino": 0.02, int8: 0.001})
    choice = known.choose(standard)
    assert (choice.engine, choice.folder, choice.graph) == ("onnx", str(standard), int8)
    assert f"onnx of {os.path.relpath(standard / int8)} 1,000 rows/s" in choice.reasons[0]
    source = choice.apply(engines.ModelSource("given", "main"))
    assert source == engines.ModelSource(str(standard), "main", graph=int8)
    beside = standard.rename(model.parent / "standard")
    known = Engines(monkeypatch, {"torch": 0.02, int8: 0.001})
    assert known.choose(model).path == os.path.relpath(beside / int8)


def test_an_int8_graph_that_changed_labels_is_not_tried(standard, monkeypatch):
    file = standard / model_identity.FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"kept_labels_int8": 0.99}))
    known = Engines(monkeypatch, {"onnx": 0.01, "openvino": 0.02, engines.STANDARD_INT8: 0.001})
    choice = known.choose(standard)
    assert (choice.engine, choice.graph) == ("onnx", None)
    assert " kept 99.00 % of the labels when it was exported; " in choice.reasons[0]


def test_a_reader_that_is_installed_takes_the_place_of_one_that_is_not(standard, monkeypatch):
    known = Engines(monkeypatch, {"openvino": 0.01})
    installed = property(lambda self: self.requires == "openvino")
    monkeypatch.setattr(engines.EngineEntry, "is_installed", installed)
    (standard / engines.STANDARD_INT8).unlink()
    said = "auto: openvino, as no export of this model is beside it"
    assert known.choose(standard) == Choice("openvino", str(standard), (said,))


def test_an_export_alone_is_compared_with_its_other_readers(model, monkeypatch):
    export = model.parent / "int8"
    known = Engines(monkeypatch, {"onnx": 0.01, "openvino": 0.005})
    choice = known.choose(export)
    assert (choice.engine, choice.folder) == ("openvino", str(export))
