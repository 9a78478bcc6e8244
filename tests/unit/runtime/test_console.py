"""What is printed at which verbosity, by which process, and how progress looks in a file."""

import sys

import pytest

from finetune.runtime import console
from finetune.runtime.console import CONSOLE, Verbosity, chosen_verbosity, print_line


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    monkeypatch.setattr(CONSOLE, "verbosity", Verbosity.NORMAL)
    monkeypatch.setattr(CONSOLE, "is_main", True)


@pytest.mark.parametrize(
    ("quiet", "json", "printed"),
    [(False, False, "all\nscore\n"), (True, False, "score\n"), (False, True, ""), (True, True, "")],
)
def test_quiet_and_json(quiet, json, printed, capsys, tmp_path):
    CONSOLE.verbosity = chosen_verbosity(quiet, json)
    print_line("all")
    print_line("score", even_if_quiet=True)
    assert capsys.readouterr().out == printed
    (tmp_path / "results.json").write_text("{}\n")
    console.print_file(tmp_path / "results.json")
    assert capsys.readouterr().out == "{}\n"


def test_quiet_libraries_do_not_load_datasets(monkeypatch):
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    console.quiet_libraries()
    assert "datasets" not in sys.modules


def test_of_several_processes_the_main_one_prints(capsys, tmp_path):
    CONSOLE.is_main = False
    (tmp_path / "results.json").write_text("{}\n")
    print_line("score", even_if_quiet=True)
    console.print_file(tmp_path / "results.json")
    assert capsys.readouterr().out == ""


def test_a_quiet_part_ends_also_with_an_error(capsys):
    def fail():
        with CONSOLE.at(Verbosity.QUIET):
            print_line("not printed")
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    print_line("printed")
    assert capsys.readouterr().out == "printed\n"


def test_tables_and_wrapped_lines(capsys):
    assert console.format_table([("a", "1"), ("bcd", "10")]) == "  a     1\n  bcd  10"
    console.print_wrapped("word " * 30, mark="  ! ")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines] == ["  ! ", "    "]
    assert max(map(len, lines)) <= 80


def test_progress_in_a_file_is_a_line_at_each_tenth(capsys):
    bar = console.ProgressBar(20, 0, shown=True)
    line = {"loss": 0.5, "loss_se": 0.1, "lr": 0.01, "grad_norm": 1.0, "rows_per_second": 9.0}
    for _ in range(20):
        bar.step()
        bar.show(line)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 10
    assert said[0] == "   10 %  step 2  loss 0.500 ± 0.100  lr 0.01  grad 1.00  9 rows/s"
    console.close_progress()
    CONSOLE.verbosity = Verbosity.QUIET
    quiet = console.ProgressBar(2, 0, shown=True)
    quiet.step()
    quiet.show(line)
    assert capsys.readouterr().out == ""
