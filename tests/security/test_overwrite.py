"""`run.overwrite` removes a run and nothing else, whatever folder it is given."""

import json
import os
import shutil
from pathlib import Path

import pytest

from finetune.runtime.errors import InputError
from finetune.training import run_removal
from finetune.tuning import seeds
from tests.support.runs import checkpoints, contents, results, run_here

TINY = "train.max_steps=2", "run.dir=run"
AGAIN = *TINY, "run.overwrite=true"


@pytest.fixture(scope="session")
def tiny_run(documents, shared):
    """A small run's folder."""

    def make(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder.parent)
            run_here(TINY[0], f"run.dir={folder}")

    return shared("documents/tiny-run", make)


@pytest.fixture
def finished(here, tiny_run):
    """A finished run in `run/`."""
    return Path(shutil.copytree(tiny_run, here / "run"))


def refused(capsys, folder, *words):
    """What a run says that is refused; it changed nothing in the folder."""
    before, names = contents(folder), sorted(map(str, folder.rglob("*")))
    capsys.readouterr()
    run_here(*words, code=2)
    assert contents(folder) == before
    assert sorted(map(str, folder.rglob("*"))) == names
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_a_run_is_replaced(finished):
    old = contents(finished)
    assert run_removal.list_foreign_files(finished) == []
    run_here(*AGAIN, "train.max_steps=3")
    assert results(finished)["train"]["steps"] == 3
    assert {file.name for file in old} - {file.name for file in contents(finished)} == set()
    assert checkpoints(finished) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "predictions/mine.csv",
        "model/notes.txt",
        "model/old/model.safetensors",
        "checkpoints/keep/state.json",
        "checkpoints/step-00000002/notes.txt",
        "evaluations/june/report.html",
        ".git/HEAD2",
        ".hidden",
        "Model",
        "report.html.bak",
        "trackers/thesis.docx",
        "trackers/mine/data.csv",
        "trackers/tiny/notes.txt",
        "trackers/tiny/1764470000.1/rows.csv",
        "trackers/events.out.tfevents.1764470000.host.1.0",
        "trackers/tiny/events.out.tfevents.mine",
        "model/modeling_mine.py",
        "model/configuration_mine.py",
        "checkpoints/step-00000002/best/modeling_mine.py",
        "checkpoints/step-00000002/best/README.md",
        "archive/",
    ],
)
def test_somebody_s_file_refuses_it_by_name(finished, capsys, name):
    if name.endswith("/"):
        (finished / name).mkdir()
    else:
        (finished / name).parent.mkdir(parents=True, exist_ok=True)
        (finished / name).write_text("mine")
    line = refused(capsys, finished, *AGAIN)
    if name.startswith(".git/"):
        assert line == (
            "error: run.overwrite: run is a checkout of a repository; choose another run.dir"
        )
    else:
        edited = ", or that was edited since" * (Path(name).suffix in (".py", ".md"))
        assert line == (
            f"error: run.overwrite: run holds 1 file that no run wrote{edited} ({name}); move it "
            "elsewhere, or choose another run.dir"
        )


@pytest.mark.parametrize(
    "name",
    [
        "model/README.md",
        "model/modeling_document_classifier.py",
        "checkpoints/step-00000002/best/modeling_document_classifier.py",
    ],
)
def test_a_text_that_somebody_edited_refuses_it(finished, capsys, name):
    text = (finished / name).read_bytes()
    (finished / name).write_bytes(text + b"\nMy notes.\n")
    line = refused(capsys, finished, *AGAIN)
    assert f"run holds 1 file that no run wrote, or that was edited since ({name}); " in line
    (finished / name).write_bytes(text)
    assert run_removal.list_foreign_files(finished) == []


def test_what_tensorboard_writes_is_the_run_s(finished):
    pytest.importorskip("tensorboard")
    run_here(*AGAIN, "run.trackers=[tensorboard]")
    assert len([path for path in (finished / "trackers").rglob("*") if path.is_file()]) >= 2
    assert run_removal.list_foreign_files(finished) == []
    run_removal.remove_run(finished)
    assert not (finished / "trackers").exists()


def test_a_run_that_recorded_no_texts_has_them_by_name(finished):
    mark = json.loads((finished / "run.json").read_text())
    del mark["texts"]
    (finished / "run.json").write_text(json.dumps(mark))
    (finished / "model" / "README.md").write_text("of some version")
    assert run_removal.list_foreign_files(finished) == []


def test_ten_of_many_are_named(finished, capsys):
    for number in range(23):
        (finished / f"row-{number:02d}.txt").touch()
    line = refused(capsys, finished, *AGAIN)
    assert "holds 23 files that no run wrote (row-00.txt, row-01.txt, " in line
    assert "row-09.txt and 13 more); move them elsewhere" in line


def test_a_folder_that_is_no_run(here, capsys):
    """Though all of its names are those that a run uses."""
    for name in ("model/model.safetensors", "predictions/test.jsonl", "report.html"):
        (here / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "run" / name).write_text("mine")
    assert refused(capsys, here / "run", *AGAIN) == (
        "error: run.overwrite: run is not a run's folder: it has no run.json (model, predictions, "
        "report.html); choose another run.dir"
    )


def test_a_run_from_before_runs_had_a_mark(finished, capsys):
    (finished / "run.json").unlink()
    (finished / "preflight.json").rename(finished / "elsewhere.json")
    assert "is not a run's folder" in refused(capsys, finished, *AGAIN)
    (finished / "elsewhere.json").rename(finished / "preflight.json")
    run_here(*AGAIN)
    assert (finished / "run.json").is_file()


def test_links(finished, here, capsys):
    elsewhere = here / "elsewhere"
    (finished / "predictions").rename(elsewhere)
    (finished / "predictions").symlink_to(elsewhere)
    line = refused(capsys, finished, *AGAIN)
    assert "run holds 1 file that no run wrote (predictions)" in line
    assert (elsewhere / "test.jsonl").is_file()
    (finished / "predictions").unlink()
    (here / "link").symlink_to(finished)
    line = refused(capsys, finished, "run.dir=link", *AGAIN[:1], "run.overwrite=true")
    assert line == (
        f"error: run.overwrite: link is a symbolic link to {finished.resolve()}, and no run's own "
        "folder; choose another run.dir"
    )


def test_the_working_directory_home_and_their_parents(finished, monkeypatch):
    monkeypatch.chdir(finished)
    with pytest.raises(InputError, match="is the working directory; choose another"):
        run_removal.refuse_unless_removable(finished)
    with pytest.raises(InputError, match="holds the working directory"):
        run_removal.refuse_unless_removable(finished.parent)
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(finished))
    with pytest.raises(InputError, match="is your home; choose another"):
        run_removal.refuse_unless_removable(finished)


def test_a_kill_on_the_way_leaves_a_run(finished, monkeypatch):
    """Whatever is removed by then: the folder is known as a run's, and its recipe is there."""
    unlink, removed = Path.unlink, []

    def die(path, **named):
        if len(removed) == 4:
            raise KeyboardInterrupt
        removed.append(path)
        return unlink(path, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            run_removal.remove_run(finished)
    assert removed[0].name in ("results.json", ".run.json.new")
    run_removal.refuse_unless_removable(finished)
    assert (finished / "recipe.yaml").is_file()
    run_here(*AGAIN)
    assert results(finished)["failures"] == []


def test_what_a_file_manager_leaves_stops_nothing(finished):
    (finished / "model" / ".DS_Store").write_bytes(b"x")
    run_here(*AGAIN)
    assert os.listdir(finished / "model")  # noqa: PTH208


@pytest.mark.parametrize("mark", [True, False])
def test_several_seeds_spare_another_s_report(finished, here, capsys, mark):
    if not mark:
        for path in [one for one in finished.iterdir() if one.name != "report.html"]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    line = refused(capsys, finished, *TINY, "run.seeds=[0,1]")
    assert line == (
        "error: run.dir: run is the folder of a run; choose another for run.seeds" if mark else
        "error: run.dir: run has a report.html that no run of several seeds wrote; choose another "
        "folder"
    )  # fmt: skip
    assert seeds.FILE == "seeds.json"
