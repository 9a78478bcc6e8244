"""`publish`: what a run does with the Hub; `test_push.py` publishes for real."""

import subprocess
import sys

import pytest

from finetune.config.schema import Publish, Recipe
from finetune.hub import publish
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
