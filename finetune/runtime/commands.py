"""The commands that messages name, as they can be typed where the message is read.

    command("predict", run, "new.csv", "--output", "labels.csv")
    → finetune predict runs/bbc_news/A new.csv --output labels.csv

`finetune` may not be on PATH, as in an environment that is not activated, or may be another
distribution's. Then the text begins with `python -m finetune`, or with the interpreter's path.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

NAME = "finetune"


def command(name: str, *arguments: str | os.PathLike[str]) -> str:
    """A command of this package with its arguments, each quoted where the shell needs it."""
    return " ".join([program(), quote([name, *map(str, arguments)])])


def program() -> str:
    """What starts this package here: `finetune`, `python -m finetune`, or a path to either."""
    if _is_found(NAME):
        return NAME
    if _is_found("python"):
        return f"python -m {NAME}"
    return f"{quote([str(relative_path(Path(sys.executable)))])} -m {NAME}"


def install(extra: str) -> str:
    """The command that installs an extra of this package, in a checkout as well."""
    return f"pip install {quote([f'finetune-documents[{extra}]'])}"


def quote(words: list[str]) -> str:
    """Words as one line of this system's shell."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def relative_path(path: Path) -> Path:
    """The path as it is written from the working folder, where it is inside of that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _is_found(name: str) -> bool:
    """Whether the shell finds this environment's program of that name, and not another's."""
    found = shutil.which(name)
    if found is None:
        return False
    user = sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user"))
    own = {Path(sys.executable).parent, Path(sysconfig.get_path("scripts")), Path(user)}
    path = Path(found).absolute()
    # pipx and uv link our command from elsewhere. An environment's interpreter is itself a link, to
    # one that it shares with others.
    return path.parent in own or (name == NAME and path.resolve().parent in own)
