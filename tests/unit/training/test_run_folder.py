"""Which folder is the run's, and what may be removed from it."""

from datetime import datetime
from pathlib import Path

import pytest

from finetune.config import schema
from finetune.runtime.errors import InputError
from finetune.runtime.folder_lock import FolderLock
from finetune.training import folder_mark, run_folder
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


def test_overwrite_spares_what_the_run_reads(tmp_path):
    folder = tmp_path / "run"
    (folder / "predictions").mkdir(parents=True)
    (folder / "predictions" / "test.jsonl").touch()
    folder_mark.write_mark(folder, "run")
    of = recipe(str(folder / "predictions"), dir=str(folder), overwrite=True)
    with pytest.raises(InputError, match=r"run.overwrite: .* would be replaced, and data.source"):
        claim_folder(Start(folder), of.run, of, FolderLock())
    assert (folder / "predictions" / "test.jsonl").is_file()


def test_a_run_keeps_its_id_and_a_new_one_gets_its_own(tmp_path):
    folder = tmp_path / "run"
    of = recipe(dir=str(folder), overwrite=True)
    claim_folder(Start(folder), of.run, of, FolderLock())
    first = folder_mark.read_mark(folder)
    folder_mark.mark_finished(folder)
    run_folder.reopen_folder(folder)
    assert folder_mark.read_mark(folder) == first
    claim_folder(Start(folder), of.run, of, FolderLock())
    assert folder_mark.read_mark(folder).id != first.id


def test_a_run_is_complete_with_its_mark_and_its_results(tmp_path):
    assert not run_folder.is_complete(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    assert run_folder.is_complete(tmp_path)  # of a version that wrote no mark
    folder_mark.write_mark(tmp_path, "run")
    assert not run_folder.is_complete(tmp_path)
    folder_mark.mark_finished(tmp_path)
    assert run_folder.is_complete(tmp_path)
    (tmp_path / "results.json").write_text('{"failures": ["the report"]}')
    assert not run_folder.is_complete(tmp_path)
