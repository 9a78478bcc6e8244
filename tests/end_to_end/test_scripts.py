"""Every command of scripts/ says what it is for, how it is called, and refuses other options."""

import ast
import runpy
import sys

import pytest

from tests.support.processes import ROOT

SCRIPTS = {
    file.name: file
    for file in sorted((ROOT / "scripts").glob("*.py"))
    if '__name__ == "__main__"' in file.read_text(encoding="utf-8")
}


def test_they_are_found():
    assert {"bench.py", "compare.py", "push_to_hub.py", "report.py"} <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_holds_the_command(name, monkeypatch, capsys):
    file = SCRIPTS[name]
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert f"\n    python scripts/{name} " in said
    monkeypatch.syspath_prepend(str(file.parent))  # as Python does it for a script
    for words, code in ((["--help"], 0), (["--no-such-option"], 2)):
        monkeypatch.setattr(sys, "argv", [str(file), *words])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(file), run_name="__main__")
        out, err = capsys.readouterr()
        assert caught.value.code == code
        if code == 0:
            assert said.splitlines()[0] in " ".join(out.split())
        else:
            assert "Traceback" not in err
            assert "error: " in err
