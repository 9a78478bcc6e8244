"""What a person means by a model: the folder in a run's, or what they should have named."""

from pathlib import Path

import pytest

from finetune.modeling.model_folder import find_model
from finetune.runtime.errors import InputError


def make_run(folder: Path, finished: bool = True) -> Path:
    (folder / "model").mkdir(parents=True) if finished else folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("data: {source: x}\n")
    if finished:
        (folder / "model" / "config.json").write_text("{}")
    return folder


def test_the_model_of_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a")
    assert find_model(run) == find_model(run / "model") == str(run / "model")
    assert find_model("owner/model") == "owner/model"
    with pytest.raises(InputError, match=r"holds 1 run, and is not a run itself; name one, such"):
        find_model(tmp_path / "runs")
    with pytest.raises(InputError, match="unfinished run: it holds no model yet"):
        find_model(make_run(tmp_path / "b", finished=False))
    with pytest.raises(InputError, match="no such file or folder; did you mean"):
        find_model(tmp_path / "bb")


def test_a_model_elsewhere_is_not_followed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model").symlink_to(run / "model")
    with pytest.raises(InputError, match="found a link that leads out of it"):
        find_model(tmp_path / "b")
