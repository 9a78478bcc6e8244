"""The wheel and the source distribution hold all that they need, and nothing else."""

import email
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

from tests.support.pages import ROOT, links

# Everything else at the top of the checkout is in the source distribution.
NOT_SHIPPED = {".git", "PKG-INFO"}


def build(folder):
    """Both, the wheel from the source distribution, with what is installed: nothing is fetched."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def distributions(shared):
    folder = shared("distributions", build)
    (wheel,), (archive,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, archive


@pytest.fixture(scope="module")
def in_wheel(distributions):
    with zipfile.ZipFile(distributions[0]) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist()}


@pytest.fixture(scope="module")
def in_archive(distributions):
    with tarfile.open(distributions[1]) as archive:
        files = {m.name.partition("/")[2]: archive.extractfile(m) for m in archive if m.isfile()}
        return {name: file.read() for name, file in files.items()}


@pytest.fixture(scope="module")
def metadata(in_wheel):
    (name,) = [name for name in in_wheel if name.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(in_wheel[name])


def files_under(folder):
    """The files of a folder of the checkout, without what Python and tools leave there."""
    return {
        file.relative_to(ROOT).as_posix(): file.read_bytes()
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_the_wheel_is_the_package_and_its_recipes(in_wheel):
    package, recipes = files_under("finetune"), files_under("recipes")
    assert len(package) > 150
    assert len(recipes) >= 18
    expected = package | {f"finetune/{name}": text for name, text in recipes.items()}
    assert "finetune/py.typed" in expected
    assert "finetune/recipes/accelerate/fsdp2.yaml" in expected
    assert "finetune/reporting/templates/report.html" in expected
    found = {name: text for name, text in in_wheel.items() if ".dist-info/" not in name}
    assert sorted(found) == sorted(expected)
    assert found == expected


def test_the_source_distribution_is_the_checkout(in_archive):
    top = {file.name for file in ROOT.iterdir() if is_part_of_the_project(file)} - NOT_SHIPPED
    assert {"docs", "finetune", "recipes", "scripts", "tests", "Makefile", "README.md"} <= top
    for name in sorted(top):
        expected = files_under(name) if (ROOT / name).is_dir() else {name: read_bytes(name)}
        assert expected
        for file, text in expected.items():
            assert in_archive.get(file) == text, file


def is_part_of_the_project(file):
    """Not what `.gitignore` names, nor what only this machine has."""
    ignored = {line.strip().strip("/") for line in read_bytes(".gitignore").decode().splitlines()}
    return not file.is_symlink() and not any(file.match(pattern) for pattern in ignored)


def read_bytes(name):
    return (ROOT / name).read_bytes()


def test_the_metadata_is_complete(metadata):
    import finetune

    assert metadata["Name"] == "finetune-documents"
    assert metadata["Version"] == finetune.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "text-classification" in metadata["Keywords"].split(",")
    classifiers = metadata.get_all("Classifier")
    assert "Typing :: Typed" in classifiers
    project = tomllib.loads(read_bytes("pyproject.toml").decode())["project"]
    assert metadata.get_all("Provides-Extra") == sorted(project["optional-dependencies"])
    required = [one for one in metadata.get_all("Requires-Dist") if ";" not in one]
    assert len(required) == len(project["dependencies"])


def test_the_readme_of_the_metadata_leads_nowhere_that_is_not_there(metadata):
    """Beside a package, `docs/data.md` would be a dead link; its words stay."""
    page = metadata.get_payload()
    assert len(links("README.md")) >= 20
    assert re.findall(r"\]\((?!https?://)[^)]*\)", page) == []
    assert "<!--" not in page
    readme = read_bytes("README.md").decode()
    assert set(re.findall(r"^## .*$", readme, re.M)) < set(re.findall(r"^## .*$", page, re.M))
    assert "| Data | reads csv, tsv," in page
    assert page.rstrip().endswith("Begin with `docs/index.md`.")


def test_a_registry_takes_both(distributions):
    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict"]
    done = subprocess.run(
        [*command, *map(str, distributions)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2
