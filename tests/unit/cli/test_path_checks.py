"""A path that does not exist is told in a moment: before torch, transformers or pyarrow load."""

import json
import subprocess
import sys

import pytest

from finetune.cli import path_checks
from finetune.runtime.errors import InputError
from tests.support.processes import ROOT

WORDS = {
    "evaluate": ["./none", "none.csv"],
    "predict": ["./none", "none.csv", "--output", "none/out.csv"],
    "demo": ["./none"],
    "serve": ["./none"],
    "compare": ["none-a", "none-b"],
    "report": ["none-a", "none-b"],
    "push": ["none-a", "you/model"],
    "train": ["r.yaml"],
    "find-lr": ["r.yaml"],
    "suspects": ["r.yaml", "--output", "out.csv"],
}
DATA, MODEL = "none.csv: no such file or folder", "./none: no such file or folder"
FOLDER = "expected the folder of a finished run, found no such folder"
SAID = {
    "evaluate": [f"MODEL: {MODEL}", f"DATA: {DATA}"],
    "predict": ["none/out.csv: the folder none does not", f"MODEL: {MODEL}", f"INPUT: {DATA}"],
    "demo": [f"MODEL: {MODEL}"],
    "serve": [f"MODEL: {MODEL}"],
    "compare": [f"none-a: {FOLDER}", f"none-b: {FOLDER}"],
    "report": [f"none-a: {FOLDER}", f"none-b: {FOLDER}"],
    "push": ["none-a: no such folder; expected a run folder or a model folder"],
}
for of_recipe in ("train", "find-lr", "suspects"):
    SAID[of_recipe] = [f"data.source: {DATA}", f"model.source: {MODEL}"]
# Runs each command in one process, and says what it has loaded by then.
PROGRAM = """
import json, sys
from finetune.cli.main import main
for name, words in json.loads(sys.argv[1]).items():
    print("##", name, file=sys.stderr)
    code = main([name, *words])
    heavy = {"torch", "transformers", "pyarrow", "sklearn", "accelerate"} & {*sys.modules}
    print("code", code, sorted(heavy), file=sys.stderr)
"""


def test_paths_that_do_not_exist_are_told_before_anything_loads(tmp_path):
    (tmp_path / "r.yaml").write_text("data: {source: none.csv}\nmodel: {source: ./none}\n")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(WORDS)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    parts = done.stderr.split("## ")[1:]
    assert [part.split("\n")[0] for part in parts] == [*WORDS]
    for part in parts:
        name, *lines, code = part.rstrip().split("\n")
        assert code == "code 2 []", name
        assert len(lines) == len(SAID[name]), lines
        for line, said in zip(lines, SAID[name], strict=True):
            assert line.startswith(f"error: {said}"), name


def test_what_is_no_path_is_left_to_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path_checks.check_model("owner/model")
    assert not path_checks.is_local("owner/data", "DATA")
    assert not path_checks.is_local("-", "INPUT")
    assert path_checks.is_local("*.csv", "INPUT")
    (tmp_path / "a.csv").write_text("text\nx\n")
    assert path_checks.is_local("a.csv", "INPUT")
    with pytest.raises(InputError, match=r"did you mean a\.csv"):
        path_checks.is_local("aa.csv", "INPUT")
