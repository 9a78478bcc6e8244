"""Recipes on the command line, their list, their copies and their schema; shell completion."""

import json
import os
import shutil
import subprocess

import pexpect
import pytest
import shtab

from finetune.cli import completion, recipe_argument, recipes, schema
from finetune.cli.main import COMMANDS, main
from finetune.config import shipped_recipes
from finetune.config.json_schema import recipe_schema
from finetune.config.schema import SECTIONS

TAKE_RECIPES = ("inspect", "suspects", "find-lr", "train", "sweep")


def parse(*words):
    parser = recipe_argument.recipe_parser("finetune train", "About.", "[--json]")
    parser.add_argument("--json", action="store_true")
    known, overrides = recipe_argument.parse_recipe(parser, words)
    return known.recipe, known.json, overrides


def test_a_recipe_is_given_first_or_by_an_option():
    overrides = ["a.b=1", "c.d=2"]
    assert parse("r.yaml", *overrides, "--json") == ("r.yaml", True, overrides)
    assert parse("--json", "r.yaml", *overrides) == ("r.yaml", True, overrides)
    assert parse("--recipe", "r", *overrides) == ("r", False, overrides)
    assert parse("a.b=1", "--recipe", "r", "--json", "c.d=2") == ("r", True, overrides)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "a recipe is missing: a YAML file, or the name of a shipped recipe"),
        (["r.yaml", "--recipe", "r"], "one recipe is trained: r.yaml, or --recipe r"),
        (["--help", "dta"], "dta: no such section or key of a recipe; did you mean 'data'?"),
    ],
)
def test_misuse_is_told(words, problem, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code == 2
    end = " " if problem.endswith("?") else "; "
    assert capsys.readouterr().err == f"error: {problem}{end}see finetune train --help\n"


@pytest.mark.parametrize("name", TAKE_RECIPES)
def test_every_command_explains_the_keys(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main([name, "--help", "publish.private"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.splitlines() == [
        "  publish.private  (true or false; default false)",
        "      create the repository as private",
    ]


@pytest.mark.parametrize("name", TAKE_RECIPES)
def test_every_command_takes_a_shipped_name(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped_recipes, "folder", lambda: tmp_path)
    (tmp_path / "mine.yaml").write_text("data: {source: none.csv}\nsorce: {}\n")
    (tmp_path / "space.yaml").write_text("optim.lr: {choice: [0.1, 0.2]}\n")
    more = {"sweep": ["--space", "space.yaml"], "suspects": ["--output", "x.csv"]}.get(name, [])
    assert main([name, "mine", *more]) == main([name, "--recipe", "mine", *more]) == 2
    assert capsys.readouterr().err.count("mine.yaml: sorce: no such section; did you mean 'sc") == 2


def test_the_list_has_every_recipe(capsys):
    assert main(["recipes"]) == 0
    head, *lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert head.split() == ["name", "labels", "measured", "on", "test", "runs", "documents"]
    assert [line.split()[0] for line in lines] == list(shipped_recipes.recipe_files())
    [bbc] = [line for line in lines if line.startswith("bbc_news ")]
    shown = "bbc_news 5 accuracy 97.4 % offline BBC News: 2,225 articles in 5 topics"
    assert " ".join(bbc.split()) == shown


def test_a_recipe_is_printed_and_copied(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = shipped_recipes.recipe_files()["bbc_news"].read_text(encoding="utf-8")
    assert recipes.main(["bbc_news"]) == 0
    assert capsys.readouterr().out == text
    assert (
        recipes.main(["bbc_news", "--copy"]) == recipes.main(["bbc_news", "--copy", "b.yaml"]) == 0
    )
    assert "Written to bbc_news.yaml; train it with: " in capsys.readouterr().out
    assert (tmp_path / "bbc_news.yaml").read_text() == (tmp_path / "b.yaml").read_text() == text


def test_a_configuration_of_the_launcher_is_copied_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert recipes.main(["accelerate/fsdp2", "--copy"]) == 0
    text = (tmp_path / "fsdp2.yaml").read_text(encoding="utf-8")
    assert text == shipped_recipes.accelerate_config().read_text(encoding="utf-8")
    assert capsys.readouterr().out == (
        "Written to fsdp2.yaml; give it to the launcher: accelerate launch --config_file "
        "fsdp2.yaml\n"
    )
    assert recipes.main(["accelerate/one_process", "--copy"]) == 0
    assert "distributed_type: " in (tmp_path / "one_process.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["bbc"], "bbc: no shipped recipe of that name; did you mean 'bbc_news'?"),
        (["--copy"], "--copy: which recipe? Give its name before the option"),
        (["imdb", "--copy", "taken"], "--copy: taken exists already; name another file"),
        (["imdb", "--copy", "no/r"], "--copy: no/r: expected a file in a folder that exists"),
    ],
)
def test_what_cannot_be_shown_or_copied(words, problem, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    assert recipes.main(words) == 2
    assert capsys.readouterr() == ("", f"error: {problem}\n")


def test_the_schema_is_printed_as_json(capsys):
    assert schema.main([]) == 0
    assert json.loads(capsys.readouterr().out) == recipe_schema()


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_has_every_command_for_every_shell(shell, capsys):
    assert shell in shtab.SUPPORTED_SHELLS
    assert completion.main([shell]) == 0
    script = capsys.readouterr().out
    for word in (*COMMANDS, "bbc_news", "optim.lr=", "--dry-run".lstrip("-")):
        assert word in script


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    file = tmp_path_factory.mktemp("completion") / "finetune.bash"
    file.write_text(shtab.complete(completion.build_whole_parser(), "bash") + completion.NO_SPACE)
    (file.parent / "my documents.csv").write_text("")
    return file


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pre"], ["predict", "predict-ray"]),
        ([""], list(COMMANDS)),
        (["train", "bbc"], ["bbc_news", "bbc_windows"]),
        (["train", "my"], ["my documents.csv"]),
        (["train", "bbc_news", "optim.l"], ["optim.lr=", "optim.layer_decay="]),
        (["train", "bbc_news", "--q"], ["--quiet"]),
        (["train", "--recipe", "imd"], ["imdb"]),
        (["train", "--help", ""], [*SECTIONS, "all"]),
        (["recipes", "sst"], ["sst2"]),
        (["predict", "my"], ["my documents.csv"]),
        (["predict", "m", "i", "--precision", "f"], ["fp16", "fp32"]),
        (["completion", ""], list(completion.SHELLS)),
    ],
    ids=" ".join,
)
def test_bash_completes(words, expected, script):
    code = (
        'source "$1"; shift; COMP_WORDS=(finetune "$@"); COMP_CWORD=$#; _finetune 2>/dev/null; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", code, "bash", str(script), *words],
        cwd=script.parent, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected


def test_bash_registers_the_completion(script):
    done = subprocess.run(
        ["bash", "-c", f'source "{script}"; complete -p finetune'],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "complete -o bashdefault -F _finetune finetune\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("finetune pre", ["predict", "predict-ray"]),
        ("finetune train bbc", ["bbc_news", "bbc_windows"]),
        ("finetune train my", ["my documents.csv"]),
        ("finetune train bbc_news optim.l", ["optim.lr=", "optim.layer_decay="]),
        ("finetune predict m i --precision f", ["fp16", "fp32"]),
    ],
)
def test_fish_completes(line, expected, tmp_path):
    fish = installed("fish")
    (tmp_path / "finetune.fish").write_text(shtab.complete(completion.build_whole_parser(), "fish"))
    (tmp_path / "my documents.csv").write_text("")
    done = subprocess.run(
        [fish, "--no-config", "-c", 'source finetune.fish; complete -C "$argv[1]"', line],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Each line is a word and, after a tab, what it is.
    assert [found.split("\t")[0] for found in done.stdout.splitlines()] == expected


@pytest.mark.parametrize(
    ("line", "filled"),
    [
        ("finetune tr", "train "),
        ("finetune train bbc_n", "bbc_news "),
        ("finetune predict --precision fp1", "fp16 "),
    ],
)
def test_zsh_completes(line, filled, tmp_path):
    """A shell on a terminal of its own fills in the one word that fits."""
    (tmp_path / "_finetune").write_text(shtab.complete(completion.build_whole_parser(), "zsh"))
    shell = pexpect.spawn(
        installed("zsh"), ["-f", "-i"], cwd=tmp_path, encoding="utf-8", timeout=30,
        env={**os.environ, "TERM": "dumb"},
    )  # fmt: skip
    shell.sendline("fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -d dump; print RE''ADY")
    shell.expect_exact("READY")
    shell.send(f"{line}\t")
    shell.expect_exact(filled)
    shell.close(force=True)


@pytest.mark.parametrize(
    ("line", "filled"),
    [
        ("finetune sus", "suspects "),
        ("finetune train bbc_n", "bbc_news "),
        ("finetune train bbc_news optim.layer_d", "optim.layer_decay="),
        ("finetune predict --precision fp1", "fp16 "),
    ],
)
def test_tcsh_completes(line, filled, tmp_path):
    """As zsh, on a terminal that it edits lines on."""
    (tmp_path / "c.tcsh").write_text(shtab.complete(completion.build_whole_parser(), "tcsh"))
    shell = pexpect.spawn(
        installed("tcsh"), ["-f", "-i"], cwd=tmp_path, encoding="utf-8", timeout=30,
        env={**os.environ, "TERM": "vt100"},
    )  # fmt: skip
    shell.sendline("source c.tcsh; echo RE''ADY")
    shell.expect_exact("READY")
    shell.send(f"{line}\t")
    shell.expect_exact(filled)
    shell.close(force=True)


def test_an_encoding_is_no_recipe():
    """Both are called NAME in the help."""
    fish = shtab.complete(completion.build_whole_parser(), "fish")
    of_encoding = [line for line in fish.splitlines() if "-l encoding" in line]
    assert of_encoding
    assert not any("bbc_news" in line for line in of_encoding)


def installed(shell):
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    return path
