"""`model_files`: the allow list, foreign code, secrets, and the card's example."""

import json

import numpy as np
import pytest
import safetensors.numpy

from finetune.hub import model_files
from finetune.runtime.errors import InputError

WEIGHTS = safetensors.numpy.save({"weight": np.zeros(2, np.float32)})


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


def test_a_run_folder_s_model(folder, tmp_path):
    assert model_files.find_model_folder(folder) == folder
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(InputError, match=r"this run is not finished"):
        model_files.find_model_folder(tmp_path)
    (tmp_path / "results.json").write_text('{"incomplete": true, "failures": ["analysis failed"]}')
    with pytest.raises(InputError, match=r"not finished: analysis failed; complete it without tr"):
        model_files.find_model_folder(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    assert model_files.find_model_folder(tmp_path) == folder
    with pytest.raises(InputError, match=r"no such folder"):
        model_files.find_model_folder(tmp_path / "none")


def test_files_go_up_and_others_are_listed(folder):
    (folder / ".env").touch()
    (folder / "inner").mkdir()
    (folder / "README.md").write_text('x = pipeline("text-classification", model="here", k=1)')
    files = model_files.collect_files(folder, "ann/model")
    assert list(files) == ["README.md", "config.json", "model.safetensors"]
    assert files["README.md"] == b'x = pipeline("text-classification", model="ann/model", k=1)'
    assert model_files.size_of(files["config.json"]) == 2
    assert model_files.read_content(files["model.safetensors"]) == WEIGHTS
    assert model_files.list_other_files(folder, files) == [".env", "inner"]
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"not a model folder"):
        model_files.collect_files(folder, "ann/model")


def test_foreign_code_is_found_at_any_depth(folder):
    code = {"a": [{"auto_map": {"AutoModel": [None, "other/repo--code.Class"]}}]}
    (folder / "config.json").write_text(json.dumps(code | {"auto_map": {"AutoConfig": "own.C"}}))
    (folder / "tokenizer_config.json").write_text("no JSON")
    assert model_files.find_foreign_code(folder) == ["config.json: other/repo--code.Class"]


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        ("hf_" + "Zz9" * 12, "a Hugging Face token"), ("AKIA" + "ABCD" * 4, "an AWS key"),
        ("t" * 20, "your token"), ("-----BEGIN RSA PRIVATE " + "KEY-----", "a private key"),
    ],
)  # fmt: skip
def test_secrets_are_named_and_not_quoted(folder, secret, kind):
    (folder / "README.md").write_text(f"one\nkey {secret}")
    files = model_files.collect_files(folder, "ann/model")
    with pytest.raises(InputError) as caught:
        model_files.refuse_secrets(folder, files, "t" * 20)
    assert f"README.md: line 2 holds what looks like {kind}; nothing was pushed" in str(
        caught.value
    )
    assert secret not in str(caught.value)
