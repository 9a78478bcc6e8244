"""Say what is installed, how training would run here, and what is missing.

    finetune doctor [--json]

Exit code 0: training can work here; 2: it cannot, and the lines marked with ✗ say why.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from finetune import __version__
from finetune.cli.command_parser import CommandParser
from finetune.cli.exit_codes import run_command
from finetune.runtime import console, installation

Found = dict[str, Any]  # what a part reports: `problems`, which stop training, and facts
INDENT = "  "


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known = build_parser(prog).parse_args(arguments)
    return run_command(lambda: examine(known.json))


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called."""
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    return parser


def examine(as_json: bool) -> int:
    """Print what every part reports; 2 where one of them stops training."""
    report = {name: examine_part(part) for name, part in PARTS.items()}
    works = not any(found["problems"] for found in report.values())
    if as_json:
        written = {"training_works": works, "parts": report}
        console.print_json(json.dumps(written, indent=2, ensure_ascii=False, default=str))
    else:
        for name, found in report.items():
            console.print_line(f"{name}")
            for line in describe(found):
                console.print_line(f"{INDENT}{line}")
        console.print_line("Training can work here." if works else "Training cannot work here.")
    return 0 if works else 2


def examine_part(part: Callable[[], Found]) -> Found:
    """What a part reports; where it breaks, that it does: the others are examined all the same."""
    try:
        found = part()
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return {"problems": [f"cannot be examined ({why})"] if part in ESSENTIAL else [],
                "notes": [] if part in ESSENTIAL else [f"cannot be examined ({why})"]}  # fmt: skip
    return {"problems": [], "notes": []} | found


def describe(found: Found) -> Iterator[str]:
    """The lines of a part."""
    for key, value in found.items():
        if key not in ("problems", "notes"):
            if isinstance(value, dict):
                yield from (f"{name}: {what}" for name, what in value.items())
            elif isinstance(value, list):
                yield from map(str, value)
            else:
                yield f"{key}: {value}"
    yield from (f"! {note}" for note in found["notes"])
    yield from (f"✗ {problem}" for problem in found["problems"])


def examine_system() -> Found:
    problems = []
    if not installation.fits_python():
        problems.append(f"Python {platform.python_version()} is older than this package needs")
    return {
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "problems": problems,
    }


def examine_package() -> Found:
    """This distribution, and the other one of its import name."""
    other, changed = installation.find_other(), installation.find_overwritten()
    problems, notes = [], []
    again = f"pip install --force-reinstall --no-deps {installation.DISTRIBUTION}"
    if changed:
        problems.append(
            f"{len(changed)} of its files are not as they were installed, such as {changed[0]}; "
            f"install it again: {again}"
        )
    if other is not None:
        notes.append(
            f"the other distribution called {installation.OTHER} ({other}) has the same import "
            f"name; keep one of them in an environment: pip uninstall {installation.OTHER}, then "
            f"{again}"
        )
    return {
        installation.DISTRIBUTION: f"{__version__} in {Path(__file__).parents[1]}",
        "problems": problems,
        "notes": notes,
    }


def examine_libraries() -> Found:
    """What the package itself requires."""
    needed = [one for one in installation.read_requirements() if one.extra is None]
    wrong = [one for one in needed if not one.fits]
    return {
        "libraries": {one.name: f"{one.found or 'missing'} (needs {one.needs})" for one in needed},
        "problems": [
            f"{one.name}: needs {one.needs}, found {one.found or 'none'}; run: pip install "
            f"'{one.name}{one.needs}'"
            for one in wrong
        ],
    }


def examine_extras() -> Found:
    """What each extra lacks; nothing of it is needed for training."""
    lacking: dict[str, list[str]] = {}
    for one in installation.read_requirements():
        if one.extra is not None:
            lacking.setdefault(one.extra, [])
            if not one.fits:
                lacking[one.extra].append(one.name)
    return {
        "extras": {
            extra: "complete"
            if not names
            else f"lacks {', '.join(names)}; run: pip install "
            f"'{installation.DISTRIBUTION}[{extra}]'"
            for extra, names in sorted(lacking.items())
        }
    }


def examine_device() -> Found:
    """How the default recipe would be computed."""
    from finetune.compute import hardware_plan
    from finetune.config import schema

    recipe = schema.Recipe(data=schema.Data(source="documents.csv"))
    plan = hardware_plan.plan_hardware(recipe.model, recipe.train)
    packing = "rows end to end where the encoder's class can be computed so, else padded"
    if plan.device == "mps":
        packing = "rows padded; packing is made for CPUs and CUDA"
    return {"device": f"{plan.name} ({plan.device})", "plan": [*plan.reasons, packing]}


def examine_caches() -> Found:
    from finetune.config import schema
    from finetune.hub import settings

    folders = {"tokens and frozen states": str(schema.Cache().folder())}
    folders |= settings.cache_folders()
    return {
        "caches": {
            name: f"{_size(folder_bytes(Path(folder)))} in {folder}"
            for name, folder in folders.items()
        }
    }


def examine_network() -> Found:
    from finetune.hub import settings

    hub = settings.describe_hub()
    offline = ", ".join(hub["offline"])
    return {
        "the Hub": hub["endpoint"],
        "offline": f"yes, by {offline}: only what is on this machine is read" if offline else "no",
        "token": hub["token"],
        "proxies": hub["proxies"],
    }


def examine_folder() -> Found:
    """Whether runs/ can be written here."""
    here = Path.cwd()
    try:
        with tempfile.TemporaryFile(dir=here):
            problems = []
    except OSError as error:
        problems = [f"cannot write in {here} ({error.strerror}); change the folder or set run.dir"]
    free = shutil.disk_usage(here).free
    return {"folder": here, "free": _size(free), "problems": problems}


def folder_bytes(folder: Path) -> int:
    """What the files of a folder take; a link counts nothing, as its file is counted itself."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            file = Path(root, name)
            try:
                total += 0 if file.is_symlink() else file.stat().st_size
            except OSError:  # it went away meanwhile
                continue
    return total


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


PARTS: dict[str, Callable[[], Found]] = {
    "System": examine_system,
    "Package": examine_package,
    "Libraries": examine_libraries,
    "Device": examine_device,
    "Extras": examine_extras,
    "Caches": examine_caches,
    "Network": examine_network,
    "Working folder": examine_folder,
}
# Training works without the others.
ESSENTIAL = (examine_libraries, examine_device, examine_folder)
