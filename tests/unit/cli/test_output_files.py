"""A file that is there is kept by every command, and told before any work."""

import json
from pathlib import Path

import pytest

from finetune.cli.main import main
from finetune.cli.output_files import check_output
from finetune.runtime.errors import InputError

RECIPE = "data: {source: none.csv}\nmodel: {source: none}\n"
COMMANDS = {
    "--json": ["inspect", "r.yaml"],
    "--page": ["compare", "a", "b"],
    "--csv": ["compare", "--all", "a", "b"],
    "--output": ["suspects", "r.yaml"],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "kept").write_text("mine")
    return tmp_path


@pytest.mark.parametrize("option", COMMANDS)
def test_a_file_that_is_there_is_kept(here, capsys, option):
    assert main([*COMMANDS[option], option, "kept"]) == 2
    said = f"{option}: kept exists already; choose another file, or add --overwrite"
    assert said in capsys.readouterr().err
    assert main([*COMMANDS[option], option, "kept", "--overwrite"]) == 2
    assert "exists already" not in capsys.readouterr().err
    assert (here / "kept").read_text() == "mine"


def test_the_page_of_a_range_test(here, capsys):
    assert main(["find-lr", "r.yaml", "--page", "kept"]) == 2
    assert "--page: kept exists already" in capsys.readouterr().err


def test_what_may_be_written(here):
    check_output("--json", None, False)
    check_output("--json", Path("new"), False)
    check_output("--json", Path("/dev/null"), False)
    check_output("--json", Path("kept"), True)
    with pytest.raises(InputError, match="--json: expected a file, found the folder"):
        check_output("--json", here, True)


def test_inspect_replaces_its_file_when_told_to(here, capsys):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(40)]
    (here / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["inspect", "r.yaml", "data.source=a.jsonl", "--json", "kept"]
    assert main(words) == 2
    assert main([*words, "--overwrite"]) == 0
    assert json.loads((here / "kept").read_text())
