"""Commands that messages name: found by the shell that reads the message, with words quoted."""

import os
import stat
import sys
from pathlib import Path

import pytest

from finetune.runtime import commands


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment with an interpreter and our command, and PATH without it."""
    own = tmp_path / "own" / "bin"
    for name in ("finetune", "python"):
        put(own / name)
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    monkeypatch.setattr(commands.sysconfig, "get_path", lambda *_: str(own))
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    return own


def put(file):
    """A program."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("#!/bin/sh\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_our_command_is_on_path(environment, monkeypatch):
    monkeypatch.setenv("PATH", str(environment))
    assert commands.program() == "finetune"
    assert commands.command("report", Path("runs/a b")) == "finetune report 'runs/a b'"


def test_another_s_command_is_not_ours(environment, tmp_path, monkeypatch):
    put(tmp_path / "other" / "finetune")
    monkeypatch.setenv("PATH", f"{tmp_path / 'other'}{os.pathsep}{environment}")
    assert commands.program() == "python -m finetune"


def test_our_command_may_be_linked_from_elsewhere(environment, tmp_path, monkeypatch):
    """As pipx and uv do it, for the command; a linked interpreter knows nothing of us."""
    (tmp_path / "links").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "links"))
    (tmp_path / "links" / "python").symlink_to(environment / "python")
    assert commands.program() == f"{environment}/python -m finetune"
    (tmp_path / "links" / "finetune").symlink_to(environment / "finetune")
    assert commands.program() == "finetune"


def test_the_interpreter_s_path_where_nothing_is_on_path(environment, tmp_path, monkeypatch):
    assert commands.program() == f"{environment}/python -m finetune"
    monkeypatch.chdir(tmp_path)
    assert commands.program() == "own/bin/python -m finetune"
    put(tmp_path / "other" / "python")  # another environment's
    monkeypatch.setenv("PATH", str(tmp_path / "other"))
    assert commands.program() == "own/bin/python -m finetune"


@pytest.mark.parametrize(
    ("system", "line"),
    [("posix", "'a b' 'run.seeds=[0,1]' '$x' c.csv"), ("nt", '"a b" run.seeds=[0,1] $x c.csv')],
)
def test_words_are_quoted_for_the_system_s_shell(system, line, monkeypatch):
    monkeypatch.setattr(commands.os, "name", system)
    assert commands.quote(["a b", "run.seeds=[0,1]", "$x", "c.csv"]) == line
