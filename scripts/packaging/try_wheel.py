"""Build the wheel, and use it alone: train, predict and report in an environment of its own.

    python scripts/packaging/try_wheel.py [--linked | --constraints FILE] [section.key=value …]

All that it needs is installed, in the versions of constraints.txt or of another such file; with
--linked it uses the libraries of this environment instead. The working folder is outside any
checkout. The words are overrides of the recipe bbc_news.
"""

import argparse
import csv
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("Shares fell after the bank raised its rate.", "The coach praised the goalkeeper.")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="such as train.max_steps=3")
    libraries = parser.add_mutually_exclusive_group()
    libraries.add_argument(
        "--linked", action="store_true", help="use the libraries that are installed here"
    )
    libraries.add_argument(
        "--constraints", type=Path, default=ROOT / "constraints.txt", metavar="FILE",
        help="the versions to install, such as constraints-oldest.txt",
    )  # fmt: skip
    known = parser.parse_args(arguments)
    constraints = None if known.linked else known.constraints.resolve()
    with tempfile.TemporaryDirectory() as folder:
        programs = install(build(Path(folder)), Path(folder) / "environment", constraints)
        work = Path(folder) / "work"
        work.mkdir()
        use(programs / "finetune", work, known.overrides)
    return 0


def build(folder: Path) -> Path:
    """The wheel, made of the source distribution without fetching anything."""
    call([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, environment: Path, constraints: Path | None) -> Path:
    """Put the wheel into a new environment; the folder of its programs.

    Without constraints it is linked to the libraries of this environment.
    """
    venv.create(environment, with_pip=True)
    paths = {"base": str(environment), "platbase": str(environment)}
    programs = Path(sysconfig.get_path("scripts", "venv", paths))
    pip: list[str | Path] = [programs / "python", "-m", "pip", "install", "--quiet"]
    if constraints is None:
        # A plain path: the checkout's own link in there is not followed.
        libraries = Path(sysconfig.get_path("purelib", "venv", paths)) / "libraries.pth"
        libraries.write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8", newline="\n")
        call([*pip, "--no-deps", "--ignore-installed", wheel], environment)
    else:
        # torch first, alone: resolved with the others, pip may fetch several releases of it.
        call([*pip, "-c", constraints, "torch"], environment)
        call([*pip, "-c", constraints, f"{wheel}[offline]"], environment)
    return programs


def use(finetune: Path, work: Path, overrides: Sequence[str]) -> None:
    """Train, predict and report, as a person would."""
    call([finetune, "doctor"], work)
    call([finetune, "train", "--recipe", "bbc_news", "run.dir=run", *overrides], work)
    with (work / "new.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([["text"], *([text] for text in DOCUMENTS)])
    call([finetune, "predict", "run", "new.csv", "--output", "labels.csv"], work)
    print((work / "labels.csv").read_text(encoding="utf-8"))
    (work / "run" / "report.html").unlink()
    call([finetune, "report", "run"], work)
    print(f"report.html: {(work / 'run' / 'report.html').stat().st_size:,} bytes")


def call(command: Sequence[str | Path], folder: Path) -> None:
    """Run a command that must succeed, without this checkout on its path."""
    print(f"$ {' '.join(map(str, command))}", flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([str(word) for word in command], cwd=folder, check=True, env=environment)


if __name__ == "__main__":
    sys.exit(main())
