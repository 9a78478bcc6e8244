"""What README, CONTRIBUTING and docs/ say of the code is so."""

import importlib
import re
import textwrap

import pytest
from ruamel.yaml import YAML

from finetune.api.run import Run
from finetune.cli.main import COMMANDS as CLI
from finetune.config import loader
from finetune.config.shipped_recipes import find_recipe
from finetune.tuning import search_space
from scripts.docs import make_pages
from tests.support.pages import NAMES, ROOT, anchors, blocks, links, read, without_code, words


def test_the_pages_are_found():
    assert {"README.md", "CONTRIBUTING.md", "docs/index.md", "docs/textbook.md"} <= set(NAMES)
    assert len(NAMES) >= 18


def test_the_readme_fits():
    assert len(read("README.md").splitlines()) <= 200


MADE = set(re.findall(r"(?:`|\$ )make ([a-z]+)", " ".join(read(name) for name in NAMES)))


def test_the_readme_begins_with_the_two_commands():
    makefile = read("Makefile")
    assert "accelerate launch finetune/run.py recipes/bbc_news.yaml" in makefile
    readme = read("README.md")
    assert "$ accelerate launch finetune/run.py recipes/bbc_news.yaml\n" in readme
    assert readme.index("make quickstart") < readme.index("make test") < readme.index("\n## ")
    assert {"quickstart", "test", "docs", "lint"} <= MADE
    for target in MADE:
        assert f"\n{target}: " in makefile or f"\n{target}:\n" in makefile, target


LINKS = {page: links(page) for page in NAMES}


def test_links_are_found():
    assert sum(map(len, LINKS.values())) > 100


@pytest.mark.parametrize("page", NAMES)
def test_every_link_and_anchor_leads_somewhere(page):
    folder = (ROOT / page).parent
    for path, anchor in LINKS[page]:
        file = (folder / path).resolve() if path else ROOT / page
        assert file.exists(), path
        if anchor is None:
            continue
        if file.suffix == ".md":
            assert anchor in anchors(file.relative_to(ROOT).as_posix()), (path, anchor)
        else:
            lines = file.read_text(encoding="utf-8").splitlines()
            line = re.fullmatch(r"L(\d+)", anchor)
            assert line is not None, anchor
            assert 1 <= int(line[1]) <= len(lines), anchor


def test_every_page_is_linked_from_the_index_and_the_site_s_menu():
    pages = {name.removeprefix("docs/") for name in NAMES if name.startswith("docs/")}
    assert len(pages) >= 16
    assert pages - {path for path, _ in links("docs/index.md")} == {"index.md"}
    menu = re.findall(r": (\S+\.md)$", read("mkdocs.yml"), re.MULTILINE)
    assert sorted(menu) == sorted(pages)


def test_the_pages_that_the_code_decides_are_up_to_date():
    """`make docs` writes them anew, also the lines that textbook.md links to."""
    pages = make_pages.pages()
    assert len(pages) == 4
    for file, text in pages.items():
        assert file.read_text(encoding="utf-8") == text, f"{file.name}: run make docs"


def test_the_textbook_links_to_the_code_that_it_quotes():
    page = read("docs/textbook.md")
    quoted = list(make_pages.QUOTED.finditer(page))
    assert len(quoted) >= 16
    assert len(re.findall(r"#L\d+\)", page)) == len(quoted)
    in_loop = [one for one in quoted if one["path"] == "../finetune/training/loop.py"]
    assert len(in_loop) >= 5
    wrong = page.replace("../finetune/training/loop.py#L", "../finetune/training/loop.py#L9")
    assert wrong != page
    assert make_pages.with_lines(wrong) == make_pages.with_lines(page) == page
    moved = page.replace("../finetune/training/schedule.py#L", "../finetune/training/moved.py#L")
    assert moved != page
    assert make_pages.with_lines(moved) == page.replace(
        "[schedule.py](../finetune/training/moved", ""
    )
    with pytest.raises(ValueError, match="expected one line with `no such code`, found 0"):
        make_pages.with_lines("`no such code` ([x](../Makefile#L1))")


def test_the_textbook_quotes_the_minimal_loop():
    (block,) = blocks("docs/textbook.md", "python")
    code = read("scripts/studies/minimal_loop.py")
    assert len(block.text.splitlines()) >= 15
    assert [line for line in block.text.splitlines() if line.strip() not in code] == []
    assert textwrap.indent(block.text, "    ") in code


def test_the_recipe_page_has_every_key():
    page = read("docs/recipe.md")
    assert page.count("\n| `") > 90
    assert "| `lr` | a number above 0 or auto or null | `null` |" in page


YAMLS = [block for page in NAMES for block in blocks(page, "yaml")]


@pytest.mark.parametrize("block", YAMLS, ids=str)
def test_every_yaml_is_a_recipe(block, tmp_path):
    """A part of one, at least: a source of documents is put in where there is none."""
    tree = YAML(typ="safe").load(block.text)
    if any("." in key for key in tree):  # a space of a sweep
        (tmp_path / "space.yaml").write_text(block.text)
        (tmp_path / "recipe.yaml").write_text("data: {source: documents.csv}\n")
        space = search_space.load_space(tmp_path / "space.yaml", tmp_path / "recipe.yaml")
        assert len(space) == len(tree)
        return
    given = "" if "data" in tree else "data: {source: documents.csv}\n"
    (tmp_path / "recipe.yaml").write_text(given + block.text)
    loader.load(str(tmp_path / "recipe.yaml"))


def test_yamls_are_found():
    assert len(YAMLS) >= 6


RECIPES = [
    (block, command)
    for page in NAMES
    for block in blocks(page, "console")
    for command in block.commands
    if block.reason is not None
    and re.search(r"((run|bench)\.py recipes/|finetune (train|sweep|inspect) )[a-z]", command)
]


@pytest.mark.parametrize(("block", "command"), RECIPES, ids=lambda given: str(given)[:60])
def test_recipes_of_commands_that_are_not_run_are_right(block, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    start = re.search(r"\.py |finetune [a-z]+ ", command)
    recipe, *overrides = words(command[start.end() :])
    overrides = [word.rstrip(";") for word in overrides if re.match(r"\w+\.\w+=", word)]
    if not recipe.startswith("my_"):
        loader.load(find_recipe(recipe), overrides)


def test_such_recipes_are_found():
    assert len(RECIPES) >= 12


COMMANDS = [
    (block, script, command)
    for page in NAMES
    for block in blocks(page, "console")
    for command in block.commands
    for script in re.findall(r"(?:scripts|finetune)/\S+\.py", command)
]


@pytest.mark.parametrize(
    ("block", "script", "command"), COMMANDS, ids=lambda given: str(given)[:60]
)
def test_every_command_and_option_exists(block, script, command):
    file = ROOT / script
    assert file.is_file(), block
    code = file.read_text(encoding="utf-8")
    for name in re.findall(r"from finetune\.cli\.(\w+) import", code):
        code += (ROOT / "finetune" / "cli" / f"{name}.py").read_text(encoding="utf-8")
    if re.search(r"^import study_runs$", code, re.MULTILINE):  # has the options of all studies
        code += (file.parent / "study_runs.py").read_text(encoding="utf-8")
    for option in re.findall(r"(?<=\s)--[a-z0-9-]+", command.split(script)[1]):
        if option != "--seed":  # the mistake that data.md shows
            assert f'"{option}"' in code, (block, option)


def test_scripts_are_found():
    assert len(COMMANDS) >= 20


OURS = [
    (block, name, rest)
    for page in NAMES
    for block in blocks(page, "console")
    for command in block.commands
    for name, rest in re.findall(r"(?<![\w/.-])finetune ([a-z][a-z-]*)([^|;]*)", command)
]


def option_strings(name):
    """All options of a command."""
    module = importlib.import_module(f"finetune.cli.{CLI[name].module}")
    return {word for action in module.build_parser()._actions for word in action.option_strings}


@pytest.mark.parametrize(("block", "name", "rest"), OURS, ids=lambda given: str(given)[:60])
def test_every_command_of_ours_and_its_options_exist(block, name, rest):
    assert name in CLI, block
    used = set(re.findall(r"(?<=\s)--[a-z0-9-]+", rest))
    assert used - option_strings(name) <= {"--seed"}, block  # the mistake that data.md shows


def test_commands_are_found():
    assert len(OURS) >= 25


@pytest.mark.parametrize("page", NAMES)
def test_commands_that_the_text_names_exist(page):
    named = set(re.findall(r"`finetune ([a-z][a-z-]*)", read(page)))
    assert named <= set(CLI)


def test_commands_that_messages_and_recipes_name_exist():
    files = [*(ROOT / "finetune").rglob("*.py"), *(ROOT / "recipes").glob("*.yaml")]
    named = {}
    for file in files:
        text = file.read_text(encoding="utf-8")
        for pattern in (
            r'\bcommand\("([a-z-]+)"',
            r"[`$#] +finetune ([a-z][a-z-]*)",
            r"\n    finetune ([a-z-]+)",
        ):
            named |= dict.fromkeys(re.findall(pattern, text), file)
    assert len(named) >= 10
    assert {name: file for name, file in named.items() if name not in CLI} == {}


@pytest.mark.parametrize("page", NAMES)
def test_scripts_that_are_named_exist(page):
    named = set(re.findall(r"\b(?:scripts|tests|recipes)/[\w/]+\.(?:py|yaml)", read(page)))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", NAMES)
def test_recipe_keys_that_are_named_exist(page):
    """`data.truncation` in the text, `train.epochs=5` in a command."""
    schema = {
        f"{section}.{key}"
        for section, model in make_pages.SECTIONS.items()
        for key in model.model_fields
    }
    sections = "|".join(make_pages.SECTIONS)
    text = re.sub(r"[\w/-]+\.(?:py|md|csv|jsonl?|yaml|html|onnx|safetensors)\b", "", read(page))
    named = set(re.findall(rf"(?<![\w./])((?:{sections})\.[a-z_]+)\b(?!\()", text))
    allowed = {"train.learning_rate", "train.loss"} | {
        "data.reading",
        "data.long",
        "data.truncation",
    }
    if page == "docs/python.md":  # there, `run` is also what train() returns
        allowed |= {"run.folder"}
    assert [name for name in named - schema - allowed if not is_results_key(page, name)] == []


def is_results_key(page, name):
    """The keys of results.json have sections of the same names; so has a `run` of Python."""
    if page == "docs/python.md":
        return name == "train.epochz" or hasattr(Run, name.removeprefix("run."))
    return page == "docs/outputs.md" or name in ("model.trainable_parameters", "data.language")


def test_prose_is_not_empty():
    assert all(len(without_code(page)) > 200 for page in NAMES)
