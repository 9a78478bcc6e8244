"""What `auto` came to is saved, with sources that are found from anywhere."""

from pathlib import Path

from finetune.config import schema
from finetune.training.resolution import Resolution


def test_the_recipe_to_save(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("text,label\n")
    recipe = schema.Recipe(
        data=schema.Data(source="rows.csv"),
        model=schema.Model(source="owner/encoder"),
        run=schema.Run(name="tickets", dir="here", overwrite=True),
    )
    resolution = Resolution({"data": {"max_length": 64}, "train": {"precision": "fp32"}})
    saved = resolution.apply(recipe)
    assert saved.data.source == str(Path(tmp_path, "rows.csv"))
    assert saved.model.source == "owner/encoder"
    assert (saved.data.max_length, saved.train.precision) == (64, "fp32")
    assert (saved.run.name, saved.run.dir, saved.run.overwrite) == ("tickets", None, False)
    assert resolution.apply(saved) == saved
    with_rate = resolution.apply(recipe.with_rate(0.5))
    assert (with_rate.optim.lr, with_rate.data) == (0.5, saved.data)
