"""The code → what it decides in docs/: recipe.md, the keys in outputs.md, lines in textbook.md.

And the recipes' headers → recipes/README.md.

    python scripts/docs/make_pages.py [--check]

`make docs` runs this. With --check nothing is written; the exit code is 1 if a page is out of date.
"""

import argparse
import inspect
import re
import sys
from pathlib import Path

from finetune.config import shipped_recipes
from finetune.config.help import describe_field, format_value
from finetune.config.schema import SECTIONS, Section, Stage
from finetune.reporting import results_model

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# `code` ([loop.py](../finetune/training/loop.py#L12))
QUOTED = re.compile(r"`(?P<code>[^`]+)` \(\[(?P<name>[\w.]+)\]\((?P<path>[\w./]+)#L\d+\)\)")
KEYS = "<!-- keys: scripts/docs/make_pages.py -->", "<!-- end of keys -->"

RECIPES = """# Recipes

<!-- written by scripts/docs/make_pages.py from the recipes' headers -->

A recipe is a YAML file for one data set. `finetune train bbc_news` trains one by its name, and
`finetune recipes bbc_news` prints it, as a start for your own. Its header has the command behind
each score, the number of rows and seeds, and the machine. [docs/recipe.md](../docs/recipe.md)
explains every key.

| recipe | documents | labels | on test (95 % interval) | runs offline |
|---|---|---|---|---|
{rows}

Two more files are for `accelerate launch --config_file`: [fsdp2.yaml](accelerate/fsdp2.yaml) shards
a model over processes, and [one_process.yaml](accelerate/one_process.yaml) starts one process
without a notice.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    known = parser.parse_args()
    outdated = {
        file: text
        for file, text in pages().items()
        if not file.is_file() or file.read_text(encoding="utf-8") != text
    }
    for file, text in outdated.items():
        if known.check:
            print(f"{file.name} is out of date: run make docs")
        else:
            file.write_text(text, encoding="utf-8")
    return int(known.check and bool(outdated))


def pages() -> dict[Path, str]:
    """Each page, whole, as the code decides it."""
    outputs = (DOCS / "outputs.md").read_text(encoding="utf-8")
    before, rest = outputs.split(KEYS[0])
    return {
        DOCS / "recipe.md": recipe_page(),
        ROOT / "recipes" / "README.md": recipes_page(),
        DOCS / "outputs.md": f"{before}{KEYS[0]}\n{results_model.describe()}\n{KEYS[1]}"
        + rest.split(KEYS[1])[1],
        DOCS / "textbook.md": with_lines((DOCS / "textbook.md").read_text(encoding="utf-8")),
    }


def with_lines(page: str) -> str:
    """The page with each anchor at the line where the quoted code is, also if it has moved.

    Raises:
        ValueError: naming the code, where it is not in just one line of its file or of the package.
    """

    def found(row: re.Match[str]) -> str:
        code, file = row["code"], (DOCS / row["path"]).resolve()
        for files in ([file] if file.is_file() else [], sorted((ROOT / "finetune").rglob("*.py"))):
            places = [place for one in files for place in lines_with(code, one)]
            if len(places) == 1:
                file, number = places[0]
                path = f"../{file.relative_to(ROOT).as_posix()}"
                return f"`{code}` ([{file.name}]({path}#L{number}))"
        raise ValueError(f"textbook.md: expected one line with `{code}`, found {len(places)}")

    return QUOTED.sub(found, page)


def lines_with(code: str, file: Path) -> list[tuple[Path, int]]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [(file, number) for number, line in enumerate(lines, 1) if code in line]


def recipe_page() -> str:
    """Every key of the recipe, in a table for each section."""
    parts = [
        "# The recipe",
        "<!-- written by scripts/docs/make_pages.py from finetune/config/schema.py -->",
        "A recipe is a YAML file of sections. Each section is a mapping of the keys below. Only "
        "`data.source` is required. On the command line, `section.key=value` overrides a key. "
        "`finetune train --help optim` explains the keys of a section, `--help optim.lr` one key. "
        "`finetune schema` prints the JSON Schema with which editors complete and check them.",
    ]
    for name, section in SECTIONS.items():
        parts += [f"## {name}", inspect.getdoc(section) or "", table(section)]
    parts += ["## Each of train.stages", inspect.getdoc(Stage) or "", table(Stage)]
    return "\n\n".join(parts) + "\n"


def recipes_page() -> str:
    """What each shipped recipe is for, and what its header measured."""
    rows = []
    for name, file in shipped_recipes.recipe_files().items():
        recipe = shipped_recipes.describe(name, file)
        unmeasured = "# Measured: nothing" in file.read_text(encoding="utf-8")
        score = recipe.score or ("not measured" if unmeasured else "see its header")
        if recipe.interval:
            score += f" ({recipe.interval})"
        rows.append(
            f"| [{name}]({name}.yaml) | {cell(recipe.about)} | {recipe.labels} | {score} "
            f"| {'yes' if recipe.offline else 'with local copies'} |"
        )
    return RECIPES.format(rows="\n".join(rows))


def table(section: type[Section]) -> str:
    rows = [
        f"| `{key}` | {cell(describe_field(field))} "
        f"| {'required' if field.is_required() else f'`{format_value(field.default)}`'} "
        f"| {cell(field.description or '')} |"
        for key, field in section.model_fields.items()
    ]
    return "\n".join(["| key | takes | default | meaning |", "|---|---|---|---|", *rows])


def cell(text: str) -> str:
    """Text that Markdown leaves as it is in a cell of a table, but for `code` in it."""
    outside = re.split(r"(`[^`]*`)", text)
    outside[::2] = [re.sub(r"([|<>*]|(?<!\w)_)", r"\\\1", part) for part in outside[::2]]
    return "".join(outside)


if __name__ == "__main__":
    sys.exit(main())
