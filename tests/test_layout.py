"""Data flows one way: a module imports only from those before it in CONTRIBUTING's table."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("|---|---|", 1)[1]
ORDER = [
    name
    for row in TABLE.splitlines()
    if row.startswith("| `")
    for name in re.findall(r"`(\w+)\.py`", row.split("|")[1])
]
# Where a library may be imported: nowhere else.
HOMES = {
    "evaluate": {"metrics"},
    "jinja2": {"page"},
    "huggingface_hub": {"hub_client", "hub_repository", "publish", "card"},
    "ruamel": {"recipe_file"},
}


def imports(file):
    """The names that a module imports, at its top or within a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "finetune":
            yield from (f"finetune.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_modules_import_only_from_those_before():
    assert len(ORDER) > 30
    assert len(ORDER) == len(set(ORDER))
    wrong = []
    for position, name in enumerate(ORDER):
        for imported in imports(ROOT / "finetune" / f"{name}.py"):
            other = imported.removeprefix("finetune.").split(".")[0]
            if imported.startswith("finetune.") and other not in ORDER[:position]:
                wrong.append(f"{name} imports {other}")
    assert wrong == []


def test_libraries_stay_in_their_rooms():
    found = {
        (library, name)
        for name in ORDER
        for imported in imports(ROOT / "finetune" / f"{name}.py")
        for library in HOMES
        if imported.split(".")[0] == library
    }
    assert {(library, name) for library, name in found if name not in HOMES[library]} == set()
    assert {library for library, _ in found} == set(HOMES)


def test_nothing_reads_pickles_and_no_trainer():
    text = {
        file.name: file.read_text(encoding="utf-8") for file in (ROOT / "finetune").glob("*.py")
    }
    assert len(text) > 30
    for name, code in text.items():
        for word in ("import pickle", "torch.load(", "Trainer(", "yaml.unsafe", "eval("):
            assert not re.search(rf"(?<![.\w]){re.escape(word)}", code), (name, word)
