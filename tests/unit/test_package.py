"""`import finetune`: cheap, with its names at hand."""

import subprocess
import sys

import pytest

import finetune
from finetune.config import python_recipe
from tests.support.processes import ENVIRONMENT, ROOT


def python(code):
    found = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return found.stdout.split()


def test_nothing_heavy_loads_before_it_is_needed():
    heavy = "{'torch', 'numpy', 'pydantic', 'pandas', 'datasets', 'transformers', 'accelerate'}"
    loaded = f"print(*{heavy} & {{*sys.modules}})"
    assert python(f"import sys, finetune; dir(finetune); {loaded}") == []
    found = python(
        "import sys, finetune\ntry: finetune.train(data='a.csv', epochs=3)\n"
        f"except finetune.InputError: {loaded}"
    )
    assert set(found) <= {"pydantic", "numpy"}


def test_its_names_are_there_once_each():
    assert sorted(finetune._HOMES) == sorted({*finetune.__all__} - {"__version__"})
    for name in finetune.__all__:
        assert getattr(finetune, name) is not None
        assert name in dir(finetune)
    assert finetune.Recipe is python_recipe.Recipe
    with pytest.raises(AttributeError, match="module 'finetune' has no attribute 'fit'"):
        finetune.fit  # noqa: B018
