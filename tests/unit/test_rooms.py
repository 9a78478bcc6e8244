"""Every module has tests that import it by name, and stays small enough to be read."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "finetune"
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in PACKAGE.rglob("*.py")
    if file.name != "__init__.py"
}
TESTS = sorted(
    file
    for folder in ("unit", "distributed", "end_to_end/distributed", "security")
    for file in (ROOT / "tests" / folder).rglob("test_*.py")
)


def imported_modules(file: Path) -> set[str]:
    """Those of the package that a test imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & MODULES


def test_every_module_is_imported_by_a_test():
    assert len(MODULES) > 100
    assert len(TESTS) > 40
    tested = set().union(*map(imported_modules, TESTS))
    assert sorted(MODULES - tested) == []
