"""`finetune doctor`: each part by itself, what stops training, and no secret in what it prints."""

import json

import pytest

from finetune.cli import doctor
from finetune.hub import settings
from finetune.runtime import credentials, installation
from finetune.runtime.installation import Requirement


def report(capsys):
    code = doctor.main(["--json"])
    return code, json.loads(capsys.readouterr().out)


def test_here_training_works(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(settings.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "blob").write_bytes(b"x" * 3_000_000)
    (tmp_path / "hub" / "link").symlink_to(tmp_path / "hub" / "blob")
    code, found = report(capsys)
    assert (code, found["training_works"]) == (0, True)
    parts = found["parts"]
    assert list(parts) == list(doctor.PARTS)
    assert parts["Libraries"]["libraries"]["torch"].startswith("2.")
    assert parts["Caches"]["caches"]["models and data sets of the Hub"].startswith("3.0 MB in ")
    device = parts["Device"]
    assert device["plan"]
    if device["device"].endswith("(cpu)"):
        assert any("thread" in line for line in device["plan"])
    assert parts["Extras"]["extras"]["sweep"] == "complete"
    assert list(tmp_path.iterdir()) == [tmp_path / "hub"]
    assert doctor.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "System"
    assert lines[-1] == "Training can work here."


@pytest.mark.parametrize("part", doctor.PARTS)
def test_a_broken_part_stops_no_other(part, capsys, monkeypatch):
    def fail():
        raise RuntimeError("no such\ndriver")

    essential = doctor.PARTS[part] in doctor.ESSENTIAL
    monkeypatch.setitem(doctor.PARTS, part, fail)
    if essential:
        monkeypatch.setattr(doctor, "ESSENTIAL", (fail,))
    code, found = report(capsys)
    assert code == (2 if essential else 0)
    said = found["parts"][part]["problems" if essential else "notes"]
    assert said == ["cannot be examined (RuntimeError: no such driver)"]
    assert len(found["parts"]) == len(doctor.PARTS)


def test_what_is_missing_is_named_with_the_line_that_installs_it(capsys, monkeypatch):
    asked = [
        Requirement("torch", ">=2.6", None, "2.5", False),
        Requirement("numpy", ">=1.26", None, "2.4", True),
        Requirement("optuna", ">=5", "sweep", None, False),
    ]
    monkeypatch.setattr(installation, "read_requirements", lambda: asked)
    code, found = report(capsys)
    assert code == 2
    assert found["parts"]["Libraries"]["problems"] == [
        "torch: needs >=2.6, found 2.5; run: pip install 'torch>=2.6'"
    ]
    assert found["parts"]["Extras"]["extras"] == {
        "sweep": "lacks optuna; run: pip install 'finetune-documents[sweep]'"
    }


def test_the_other_distribution_and_what_it_has_overwritten(capsys, monkeypatch):
    monkeypatch.setattr(installation, "find_other", lambda: "0.10.0")
    code, found = report(capsys)
    assert code == 0
    [note] = found["parts"]["Package"]["notes"]
    assert "the other distribution called finetune (0.10.0) has the same import name" in note
    monkeypatch.setattr(installation, "find_overwritten", lambda: ["finetune/__init__.py"])
    code, found = report(capsys)
    assert code == 2
    [problem] = found["parts"]["Package"]["problems"]
    assert "1 of its files are not as they were installed, such as finetune/__init__.py" in problem


def test_a_folder_that_cannot_be_written(capsys, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    code, found = report(capsys)
    assert code == 2
    [problem] = found["parts"]["Working folder"]["problems"]
    assert "(Permission denied); change the folder or set run.dir" in problem


def test_secrets_are_not_printed(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy:3128")
    monkeypatch.setenv("ALL_PROXY", "me:secret@proxy.corp:3128")
    monkeypatch.setattr(settings.constants, "ENDPOINT", "https://u:secret@hub.example/x?key=secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    doctor.main([])
    printed = capsys.readouterr().out
    assert "secret" not in printed
    assert "token: set (HF_TOKEN)" in printed
    assert "HTTPS_PROXY: http://***@proxy:3128" in printed
    assert "ALL_PROXY: ***@proxy.corp:3128" in printed
    assert "the Hub: https://***@hub.example/x?***" in printed
    assert "offline: yes, by HF_HUB_OFFLINE: only what is on this machine is read" in printed


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("me:secret@proxy.corp:3128", "***@proxy.corp:3128"),
        ("secret@proxy", "***@proxy"),
        ("http://me:secret@proxy:3128/", "http://***@proxy:3128/"),
        ("http://me:sec/secret@proxy:3128", "***"),
        ("me:sec/secret@proxy:3128", "***"),
        ("http://me:sec#secret@proxy:3128", "***"),
        ("me:http://secret@proxy", "***"),
        ("proxy:3128?key=secret", "proxy:3128?***"),
        ("proxy.corp:3128", "proxy.corp:3128"),
        ("http://proxy.corp:3128", "http://proxy.corp:3128"),
        ("localhost,10.0.0.0/8,[::1]", "localhost,10.0.0.0/8,[::1]"),
        ("[me:secret@proxy", "not an address"),
    ],
)
def test_no_part_of_an_address_gives_a_password_away(address, shown):
    assert credentials.mask_address(address) == shown
