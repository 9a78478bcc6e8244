"""Shipped recipes: found by name in a checkout and in a wheel, and what a list says of them."""

import shutil
from pathlib import Path

import pytest

from finetune.config import loader, shipped_recipes
from finetune.runtime.errors import InputError
from tests.support.processes import ROOT

FILES = sorted((ROOT / "recipes").glob("*.yaml"))


def test_a_checkout_has_them_beside_the_package():
    assert shipped_recipes.folder() == ROOT / "recipes"
    assert list(shipped_recipes.recipe_files().values()) == FILES
    assert len(FILES) >= 17


def test_a_wheel_has_them_in_the_package(tmp_path, monkeypatch):
    homes = (tmp_path / "finetune" / "recipes", tmp_path / "recipes")
    monkeypatch.setattr(shipped_recipes, "HOMES", homes)
    with pytest.raises(InputError, match="the shipped recipes are missing; install the package"):
        shipped_recipes.folder()
    shutil.copytree(ROOT / "recipes", homes[0])
    assert shipped_recipes.folder() == homes[0]
    monkeypatch.chdir(tmp_path)
    found = shipped_recipes.find_recipe("bbc_news")
    assert found == Path("finetune/recipes/bbc_news.yaml")
    assert loader.load(found).run.name == "bbc_news"
    assert shipped_recipes.accelerate_config().is_file()


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped_recipes.find_recipe("bbc_news") == ROOT / "recipes" / "bbc_news.yaml"
    (tmp_path / "bbc_news").mkdir()  # a folder is no recipe
    assert shipped_recipes.find_recipe("bbc_news") == ROOT / "recipes" / "bbc_news.yaml"
    (tmp_path / "imdb").write_text("data: {source: mine}")
    assert shipped_recipes.find_recipe("imdb") == Path("imdb")
    (tmp_path / "mine.yaml").write_text("data: {source: mine}")
    assert shipped_recipes.find_recipe(Path("mine.yaml")) == Path("mine.yaml")
    assert shipped_recipes.find_recipe("none.yaml") == Path("none.yaml")  # for the loader to tell


def test_what_is_neither_a_file_nor_a_name_has_a_hint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped_recipes, "command", lambda *words: " ".join(("finetune", *words)))
    for word, problem in (
        ("bbc_nws", "no such file, and no shipped recipe of that name; did you mean 'bbc_news'?"),
        (
            "recipes/imdb.yaml",
            "no such recipe file; the shipped recipe is called imdb (finetune recipes imdb "
            "prints it)",
        ),
    ):
        with pytest.raises(InputError) as caught:
            shipped_recipes.find_recipe(word)
        assert str(caught.value) == f"{word}: {problem}"
    with pytest.raises(InputError, match="xyzzy: no shipped recipe of that name; they are: 20_n"):
        shipped_recipes.read_recipe("xyzzy")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_header_says_what_the_list_shows(file):
    found = shipped_recipes.describe(file.stem, file)
    labels = loader.load(file).data.labels
    assert found.labels == len(labels) if labels is not None else found.labels >= 2
    assert 20 < len(found.about) < 100
    text = file.read_text(encoding="utf-8")
    measured = "not been run here" not in text
    assert measured or found.score is None
    assert found.offline == (file.stem in ("bbc_news", "bbc_windows"))


def test_scores_are_those_of_the_headers():
    files = shipped_recipes.recipe_files()
    found = {name: shipped_recipes.describe(name, file) for name, file in files.items()}
    scores = {name: recipe.score for name, recipe in found.items()}
    assert found["bbc_news"].interval == "95.4 to 98.5"
    assert found["rte"].interval == "51.1 to 62.7"
    assert found["sms_spam"].interval is None
    assert scores["bbc_news"] == "accuracy 97.4 %"
    assert scores["goemotions"] == "micro-F1 59.5 %"
    assert scores["imdb"] is None
    assert len([score for score in scores.values() if score]) >= 10
