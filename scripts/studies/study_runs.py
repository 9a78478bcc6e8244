"""Runs of a study: each is done once, and what it found is kept in a file beside the next ones'."""

import argparse
import gzip
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from finetune.cli.exit_codes import run_command
from finetune.config import loader
from finetune.runtime import console
from finetune.runtime.atomic_files import write_json
from finetune.runtime.signals import SignalListener


def study_parser(about: str | None, out: str, sets: Iterable[str]) -> argparse.ArgumentParser:
    """The command line that studies share; what it does not know are overrides.

    Args:
        about: the script's docstring, which --help prints.
        out: the folder of what was run, by default.
        sets: the names of the sets there are.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*sets]
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--table", action="store_true", help="print what there is, run nothing")
    return parser


def run_study(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    study: Callable[[argparse.Namespace, list[str]], int],
) -> int:
    """A study of what a command line asks for; what its runs print does not stay."""
    known, words = parser.parse_known_args(arguments)
    return run_command(lambda: study(known, words), verbosity=console.Verbosity.SILENT)


def run_once(
    file: Path, words: Sequence[str], listener: SignalListener, keep: bool = False
) -> dict[str, Any]:
    """The results of a run, whose file is then named; of one that was run already, from its file.

    Args:
        file: where `results.json` of the run stays.
        words: overrides, `data.source` and `model.source` among them.
        keep: whether the run's folder stays, which is called as the file is without its ending.

    Raises:
        InputError: for a problem in the data or an override.
        StoppedError: after a signal; with the same words, this run goes on from its checkpoint.
    """
    if file.is_file():
        return dict(read(file))
    from accelerate.state import AcceleratorState

    from finetune.pipeline import run

    folder = file.with_suffix("")
    file.parent.mkdir(parents=True, exist_ok=True)
    recipe = file.with_suffix(".yaml")
    recipe.write_text("data: {source: an-override-names-it}\n", encoding="utf-8")
    # The precision of the last run would stay.
    AcceleratorState._reset_state(reset_partial_state=True)
    is_begun = any((folder / "checkpoints").glob("*"))  # by a study that was stopped
    how = "run.resume=auto" if is_begun else "run.overwrite=true"
    run(loader.load(recipe, [*words, f"run.dir={folder}", how]), listener)
    found = dict(read(folder / "results.json"))
    write_json(file, found)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    recipe.unlink()
    print(f"  {file}", flush=True)
    return found


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def read_rows(folder: Path, split: str) -> list[dict[str, Any]]:
    """The rows of a split, gzipped or plain."""
    packed = folder / f"{split}.jsonl.gz"
    if packed.is_file():
        with gzip.open(packed, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    with (folder / f"{split}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
