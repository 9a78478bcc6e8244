"""How long a recipe at the limits takes to read, and one beyond them to be refused.

    python scripts/bench/bench_recipe_limits.py

Each text is of another shape, as large as `finetune.config.yaml_files` lets it be. Prints the best
of three for each, in seconds of a core.
"""

import tempfile
import time
from pathlib import Path

from finetune.config.yaml_files import MAX_BYTES, MAX_MARKS, MAX_VALUES, read_yaml
from finetune.runtime.errors import InputError

PAIRS = MAX_MARKS // 2 - 2
ROOM = MAX_BYTES - 8 * MAX_MARKS  # for one long text beside as many short ones as there may be


def labels(count: int) -> str:
    """A recipe with so many labels."""
    lines = "".join(f"    - label number {number}\n" for number in range(count))
    return f"data:\n  source: a.csv\n  labels:\n{lines}"


ACCEPTED = {
    "5,000 labels": labels(5_000),
    "a list in brackets": "a: [" + "1, " * (MAX_VALUES - 10) + "]",
    "lines of a list": "a:\n" + "- 1\n" * PAIRS,
    "a mapping in braces": "a: {" + ", ".join(f"k{n}: 1" for n in range(PAIRS)) + "}",
    "lines of a mapping": "\n".join(f"k{n}: word" for n in range(PAIRS)),
    "a quoted text": 'a: "' + "x y " * ((MAX_BYTES - 10) // 4) + '"',
    "a plain text": "a: " + "x y " * ((MAX_BYTES - 10) // 4),
    "escapes": 'a: "' + "\\x41" * ((MAX_BYTES - 10) // 4) + '"',
    "all of it": "a: [" + "1, " * (MAX_VALUES - 10) + "]\nb: " + "x y " * (ROOM // 4),
}
REFUSED = {
    "a larger file": "#" * (MAX_BYTES + 1),
    "more labels": labels(15_000),
    "more in brackets": "a: [" + "1," * (MAX_MARKS + 1) + "]",
    "aliases": "a: &a [1]\n" + "".join(f"a: &a [{'*a, ' * 10}]\n" for _ in range(20)),
    "brackets": "[" * (MAX_BYTES - 1),
    "levels of lines": "\n".join(" " * n + "a:" for n in range(500)),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        for name, text in {**ACCEPTED, **REFUSED}.items():
            file.write_text(text, encoding="utf-8")
            print(f"{name:20} {_measure(file, name in REFUSED):7.3f} s")


def _measure(file: Path, is_refused: bool) -> float:
    """
    Raises:
        SystemExit: where a file is read that should be refused, or the other way round.
    """
    best = float("inf")
    for _ in range(3):
        begin, refused = time.process_time(), False
        try:
            read_yaml(file, "recipe")
        except InputError:
            refused = True
        best = min(best, time.process_time() - begin)
        if refused != is_refused:
            raise SystemExit(f"{file}: expected it to be {'refused' if is_refused else 'read'}")
    return best


if __name__ == "__main__":
    main()
