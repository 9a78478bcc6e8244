"""Answering one text needs torch, transformers and numpy: no library that training or scoring use.

transformers itself imports accelerate wherever that is installed (`transformers.modeling_utils`,
for one), so `sys.modules` alone cannot tell who wanted it. The second test therefore hides all
four libraries, as if they were not installed: what answers then needs none of them.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from finetune.config import schema
from finetune.modeling import build, pretrained, saved_model
from tests.support.tiny import tiny_encoder

ROOT = Path(__file__).parents[3]
ANSWER = (
    "from finetune.inference.classifier import Classifier\n"
    "[answer] = Classifier(sys.argv[1], threads=1)('the good film')\n"
    "assert answer['label'] in ('bad', 'good'), answer\n"
)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    source = str(tiny_encoder(folder / "encoder"))
    choices = schema.Model(source=source, freeze="none")
    classifier = build.build_classifier(source, choices, ["bad", "good"], "sdpa", seed=0)
    tokenizer = pretrained.load_tokenizer(source, choices)
    saved_model.save_classifier(classifier, tokenizer, folder / "model")
    return folder / "model"


def run_python(code, *arguments):
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, check=True, timeout=600
    )


def test_answering_loads_no_library_of_training(model_folder):
    run_python(
        f"import sys\n{ANSWER}"
        "loaded = {'evaluate', 'datasets', 'sklearn'} & set(sys.modules)\n"
        "assert not loaded, loaded\n",
        model_folder,
    )


def test_answering_works_where_they_are_not_installed(model_folder):
    run_python(
        "import sys\n"
        "for name in ('evaluate', 'datasets', 'sklearn', 'accelerate'):\n"
        "    sys.modules[name] = None  # importing it fails, and find_spec finds nothing\n"
        f"{ANSWER}",
        model_folder,
    )
