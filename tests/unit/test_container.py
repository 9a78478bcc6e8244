"""The Dockerfile is not built here: what it names is there, and its server runs without rights."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from finetune.cli import serve

ROOT = Path(__file__).parents[2]
LINES = re.sub(r"\\\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8")).splitlines()


def instructions():
    """Of each stage: its instructions in order, each as its word and the rest."""
    stages, name = {}, ""
    for line in LINES:
        word, _, rest = line.partition(" ")
        if word == "FROM":
            name = rest.rpartition(" AS ")[2]
        if name and word and not word.startswith("#"):
            stages.setdefault(name, []).append((word, rest))
    return stages


STAGES = instructions()


def last(stage, word):
    return [rest for name, rest in STAGES[stage] if name == word][-1]


def test_training_is_what_is_built_where_no_stage_is_named():
    assert [*STAGES] == ["installed", "serve", "train"]
    assert (
        last("serve", "FROM")
        == last("train", "FROM").replace("train", "serve")
        == ("installed AS serve")
    )


@pytest.mark.parametrize("stage", ["serve", "train"])
def test_no_stage_ends_as_root(stage):
    words = [word for word, _ in STAGES[stage]]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert last(stage, "USER").partition(":")[0] not in ("", "0", "root")


def test_the_server_is_a_user_without_a_shell_or_a_home():
    user = last("serve", "USER").partition(":")[0]
    assert int(user) > 0  # a number, as Kubernetes asks for with runAsNonRoot
    made = next(rest for word, rest in STAGES["serve"] if word == "RUN" and "useradd" in rest)
    assert f"--uid {user} " in made
    assert "--no-create-home" in made
    assert "--shell /usr/sbin/nologin" in made


def test_its_command_is_one_that_the_parser_takes():
    program, name, *rest = json.loads(last("serve", "ENTRYPOINT"))
    assert (program, name) == ("finetune", "serve")
    known = serve.build_parser().parse_args([*rest, *json.loads(last("serve", "CMD"))])
    assert (known.model, known.host) == ("/model", "0.0.0.0")
    assert last("serve", "EXPOSE") == str(known.port)
    assert f"http://127.0.0.1:{known.port}/health" in last("serve", "HEALTHCHECK")


def test_what_is_copied_and_installed_is_there():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [name for word, rest in STAGES["installed"] if word == "COPY"
              for name in shlex.split(rest)[:-1]]  # fmt: skip
    assert len(copied) == 6
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {*project["optional-dependencies"]}
    named = [*re.findall(r"EXTRAS=([\w,]+)", "\n".join(LINES)), "serve"]
    assert len(named) >= 3
    assert {extra for names in named for extra in names.split(",")} <= extras
