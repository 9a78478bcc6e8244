"""How long a recipe at the limits takes to read, and one beyond them to be refused.

    python scripts/bench/bench_recipe_limits.py [--repeats 3]

Each text is of another shape, as large as `finetune.config.yaml_files` lets it be. Prints the best
of some times for each, in seconds of a core.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


def labels(count: int) -> str:
    """A recipe with so many labels."""
    lines = "".join(f"    - label number {number}\n" for number in range(count))
    return f"data:\n  source: a.csv\n  labels:\n{lines}"


def make_texts() -> tuple[dict[str, str], dict[str, str]]:
    """What is read and what is refused, each by its shape."""
    from finetune.config.yaml_files import MAX_BYTES, MAX_MARKS, MAX_VALUES

    pairs = MAX_MARKS // 2 - 2
    room = MAX_BYTES - 8 * MAX_MARKS  # for a long text beside as many short ones as there may be
    accepted = {
        "5,000 labels": labels(5_000),
        "a list in brackets": "a: [" + "1, " * (MAX_VALUES - 10) + "]",
        "lines of a list": "a:\n" + "- 1\n" * pairs,
        "a mapping in braces": "a: {" + ", ".join(f"k{n}: 1" for n in range(pairs)) + "}",
        "lines of a mapping": "\n".join(f"k{n}: word" for n in range(pairs)),
        "a quoted text": 'a: "' + "x y " * ((MAX_BYTES - 10) // 4) + '"',
        "a plain text": "a: " + "x y " * ((MAX_BYTES - 10) // 4),
        "escapes": 'a: "' + "\\x41" * ((MAX_BYTES - 10) // 4) + '"',
        "all of it": "a: [" + "1, " * (MAX_VALUES - 10) + "]\nb: " + "x y " * (room // 4),
    }
    refused = {
        "a larger file": "#" * (MAX_BYTES + 1),
        "more labels": labels(15_000),
        "more in brackets": "a: [" + "1," * (MAX_MARKS + 1) + "]",
        "aliases": "a: &a [1]\n" + "".join(f"a: &a [{'*a, ' * 10}]\n" for _ in range(20)),
        "brackets": "[" * (MAX_BYTES - 1),
        "levels of lines": "\n".join(" " * n + "a:" for n in range(500)),
    }
    return accepted, refused


def measure(file: Path, repeats: int) -> tuple[float, bool]:
    """The best of some times, in seconds of a core; and whether the file was refused."""
    from finetune.config.yaml_files import read_yaml
    from finetune.runtime.errors import InputError

    best, refused = float("inf"), False
    for _ in range(repeats):
        begin = time.process_time()
        try:
            read_yaml(file, "recipe")
        except InputError:
            refused = True
        best = min(best, time.process_time() - begin)
    return best, refused


def main(words: Sequence[str] | None = None) -> int:
    """Print a line for each text.

    Raises:
        SystemExit: where a file is read that should be refused, or the other way round.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="of each; the best counts")
    known = parser.parse_args(words)
    accepted, refused = make_texts()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        for name, text in {**accepted, **refused}.items():
            file.write_text(text, encoding="utf-8")
            seconds, was_refused = measure(file, known.repeats)
            if was_refused != (name in refused):
                raise SystemExit(f"{name}: was {'refused' if was_refused else 'read'}")
            print(f"{name:20} {seconds:7.3f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
