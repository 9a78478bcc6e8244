"""Versions and machine, as results.json keeps them."""

import json
import platform
import re

import torch

from finetune.runtime import environment


def test_versions_are_those_that_run():
    versions = environment.library_versions()
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == str(
        torch.__version__
    )
    assert set(environment.LIBRARIES) < set(versions)
    assert all(re.match(r"\d+\.\d+", version) for version in versions.values())


def test_the_machine_is_named():
    machine = environment.machine()
    assert json.loads(json.dumps(machine)) == machine
    assert machine["system"] == platform.system()
    assert machine["cores"] >= 1
    assert machine["processor"]


def test_a_processor_without_cpuinfo(monkeypatch):
    monkeypatch.setattr(environment.Path, "is_file", lambda path: False)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert environment.machine()["processor"] == "arm64"
