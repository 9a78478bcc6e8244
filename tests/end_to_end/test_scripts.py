"""Every command of scripts/ says what it is for, how it is called, and refuses other options."""

import ast
import runpy
import subprocess
import sys

import pytest

from tests.support.processes import ENVIRONMENT, ROOT

SCRIPTS = {
    str(file.relative_to(ROOT)): file
    for file in sorted((ROOT / "scripts").rglob("*.py"))
    if '__name__ == "__main__"' in file.read_text(encoding="utf-8")
}
COMMANDS = [name for name in SCRIPTS if name.count("/") == 1]
# What takes seconds to import, and no option needs.
HEAVY = ("torch", "transformers", "datasets", "sklearn", "evaluate", "accelerate", "ray", "scipy")


# They are read as a page of the textbook, imports first.
TEXTBOOK = {"scripts/studies/minimal_loop.py", "scripts/studies/one_step.py"}


def test_they_are_found():
    assert {"scripts/compare.py", "scripts/push_to_hub.py", "scripts/report.py"} <= set(COMMANDS)
    assert {"scripts/bench/bench.py", "scripts/studies/sgd_study.py"} <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_holds_the_command(name, monkeypatch, capsys):
    file = SCRIPTS[name]
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert f"\n    python {name} " in said
    monkeypatch.syspath_prepend(str(file.parent))  # as Python does it for a script
    for words, code in ((["--help"], 0), (["--no-such-option"], 2)):
        monkeypatch.setattr(sys, "argv", [str(file), *words])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(file), run_name="__main__")
        out, err = capsys.readouterr()
        assert caught.value.code == code
        if code == 0:
            first = said.splitlines()[0]
            assert (first.split(":")[0] if name in TEXTBOOK else first) in " ".join(out.split())
        else:
            assert "Traceback" not in err
            assert "error: " in err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_of_the_top_level_is_thin(name):
    """Its logic stands in finetune/cli/, where it is typed and imported by tests."""
    tree = ast.parse(SCRIPTS[name].read_text(encoding="utf-8"))
    docstring, *imports, guard = tree.body
    assert isinstance(docstring, ast.Expr)
    assert [ast.unparse(node).split(".")[0] for node in imports] == ["import sys", "from finetune"]
    assert ast.unparse(guard).splitlines()[1:] == ["    sys.exit(main())"]


def test_help_imports_nothing_heavy():
    """All of them in one process, so that no library is loaded by any."""
    assert set(SCRIPTS) > TEXTBOOK
    tools = {name for name in SCRIPTS if name.startswith("scripts/docs/")}  # of `make docs`
    names = [name for name in SCRIPTS if name not in TEXTBOOK | tools]
    assert len(names) >= 15
    files = [str(ROOT / name) for name in (*names, "finetune/run.py")]
    code = f"""
import contextlib, io, runpy, sys
for file in {files!r}:
    sys.argv = [file, "--help"]
    sys.path.insert(0, file.rsplit("/", 1)[0])
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        runpy.run_path(file, run_name="__main__")
    del sys.path[0]
    assert "usage: " in out.getvalue(), file
    found = [name for name in {HEAVY!r} if name in sys.modules]
    assert not found, (file, found)
print("looked at", {len(files)})
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"looked at {len(files)}\n"
