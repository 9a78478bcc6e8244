"""Floors, from the ground up: a floor knows only those below it, and a library has one room."""

import ast
import importlib.util
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "finetune"
FLOORS = (
    "runtime",
    "config",
    "data",
    "tokenization",
    "modeling",
    "compute",
    "evaluation",
    "training",
    "reporting",
    "inference",
    "adaptation",
    "hub",
    "tuning",
    "pipeline",
    "api",
    "__init__",  # what `import finetune` offers
    "cli",
    "run",
    "__main__",
)
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts): file
    for file in sorted(PACKAGE.rglob("*.py"))
}
# Where a library may be imported: a floor, or one room of it.
HOMES = {
    "datasets": {"finetune.data", "finetune.evaluation.metrics", "finetune.runtime.console"},
    "evaluate": {"finetune.evaluation.metrics"},
    "jinja2": {"finetune.reporting.html_report"},
    "huggingface_hub": {"finetune.hub", "finetune.reporting.model_card"},
    "ruamel": {"finetune.config.loader", "finetune.config.yaml_files"},
}


def imported(file: Path) -> list[tuple[str, bool]]:
    """The modules that a file imports, and whether that is done as it is loaded."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    within = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        at_load = id(node) not in within
        if isinstance(node, ast.Import):
            found += [(alias.name, at_load) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.append((name if name in MODULES else node.module, at_load))
    return found


def floor_of(module: str) -> str:
    return module.split(".")[1]


IMPORTS = [
    (module, other, at_load)
    for module, file in MODULES.items()
    for other, at_load in imported(file)
    if other.startswith("finetune.")
]


def test_every_module_has_a_floor():
    assert len(MODULES) > 100
    there = {floor_of(name) for name in MODULES if name.count(".") > 0}
    assert there - {"__init__"} <= set(FLOORS)
    assert len(list(PACKAGE.glob("*.py"))) <= 4


def test_a_floor_imports_only_from_those_below_it():
    between = [(a, b) for a, b, _ in IMPORTS if floor_of(a) != floor_of(b)]
    assert len(between) > 300
    height = {name: i for i, name in enumerate(FLOORS)}
    assert [
        f"{a} imports {b}" for a, b in between if height[floor_of(a)] < height[floor_of(b)]
    ] == []


def test_modules_of_one_floor_have_no_circles():
    within: dict[str, set[str]] = {name: set() for name in MODULES}
    for a, b, _ in IMPORTS:
        if floor_of(a) == floor_of(b) and b in MODULES:
            within[a].add(b)
    assert sum(map(len, within.values())) > 50
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path, name))
        if name not in done:
            for other in sorted(within[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in within:
        visit(name, ())


def test_a_library_is_imported_in_its_room_alone():
    found = {
        (library, module)
        for module, file in MODULES.items()
        for name, _ in imported(file)
        for library in HOMES
        if name.split(".")[0] == library
    }
    assert {library for library, _ in found} == set(HOMES)
    assert [
        (library, module)
        for library, module in sorted(found)
        if not any(f"{module}.".startswith(f"{home}.") for home in HOMES[library])
    ] == []


def test_prediction_loads_no_library_of_training():
    """The batch job and the actors of Ray start processes; all else needs torch at most."""
    libraries = {"accelerate", "sklearn", "evaluate", "datasets"}
    starters = {
        "finetune.inference.batch_job",
        "finetune.inference.job_start",
        "finetune.inference.ray_actor",
    }
    modules = {name for name in MODULES if name.startswith("finetune.inference.")}
    assert modules > starters
    assert len(modules) > 15
    assert [
        (module, name)
        for module in sorted(modules - starters)
        for name, at_load in imported(MODULES[module])
        if at_load and name.split(".")[0] in libraries
    ] == []


@pytest.mark.parametrize(
    "name", sorted({p.stem for p in PACKAGE.iterdir() if p.is_dir() or p.suffix == ".py"})
)
def test_nothing_directly_in_the_package_hides_a_library(name):
    """`accelerate launch finetune/run.py` puts this folder first on the path."""
    if name.startswith((".", "__")):
        return
    assert name not in sys.stdlib_module_names
    assert name not in packages_distributions()
    spec = importlib.util.find_spec(name)
    assert spec is None or spec.origin is None or PACKAGE.as_posix() in spec.origin


def test_nothing_reads_pickles_and_no_trainer():
    assert len(MODULES) > 100
    for module, file in MODULES.items():
        code = file.read_text(encoding="utf-8")
        for word in ("import pickle", "torch.load(", "Trainer(", "yaml.unsafe", "eval("):
            assert not re.search(rf"(?<![.\w]){re.escape(word)}", code), (module, word)
