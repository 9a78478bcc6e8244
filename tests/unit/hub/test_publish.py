"""`publish`: what a run does with the Hub; `test_push.py` publishes for real."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from finetune.config.schema import Model, Publish, Recipe
from finetune.hub import publish, push, push_standard
from finetune.runtime.errors import InputError


def test_a_recipe_that_names_no_repository_needs_no_client():
    code = """
import sys
from pathlib import Path
import finetune.pipeline
from finetune.config.schema import Publish, Recipe
from finetune.hub import publish
recipe = Recipe.model_construct(publish=Publish())
publish.check_access(recipe)
publish.push_model(recipe, Path("nowhere"))
assert "finetune.hub.push" not in sys.modules and "finetune.hub.client" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_repository_is_checked_before_training():
    recipe = Recipe.model_construct(publish=Publish.model_construct(repo_id="no repository"))
    with pytest.raises(InputError, match=r"publish.repo_id: 'no repository' is not a valid"):
        publish.check_access(recipe)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("it cannot be exported"), "it cannot be exported; the model is safe in {}; "),
        (RuntimeError("no shape\nof it"), "RuntimeError: no shape; "),  # a quantizer's, say
    ],
)
def test_an_export_that_fails_names_the_command_that_repeats_it(tmp_path, monkeypatch, error, said):
    def fail(*_):
        raise error

    settings = Publish.model_construct(
        repo_id="ann/model", onnx=True, private=False, revision=None, pull_request=False
    )
    monkeypatch.setattr(push, "push", lambda *_, **__: SimpleNamespace(url="there"))
    monkeypatch.setattr(push_standard.model_files, "find_model_folder", lambda run: run / "model")
    monkeypatch.setattr(push_standard, "Classifier", lambda *_, **__: None)
    monkeypatch.setattr(push_standard.standard_layout, "sample_rows", lambda *_: [])
    monkeypatch.setattr(push_standard.standard_layout, "export_standard", fail)
    (problem,) = publish.push_model(
        Recipe.model_construct(publish=settings, model=Model()), tmp_path
    )
    assert problem.startswith(
        "publish.onnx: the run is finished and its model published, but not as ONNX: "
        f"{said.format(tmp_path / 'model')}push it again with: "
    )
    assert problem.endswith(f"push_to_hub.py {tmp_path} ann/model --onnx")
