"""Which folder is the run's, and what may be removed from it."""

import errno
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
    with pytest.raises(InputError, match=r"is not empty \(notes.txt\); choose another folder$"):
        choose_folder(schema.Run(dir=str(tmp_path)), NOW)
    with pytest.raises(InputError, match="is a file; expected a folder"):
        choose_folder(schema.Run(dir=str(tmp_path / "notes.txt")), NOW)


@pytest.mark.parametrize(
    ("files", "finished", "resumable", "replaceable"),
    [
        (("recipe.yaml", "checkpoints/step-00000002/x"), False, True, False),
        (("recipe.yaml",), False, False, True),
        (("recipe.yaml", "notes.txt"), False, False, False),
        (("recipe.yaml", "results.json"), True, False, True),
    ],
)
def test_what_is_proposed_for_a_run_folder_is_what_can_be_done(
    tmp_path, files, finished, resumable, replaceable
):
    folder_mark.write_mark(tmp_path, "run")
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    if finished:
        folder_mark.mark_finished(tmp_path)
    with pytest.raises(InputError) as refused:
        choose_folder(schema.Run(dir=str(tmp_path)), NOW)
    said = str(refused.value)
    assert (f"set run.resume={tmp_path}" in said) == resumable
    assert ("run.overwrite=true" in said) == replaceable
    assert not resumable or said.index("run.resume") < said.index("choose another")


@pytest.fixture
def scored(tmp_path, monkeypatch):
    """The folder of a run in the working directory, which has predictions and a model."""
    folder = tmp_path / "home" / "run"
    for name in ("predictions/test.jsonl", "model/model.safetensors", "model/config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    folder_mark.write_mark(folder, "run")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return folder


SPELLINGS = [
    "{run}/{place}", "~/run/{place}", "home/run/{place}", "./home/../home/run/{place}",
    "link/{place}",
]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("data", "predictions/test.jsonl"),
        ("data", "predictions"),
        ("data", ""),
        ("model", "model"),
        ("model", ""),
    ],
)
@pytest.mark.parametrize("folder", ["~/run", "home/run"])
def test_overwrite_spares_what_the_run_reads(scored, spelling, key, place, folder):
    """However the source and the folder are written."""
    (scored.parents[1] / "link").symlink_to(scored)
    source = spelling.format(run=scored, place=place)
    assert_refused(scored, folder, key, source)


@pytest.mark.parametrize("name", ["test.jsonl", "here/../test.jsonl"])
def test_overwrite_spares_what_a_source_links_to(scored, name):
    data = scored.parents[1] / "data"
    data.mkdir()
    (data / "train.jsonl").touch()
    (data / "test.jsonl").symlink_to(scored / "predictions" / "test.jsonl")
    (data / "here").mkdir()
    assert_refused(scored, "~/run", "data", "data")
    assert_refused(scored, "~/run", "data", f"data/{name}")


def test_overwrite_spares_what_a_source_around_it_reads(scored):
    """`test/` of the source is a split; a folder that the source does not read is free to go."""
    source = scored.parents[1] / "source"
    scored.parent.rename(source)
    for name in ("train", "other"):
        (source / name).mkdir()
        (source / name / "rows.jsonl").touch()
    (source / "run").rename(source / "test")
    (source / "test" / "metrics.jsonl").touch()
    assert_refused(source / "test", "source/test", "data", "source")
    (source / "test").rename(source / "runs")
    (source / "runs").rename(source / "other" / "run")
    of = recipe("source", dir="source/other/run", overwrite=True)
    claim_folder(Start(Path("source/other/run")), of.run, of, FolderLock())
    assert not (source / "other" / "run" / "predictions").exists()


def assert_refused(run, folder, key, source):
    where = recipe(source if key == "data" else "rows.csv", dir=folder, overwrite=True)
    if key == "model":
        where = where.model_copy(update={"model": schema.Model(source=source)})
    start = Start(choose_folder(where.run, NOW))
    with pytest.raises(InputError, match=rf"run.overwrite: .* would be replaced, and {key}.source"):
        claim_folder(start, where.run, where, FolderLock())
    assert (run / "predictions" / "test.jsonl").is_file()
    assert (run / "model" / "model.safetensors").is_file()


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


def test_a_run_killed_while_a_checkpoint_was_written_can_be_replaced(tmp_path):
    """The best model is held beside the checkpoints until then; other files there still refuse."""
    folder = tmp_path / "run"
    of = recipe(dir=str(folder), overwrite=True)
    claim_folder(Start(folder), of.run, of, FolderLock())
    held = folder / "checkpoints/.step-00000004.best"
    held.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "modeling_document_classifier.py"):
        (held / name).write_text("{}")
    run_folder.choose_folder(of.run, datetime.now())
    (held / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"1 file that no run wrote .*notes.txt"):
        run_folder.choose_folder(of.run, datetime.now())
    (held / "notes.txt").unlink()
    claim_folder(Start(folder), of.run, of, FolderLock())
    assert not (folder / "checkpoints").exists()


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


@pytest.mark.parametrize("name", ["/proc/x", "/proc/none/x", 300 * "x"])
def test_a_folder_that_cannot_be_made_is_told_at_once(tmp_path, monkeypatch, name):
    """Before data and model are read."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"cannot write: .*; set run.dir to another folder"):
        run_folder.choose_folder(schema.Run(dir=name), datetime.now())


def test_what_cannot_be_written_is_told_at_once(tmp_path, monkeypatch):
    """Its own folder and the one above it; of neither anything is left."""

    def refuse(*_: object, **__: object) -> str:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.chdir(tmp_path)
    free = run_folder.choose_folder(schema.Run(dir="a/b"), datetime.now())
    assert (str(free), [*tmp_path.iterdir()]) == ("a/b", [])
    monkeypatch.setattr(run_folder.tempfile, "mkdtemp", refuse)
    monkeypatch.setattr(run_folder.os, "access", lambda *_: False)
    for name in ("a/b", ".", None):
        with pytest.raises(InputError, match=r"the file system is read-only; set run\.dir"):
            run_folder.choose_folder(schema.Run(dir=name, name="x"), datetime.now())
