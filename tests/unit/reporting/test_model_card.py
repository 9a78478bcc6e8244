"""The model card: the Hub's metadata, what it says, and what it must not say."""

import contextlib
import re
import shutil

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from finetune.config import loader
from finetune.reporting import model_card
from finetune.reporting.results_model import read_results
from tests.support.runs import results, run_here


@pytest.fixture(scope="session")
def run(documents, shared):
    def train(folder):
        shutil.copytree(documents / "encoder", folder / "encoder")
        (folder / "encoder" / "README.md").write_text(
            "---\nlicense: apache-2.0\nlanguage: en\ntags: [x]\n---\n# Some encoder\n"
        )
        for name in ("data", "tiny.yaml"):
            (folder / name).symlink_to(documents / name)
        with contextlib.chdir(folder):
            run_here("run.dir=carded", "train.epochs=1", "run.name=tiny _news_ [x]")

    return shared("carded", train) / "carded"


def test_the_hub_s_metadata(run):
    read = ModelCard.load(run / "model" / "README.md")
    data, found = read.data, results(run)
    assert (data.pipeline_tag, data.library_name) == ("text-classification", "transformers")
    assert (data.license, data.language) == ("apache-2.0", "en")  # of the encoder's own card
    assert data.base_model is None  # a folder here is no Hub id
    assert data.metrics == ["accuracy", "f1"]
    assert [(one.metric_name, one.metric_value) for one in data.eval_results] == [
        (name, round(found["test"][name], 6)) for name in ("accuracy", "f1_macro")
    ]
    for one in data.eval_results:
        assert (one.task_type, one.dataset_split) == ("text-classification", "test")
    # Read back and written again, it is the same: what the Hub's client takes for valid.
    index = data.to_dict()["model-index"]
    assert model_index_to_eval_results(index)[1] == data.eval_results


@pytest.mark.parametrize(("found", "said"), [("de", "de"), ("en", "en"), (None, "en")])
def test_the_language_is_that_of_the_documents(run, found, said):
    results_of = read_results(run)
    of = results_of.model_copy(
        update={"data": results_of.data.model_copy(update={"language": found})}
    )
    recipe = loader.load(run / "recipe.yaml", [])
    assert model_card.metadata(of, recipe, str(run.parent / "encoder")).language == said


def test_a_hub_encoder_and_hub_documents(run):
    found = read_results(run)
    choices = loader.load(
        run / "recipe.yaml",
        ["model.source=org/encoder", "data.source=org/news", "data.config=plain",
         "publish.repo_id=ann/mine", "publish.license=mit", "publish.language=[de, fr]"],
    )  # fmt: skip
    data = model_card.metadata(found, choices, "org/encoder")
    assert (data.base_model, data.datasets, data.license) == ("org/encoder", ["org/news"], "mit")
    assert data.language == ["de", "fr"]
    assert data.model_name == "mine"
    assert data.eval_results[0].dataset_type == "org/news"
    assert data.eval_results[0].dataset_config == "plain"


@pytest.mark.parametrize(
    ("source", "shown", "base"),
    [
        ("static:org/encoder", "static:org/encoder", "org/encoder"),
        ("static:package:some/model", "static:package:some/model", None),
        ("static:/home/ann/encoder", "static:encoder", None),
    ],
)
def test_the_encoder_of_static_embeddings(run, source, shown, base):
    found = read_results(run)
    choices = loader.load(run / "recipe.yaml", [])
    choices = choices.model_copy(
        update={"model": choices.model.model_copy(update={"source": source})}
    )
    assert model_card.metadata(found, choices, "elsewhere").base_model == base
    saved = loader.to_yaml(model_card._without_paths(choices), whole=False)
    assert f"source: {shown}\n" in saved


def test_what_it_says(run):
    text, found = (run / "model" / "README.md").read_text(encoding="utf-8"), results(run)
    for part in (
        "## Intended use",
        "## Scores",
        "## Calibration and abstention",
        "## Limitations seen in the data",
        "## Training data",
        "## Training\n",
        "## How to reproduce",
        "finetune train recipe.yaml",
        found["hashes"]["weights"],
        'model="model", trust_remote_code=True',
        "epochs: 1",
    ):
        assert part in text, part
    low, high = found["test"]["intervals"]["f1_macro"]
    assert f"{found['test']['f1_macro']:.4f} | {low:.4f} to {high:.4f}" in text
    assert r"# tiny \_news\_ \[x\]" in text
    loads = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert len([line for line in loads.splitlines() if line]) == 3


def test_what_it_must_not_say(run, documents):
    """No document, and no path of this machine."""
    text = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert str(documents) not in text
    for mistake in results(run)["mistakes"]:
        assert mistake["text"] not in text


def test_three_lines_load_it(run, monkeypatch):
    text = (run / "model" / "README.md").read_text(encoding="utf-8")
    monkeypatch.chdir(run)
    space = {}
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], space)
    assert space["classify"]("A document.")[0]["label"] in "abc"
