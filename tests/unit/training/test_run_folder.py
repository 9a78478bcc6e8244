"""Which folder is the run's, and what may be removed from it."""

from datetime import datetime
from pathlib import Path

import pytest

from finetune.config import schema
from finetune.runtime.errors import InputError
from finetune.runtime.folder_lock import FolderLock
from finetune.training import run_folder
from finetune.training.run_folder import Start, choose_folder, claim_folder

NOW = datetime(2026, 11, 29, 12, 30, 1)


def recipe(source="rows.csv", **run):
    return schema.Recipe(data=schema.Data(source=source), run=schema.Run(**run))


def test_a_folder_is_named_by_the_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = choose_folder(schema.Run(name="news"), NOW)
    assert folder == Path("runs/news/2026-11-29_12-30-01")
    of = recipe(name="news")
    claimed = [claim_folder(Start(folder), of.run, of, FolderLock()) for _ in range(2)]
    assert [one.name for one in claimed] == [folder.name, f"{folder.name}-2"]
    assert (claimed[1] / "recipe.yaml").is_file()


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty \(notes.txt\); choose another folder, or"):
        choose_folder(schema.Run(dir=str(tmp_path)), NOW)
    with pytest.raises(InputError, match="is a file; expected a folder"):
        choose_folder(schema.Run(dir=str(tmp_path / "notes.txt")), NOW)


def test_overwrite_removes_what_a_run_wrote_and_nothing_else(tmp_path):
    folder = tmp_path / "run"
    for name in (*run_folder.OWN_FILES, "notes.txt"):
        (folder / name).mkdir(parents=True)
    of = recipe(dir=str(folder), overwrite=True)
    claim_folder(Start(folder), of.run, of, FolderLock())
    assert {path.name for path in folder.iterdir()} == {"notes.txt", "recipe.yaml"}


def test_overwrite_spares_what_the_run_reads(tmp_path):
    (tmp_path / "predictions").mkdir()
    of = recipe(str(tmp_path / "predictions"), dir=str(tmp_path), overwrite=True)
    with pytest.raises(InputError, match=r"run.overwrite: .* would be removed, and data.source"):
        claim_folder(Start(tmp_path), of.run, of, FolderLock())
    assert (tmp_path / "predictions").is_dir()
