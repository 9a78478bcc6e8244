"""What the metadata says is needed, and the other distribution with the same import name."""

import subprocess
import sys

import pytest

from finetune.runtime import installation, name_clash
from tests.support.processes import ROOT


def test_requirements_and_extras():
    read = installation.read_requirements()
    assert len(read) > 30
    by_name = {(one.name, one.extra): one for one in read}
    torch = by_name["torch", None]
    assert torch.fits
    assert torch.needs.startswith(">=2.")
    assert by_name["optuna", "sweep"].found is not None
    assert {one.extra for one in read} > {None, "offline", "onnx", "ray", "test"}
    assert installation.installed_version("no-such-distribution") is None
    assert installation.fits_python()
    assert installation.is_importable("finetune.pipeline")


@pytest.fixture
def other(tmp_path):
    """An environment's folder with the other distribution's metadata in it."""
    folder = tmp_path / "site" / "finetune-0.10.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: finetune\nVersion: 0.10.0\n")
    return tmp_path / "site"


def last_line(code, *paths):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {[str(p) for p in paths]!r}\n{code}"],
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stderr.strip().splitlines()[-1] if done.stderr else done.stdout.strip()


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("from finetune import Regressor", "Regressor"),
        ("import finetune; finetune.Regressor", "Regressor"),
        ("import finetune.base", "base"),
        ("from finetune.base import x", "base"),
    ],
)
def test_what_the_other_distribution_would_have_is_explained_in_a_line(code, name, other):
    said = last_line(code, ROOT, other)
    assert f"'{name}'" in said
    assert "this is finetune-documents, and the other distribution called finetune (0.10.0)" in said
    assert "0.10.0" not in last_line(code, ROOT)


def test_the_finder_is_there_once_and_the_last():
    name_clash.explain_missing_modules()
    assert sys.meta_path.count(name_clash.MissingModules) == 1


def test_ours_is_there_beside_it(other):
    code = "import finetune.runtime.errors, finetune; print(finetune.__version__)"
    assert last_line(code, ROOT, other)[0].isdigit()
    code = "import importlib.util as u, finetune; print(u.find_spec('finetune.none'))"
    assert last_line(code, ROOT) == "None"
