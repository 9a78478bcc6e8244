"""The lower bounds of pyproject.toml are those that `make test-oldest` runs with."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINNED_BESIDES = {"hypothesis", "pandas", "pytest", "pytest-xdist"}


def test_the_oldest_environment_has_every_lower_bound():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    bounds = dict(re.fullmatch(r"([\w.-]+)>=([\d.]+)", one).groups() for one in
                  project["dependencies"])  # fmt: skip
    lines = (ROOT / "constraints-oldest.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert len(bounds) >= 20
    assert {name: pins.get(name) for name in bounds} == bounds
    assert pins.keys() - bounds.keys() == PINNED_BESIDES


def test_the_newest_environment_satisfies_them():
    newest = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text("utf-8").lower().splitlines()
        if "==" in line
    )
    lines = (ROOT / "constraints-oldest.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for name in pins.keys() & newest.keys() - PINNED_BESIDES:
        oldest, now = (re.findall(r"\d+", one)[:3] for one in (pins[name], newest[name]))
        assert [*map(int, oldest)] <= [*map(int, now)], name
