"""Models that would run code of their own: in every place where a library looks for it."""

import ast
import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants
from transformers import AutoModelForSequenceClassification, dynamic_module_utils
from transformers.utils import hub

from finetune.api.prediction import load
from finetune.config.schema import Model
from finetune.hub import verify
from finetune.modeling import build, pretrained, saved_model, source_checks
from finetune.runtime.errors import InputError
from tests.support.tiny import tiny_encoder

ROOT = Path(__file__).parents[2]


class Answers(io.StringIO):
    """Documents on stdin that would do as answers; a read is remembered."""

    was_read = False

    def readline(self, *_):
        self.was_read = True
        return "y\n"

    def fileno(self):
        raise io.UnsupportedOperation


@pytest.fixture(autouse=True)
def stdin(monkeypatch, tmp_path):
    answers = Answers("y\n" * 100)
    monkeypatch.setattr(sys, "stdin", answers)
    monkeypatch.setattr("builtins.input", lambda *_: answers.readline())
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield answers
    assert not answers.was_read, "stdin was asked"
    assert dynamic_module_utils.TIME_OUT_REMOTE_CODE > 0, "the caller's own loads still ask"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    encoder = tiny_encoder(root / "encoder")
    for head in ("linear", "native"):
        options = Model(source=str(encoder), freeze="none", head=head)
        model = build.build_classifier(str(encoder), options, ["a", "b"], "eager", 0)
        tokenizer = pretrained.load_tokenizer(str(encoder), options)
        saved_model.save_classifier(model, tokenizer, root / head)
    return root


@pytest.fixture
def attacked(saved, tmp_path):
    """A copy of a folder, changed, with a module that leaves a mark where it runs."""

    def change(name, file, **keys):
        folder = Path(shutil.copytree(saved / name, tmp_path / name))
        tree = json.loads((folder / file).read_text())
        for path, value in keys.items():
            *parents, last = path.split("__")
            part = tree
            for parent in parents:
                part = part.setdefault(parent, {})
            part[last] = value
        (folder / file).write_text(json.dumps(tree))
        code = f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n"
        (folder / "theirs.py").write_text(code)
        return folder

    yield change
    assert not (tmp_path / "ran").exists(), "the code ran"


AUTO_MAP = {
    name: f"theirs.{name}"
    for name in (
        "AutoConfig",
        "AutoModel",
        "AutoModelForSequenceClassification",
        "AutoTokenizer",
        "AutoProcessor",
    )
}
CONFIGS = {
    "an encoder of a kind without a model": {
        "encoder__auto_map": AUTO_MAP,
        "encoder__model_type": "clip_text_model_unknown",
    },
    "an encoder that transformers has as a config alone": {
        "encoder__auto_map": AUTO_MAP,
        "encoder__model_type": "encoder-decoder",
    },
    "an encoder that transformers has": {"encoder__auto_map": AUTO_MAP},
    "another repository": {"encoder__auto_map": {k: f"a/b--{v}" for k, v in AUTO_MAP.items()}},
    "the whole": {"auto_map": AUTO_MAP, "model_type": "theirs"},
    "the whole, and a known kind": {"auto_map": AUTO_MAP},
    "a text config": {"encoder__text_config": {"auto_map": AUTO_MAP, "model_type": "theirs"}},
    "a backbone": {"backbone_config": {"auto_map": AUTO_MAP, "model_type": "theirs"}},
    "a decoder": {"encoder__decoder": {"auto_map": AUTO_MAP, "model_type": "theirs"}},
    "a kernel": {"_attn_implementation": "owner/kernel"},
    "a kernel within": {"encoder__attn_implementation": "owner/kernel@main:f"},
    "kernels by part": {"encoder___attn_implementation": {"": "owner/kernel"}},
    "a kernel of experts": {"experts_implementation": "owner/kernel"},
    "quantization": {"quantization_config": {"quant_method": "torchao", "quant_type": "a/b"}},
    "quantization within": {"encoder__quantization_config": {"quant_method": "bitsandbytes"}},
    "a pipeline": {"custom_pipelines": {"text-classification": {"impl": "theirs.Pipe"}}},
    "other weights": {"transformers_weights": "pytorch_model.bin"},
}


def try_all(folder):
    """Every way to read a model; what each refuses."""
    problems = []
    for read in (
        lambda: pretrained.load_config(str(folder), Model()),
        lambda: pretrained.load_tokenizer(str(folder), Model()),
        lambda: build.build_classifier(str(folder), Model(freeze="none"), ["a", "b"], "eager", 0),
        lambda: saved_model.load_classifier(folder),
        lambda: load(folder)(["a text"]),
    ):
        try:
            read()
        except InputError as error:
            problems.append(str(error))
        else:
            problems.append("")
    return problems


@pytest.mark.parametrize("head", ["linear", "native"])
@pytest.mark.parametrize("form", CONFIGS)
def test_no_config_runs_code(attacked, head, form):
    keys = CONFIGS[form]
    if head == "native":
        keys = {key.removeprefix("encoder__"): value for key, value in keys.items()}
    problems = try_all(attacked(head, "config.json", **keys))
    assert all("\n" not in problem for problem in problems)
    if "kernel" in form:
        assert all("owner/kernel" in problem for problem in problems)
    if "quantization" in form:
        assert all("expected weights that are not quantized" in problem for problem in problems)
    if form == "other weights":
        assert all("the weights in model.safetensors and no other" in one for one in problems)
    if form in ("an encoder that transformers has", "another repository"):
        assert problems == [""] * 5  # it needs no code of its own, and gets none


@pytest.mark.parametrize("value", ["theirs.Theirs", [None, "theirs.Theirs"], "a/b--theirs.Theirs"])
def test_no_tokenizer_runs_code(attacked, value):
    keys = {"auto_map": {"AutoTokenizer": value}, "tokenizer_class": "TheirTokenizer"}
    if isinstance(value, str):
        keys["auto_map"]["AutoTokenizer"] = [value, None]
    try_all(attacked("linear", "tokenizer_config.json", **keys))


def test_no_adapter_is_loaded(attacked):
    folder = attacked("linear", "config.json")
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "a/b", "peft_type": "LORA"})
    )
    assert all("expected a whole model, found an adapter" in one for one in try_all(folder))


def test_no_adapter_of_the_hub_is_loaded(saved, tmp_path, monkeypatch):
    """With PEFT, transformers would load the model that the adapter names in its place."""
    repository = tmp_path / "cache" / "models--ann--adapter"
    snapshot = Path(shutil.copytree(saved / "linear", repository / "snapshots" / ("a" * 40)))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (snapshot / "adapter_config.json").write_text('{"base_model_name_or_path": "a/b"}')
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "is_offline_mode", lambda: True)
    for module, name in ((constants, "HF_HUB_CACHE"), (hub, "TRANSFORMERS_CACHE")):
        monkeypatch.setattr(module, name, str(tmp_path / "cache"), raising=False)
    with pytest.raises(InputError, match="expected a whole model, found an adapter"):
        source_checks.check_source("ann/adapter", "model.source")
    (snapshot / "adapter_config.json").unlink()
    source_checks.check_source("ann/adapter", "model.source")


def test_no_generation_config_or_processor_runs_code(attacked):
    folder = attacked("linear", "config.json")
    for name in ("generation_config.json", "processor_config.json", "preprocessor_config.json"):
        (folder / name).write_text(
            json.dumps({"auto_map": AUTO_MAP, "custom_generate": "theirs", "trust": True})
        )
    assert try_all(folder) == [""] * 5


def test_whoever_trusts_the_modelling_file_has_not_trusted_its_encoder(attacked):
    """As a third party loads it, with the file that travels with the weights."""
    folder = attacked(
        "linear",
        "config.json",
        encoder__auto_map={"AutoModel": "theirs.AutoModel"},
        encoder__model_type="encoder-decoder",
    )
    with pytest.raises(Exception, match=r"."):
        AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)


def test_a_verification_asks_nothing(attacked, tmp_path):
    folder = attacked("linear", "config.json", encoder__auto_map=AUTO_MAP)
    (folder / "theirs.py").unlink()
    assert verify.verify_logits(folder, folder, folder) == verify.SAMPLES
    (folder / "theirs.py").write_text("raise SystemExit")
    with pytest.raises(InputError, match=r"theirs\.py differs from this version's"):
        verify.verify_logits(folder, folder, folder)


def loads():
    """Every call of a library that may run code of a model: file, line, name, its keywords."""
    for folder in ("finetune", "scripts"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    owner = ast.unparse(node.func.value)
                    called = f"{owner}.{node.func.attr}"
                    if owner != "DecisionRules":
                        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                        yield f"{file.relative_to(ROOT)}:{node.lineno}", called, keywords


def test_every_load_says_whether_it_trusts():
    found = [
        one for one in loads() if one[1].rpartition(".")[2] in ("from_pretrained", "from_config")
    ]
    assert len(found) >= 11
    silent = [
        (where, name) for where, name, keywords in found if "trust_remote_code" not in keywords
    ]
    assert silent == []
    trusting = [where for where, _, keywords in found if keywords["trust_remote_code"] == "True"]
    assert trusting == []


def test_metrics_of_evaluate_are_loaded_in_one_place():
    [(where, _, _)] = [one for one in loads() if one[1] == "evaluate.load"]
    assert where.startswith("finetune/evaluation/metrics.py")
    tables = [one for one in loads() if one[1] == "datasets.load_dataset"]
    assert [where.partition(":")[0] for where, _, _ in tables] == ["finetune/data/hub_data_sets.py"]


def test_nothing_asks_on_stdin():
    names = {
        called
        for _, called, _ in loads()
        if called in ("builtins.input", "getpass.getpass", "click.confirm", "click.prompt")
    }
    assert names == set()
    calls = [
        file
        for file in (ROOT / "finetune").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "input"
    ]
    assert calls == []
    assert os.name  # the walk above has found the package
