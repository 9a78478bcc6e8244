"""All runs of a folder: found, grouped by test rows, ranked by validation; on screen, page, csv."""

import csv
import io
import json
from pathlib import Path

import pytest

from finetune.cli import compare as command
from finetune.config import loader
from finetune.reporting import leaderboard, leaderboard_page, leaderboard_text, run_progress
from finetune.reporting.leaderboard_model import Leaderboard
from finetune.reporting.results import write_results
from finetune.reporting.results_model import Results
from finetune.runtime.errors import InputError
from finetune.runtime.folder_lock import FolderLock
from finetune.training import folder_mark
from tests.support.browser import Browser, chromium
from tests.unit.reporting.made import made_results


def write_run(folder, accuracy=0.5, test=None, words=(), **changes):
    """A finished run with such scores; `changes` replace keys of its results.

    Args:
        accuracy: on validation; None: it has no validation split.
    """
    values = made_results().as_json()
    values["monitor"] = "accuracy"
    values["hashes"] = {**values["hashes"], "validation": "v"} | changes.pop("hashes", {})
    for split, score in (("validation", accuracy), ("test", test)):
        if score is not None:
            values[split] |= {"accuracy": score, "f1_macro": score / 2, "loss": 1 - score}
    if accuracy is None:
        values["validation"] = {"rows": 0, "labelled": False}
    Path(folder).mkdir(parents=True)
    write_results(Results.model_validate(values | changes), Path(folder))
    write_recipe(folder, words)
    return values


def write_recipe(folder, words=()):
    file = Path(folder) / "recipe.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("data: {source: x}\n")
    file.write_text(loader.to_yaml(loader.load(file, words)))


def names_of(group):
    return [Path(run.run).name for run in group.runs]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_rank_follows_validation_whatever_test_says(home):
    write_run("runs/a", accuracy=0.7, test=0.9, words=["optim.lr=0.1"])
    write_run("runs/deep/b", accuracy=0.8, test=0.6, words=["optim.lr=0.2"])
    write_run("runs/c", accuracy=None, test=0.95)
    write_run("runs/d", accuracy=0.7, test=0.5, words=["run.seed=1"])
    [group] = leaderboard.rank_runs([Path("runs")]).groups
    assert names_of(group) == ["b", "a", "d", "c"]
    assert [run.rank for run in group.runs] == [1, 2, 2, None]
    assert group.metric == "accuracy"
    assert group.runs[0].test == 0.6
    assert group.runs[0].test_interval is not None
    assert group.keys == ["optim.lr", "run.seed"]
    assert group.runs[0].settings["optim.lr"] == 0.2
    assert group.notes == ["1 run without a validation score of accuracy: not ranked."]
    text = leaderboard_text.describe_leaderboard(leaderboard.rank_runs([Path("runs")]))
    assert text.index("deep/b") < text.index("  a ")
    assert "optim.lr 0.2, run.seed 0" in text


@pytest.mark.parametrize(("monitor", "first"), [("f1_macro", "b"), ("loss", "b")])
def test_the_metric_is_that_which_picks_the_models_in_its_direction(home, monitor, first):
    write_run("runs/a", accuracy=0.7, monitor=monitor)
    write_run("runs/b", accuracy=0.8, monitor=monitor)
    [group] = leaderboard.rank_runs([Path("runs")]).groups
    assert (group.metric, names_of(group)) == (monitor, [first, "a"])
    assert group.notes == []


def test_runs_on_other_test_rows_are_a_group_of_their_own(home):
    for name in "abc":
        write_run(f"runs/{name}", hashes={"test": "1" if name == "b" else "2"})
    board = leaderboard.rank_runs([Path("runs")])
    assert [names_of(group) for group in board.groups] == [["a", "c"], ["b"]]
    text = leaderboard_text.describe_leaderboard(board)
    assert "Scores of different groups cannot be compared" in text
    assert "different sets of rows" in leaderboard_page.render_leaderboard(board, Path("x.html"))


def test_what_makes_ranks_uncertain_is_said(home):
    write_run("runs/a")
    write_run("runs/b", hashes={"validation": "w"})
    write_run("runs/c", monitor="f1_macro")
    [group] = leaderboard.rank_runs([Path("runs")]).groups
    assert group.notes[0].startswith("Validation is not the same rows in all runs")
    assert group.notes[1] == "Another metric picked the model of c (f1_macro)."


def test_runs_that_are_not_finished_and_broken_ones_are_named(home):
    write_run("runs/good")
    for name in ("early", "stopped", "now"):
        write_recipe(f"runs/{name}")
        (home / "runs" / name / "checkpoints").mkdir()
    (home / "runs/stopped/metrics.jsonl").write_text('{"step": 1200}\n{"step": 13')
    write_run("runs/damaged")
    (home / "runs/damaged/results.json").write_text("{")
    write_run("runs/no recipe")
    (home / "runs/no recipe/recipe.yaml").unlink()
    (home / "runs/no recipe/metrics.jsonl").write_text("")
    partial = {"schema": 5, "incomplete": True, "failures": ["scoring it failed"]}
    write_recipe("runs/partial")
    (home / "runs/partial/results.json").write_text(json.dumps(partial))
    write_run("runs/without a page", failures=["report.html failed: no space"])
    with FolderLock().take(home / "runs/now"):
        board = leaderboard.rank_runs([Path("runs")])
    found = {Path(run.run).name: (run.state, run.why) for run in board.others}
    assert found["early"] == (
        "unfinished", "before its first step; run.resume=runs/early continues it",
    )  # fmt: skip
    assert found["stopped"][1].startswith("after step 1,200; ")
    assert found["now"] == ("running", "before its first step")
    assert found["damaged"][0] == "broken"
    assert found["damaged"][1].startswith("the file is damaged (")
    assert "expected a run's recipe.yaml" in found["no recipe"][1]
    assert "scoring it failed" in found["partial"][1]
    assert len(found) == 6
    assert names_of(board.groups[0]) == ["good", "without a page"]
    text = leaderboard_text.describe_leaderboard(board)
    assert "! report.html failed: no space" in text
    assert "stopped: unfinished, after step 1,200" in text


def test_a_run_that_was_stopped_after_its_scores_says_how_it_is_completed(home):
    for name in ("stopped", "writing", "done", "older"):
        write_run(f"runs/{name}")
        if name != "older":
            folder_mark.write_mark(home / "runs" / name, "run")
    folder_mark.mark_finished(home / "runs/done")
    with FolderLock().take(home / "runs/writing"):
        board = leaderboard.rank_runs([Path("runs")])
    found = {Path(run.run).name: run.failures for run in board.groups[0].runs}
    assert found == {
        "stopped": [
            "not finished: it was stopped after its scores; run.resume=runs/stopped completes it"
        ],
        "writing": ["not finished yet: a process is still writing its outputs"],
        "done": [], "older": [],
    }  # fmt: skip
    assert "! not finished: it was stopped" in leaderboard_text.describe_leaderboard(board)


def test_each_folder_that_is_named_has_a_run_or_is_named_in_the_message(home, capsys):
    write_run("runs/a", accuracy=0.7)
    write_run("runs/b", accuracy=0.8)
    for inner in ("a/model", "a/checkpoints/step-10"):
        (home / "runs" / inner).mkdir(parents=True)
    (home / "other").mkdir()
    assert run_command("--all", "runs/a/model", "runs/b", "--json") == 0
    board = Leaderboard.model_validate_json(capsys.readouterr().out)
    assert [run.run for run in board.groups[0].runs] == ["runs/b", "runs/a"]
    assert run_command("runs/a/checkpoints/step-10", "other", "runs/b") == 2
    said = capsys.readouterr().err
    assert "runs/a/checkpoints/step-10: no run in it; its run is runs/a" in said
    assert "other: no run in there" in said


@pytest.mark.parametrize(
    ("here", "named", "run"),
    [
        (".", "runs/a/model", "runs/a"),
        ("runs/a", "model", "."),
        ("runs/a/model", ".", ".."),
        (".", "runs/a", "runs/a"),
        (".", "runs/a/predictions", "runs/a/predictions"),
        (".", "model", "model"),
    ],
)
def test_the_run_of_a_model_folder_is_meant(home, monkeypatch, here, named, run):
    write_run("runs/a")
    (home / "runs/a/model").mkdir()
    monkeypatch.chdir(here)
    assert run_progress.run_of(Path(named)).resolve() == Path(run).resolve()


def test_of_folds_and_sweeps_the_last_run_is_listed(home):
    for name in ("fold-1", "fold-2", "all"):
        write_run(f"runs/cv/{name}", hashes={"test": name})
    write_run("runs/few/fold-1")  # stopped before it came to all
    write_recipe("runs/sweep/trials/0001")
    (home / "runs/sweep/trials/0001/metrics.jsonl").write_text("")
    (home / "runs/sweep/study.db").write_text("")
    write_run("runs/sweep/winner/seed-0")
    write_run("runs/.hidden/a")
    write_run("elsewhere/linked")
    (home / "runs/link").symlink_to(home / "elsewhere/linked")
    (home / "runs/loop").symlink_to(home / "runs")
    (home / "runs/evaluations/june").mkdir(parents=True)
    (home / "runs/evaluations/june/results.json").write_text("{}")
    write_recipe("runs")  # a project's own recipe
    found = [str(run) for run in leaderboard.find_runs(Path("runs"))]
    assert found == ["runs/cv/all", "runs/few/fold-1", "runs/link", "runs/sweep/winner/seed-0"]
    assert [*leaderboard.find_runs(Path("runs/cv/fold-1"))] == [Path("runs/cv/fold-1")]


def test_nothing_to_rank(home):
    (home / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no run in there"):
        leaderboard.rank_runs([home / "empty"])
    with pytest.raises(InputError, match="none: no such folder"):
        leaderboard.rank_runs([Path("none")])


def test_every_line_fits_the_terminal_whatever_the_names(home):
    long = "a-run-with-a-name-that-goes-on-and-on-" * 3
    for number in range(12):
        write_run(f"runs/{long}{number}", accuracy=number / 12, words=[f"run.seed={number}"])
    write_recipe(f"runs/{long}")
    (home / f"runs/{long}/checkpoints").mkdir()
    text = leaderboard_text.describe_leaderboard(leaderboard.rank_runs([Path("runs")]))
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"{number} " in text for number in range(1, 13))


def test_the_csv_file_holds_each_run_and_its_settings(home):
    write_run("runs/a", accuracy=0.7, words=["data.text=[a, b]", "optim.lr=0.1"])
    write_run('runs/b, "x"', accuracy=0.8, hashes={"test": "1"})
    write_run("runs/c", accuracy=0.6)
    write_recipe("runs/d")
    (home / "runs/d/checkpoints").mkdir()
    text = leaderboard_text.as_csv(leaderboard.rank_runs([Path("runs")]))
    rows = {row["run"]: row for row in csv.DictReader(io.StringIO(text))}
    assert [*rows] == ["runs/a", "runs/c", 'runs/b, "x"', "runs/d"]
    assert rows["runs/a"]["validation"] == "0.7"
    assert rows["runs/a"]["optim.lr"] == "0.1"
    assert json.loads(rows["runs/a"]["data.text"]) == ["a", "b"]
    assert rows['runs/b, "x"']["data.text"] == "text"
    assert (rows['runs/b, "x"']["group"], rows['runs/b, "x"']["rank"]) == ("2", "1")
    assert (rows["runs/d"]["state"], rows["runs/d"]["rank"]) == ("unfinished", "")


def run_command(*words):
    return command.main([*map(str, words)])


def test_a_folder_is_ranked_and_runs_are_compared(home, capsys):
    write_run("runs/a", accuracy=0.7)
    write_run("runs/b", accuracy=0.8)
    assert run_command("runs", "--page", "board.html", "--csv", "board.csv") == 0
    assert capsys.readouterr().out.endswith("Written to board.html, board.csv\n")
    assert (home / "board.csv").read_text().count("\n") == 3
    assert run_command("--all", "runs/a", "runs/b", "--json") == 0
    found = Leaderboard.model_validate_json(capsys.readouterr().out)
    assert [run.run for run in found.groups[0].runs] == ["runs/b", "runs/a"]
    assert run_command("runs/a", "runs/b", "--csv", "x.csv") == 2
    assert "--csv: it is the leaderboard's" in capsys.readouterr().err
    assert sorted(path.name for path in home.iterdir()) == ["board.csv", "board.html", "runs"]


EVIL = "<img src=x onerror=alert(1)>"


@pytest.mark.skipif(chromium() is None, reason="no Chromium is installed")
def test_the_page_fits_every_screen_and_runs_nothing(home):
    for number in range(4):
        write_run(
            f"runs/{EVIL}-{'long' * 20}-{number}", accuracy=0.5 + number / 10, words=[
                f"run.seed={number}", f"optim.lr=0.{number + 1}", f"run.name=n{number}",
                f"model.source={'a/very/long/folder/of/an/encoder' * 2}{number}",
            ],
        )  # fmt: skip
    (home / f"runs/{EVIL}-{'long' * 20}-3/report.html").write_text("")
    board = leaderboard.rank_runs([Path("runs")])
    page = home / "board.html"
    page.write_text(leaderboard_page.render_leaderboard(board, Path("board.html")), "utf-8")
    with Browser() as browser:
        for width, dark in ((1280, False), (1100, True), (390, False), (390, True)):
            browser.open(page, width, dark)
            shown = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
            assert browser.value(shown), width
            if width > 1000:
                tables = "[...document.querySelectorAll('.wide')]"
                inside = f"{tables}.every(one => one.scrollWidth <= one.clientWidth)"
                assert browser.value(inside), width
        assert browser.value("document.querySelectorAll('tbody a').length") == 1
        assert browser.value("document.querySelectorAll('img').length") == 0
        assert browser.problems == []
