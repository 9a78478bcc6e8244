"""Cross-validation, for documents too few to spare any: k runs and one more, as `run.folds` asks.

    run.folds: 5    # → runs/<recipe>/<time>/fold-1 … fold-5, all

Train is dealt into k parts. Run i trains on all parts but the i-th, and scores that one as its
test. Then one more run trains on all rows. Its score is what the k runs said of the rows that they
had not seen: each document counts once. That is the score of models that learned from a share of
(k - 1) / k of the documents, so if anything a little too low for the one that is kept (Stone 1974;
Kohavi 1995).
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.config.schema import Recipe
from finetune.data import prepare, sources
from finetune.data.corpus import Corpus
from finetune.runtime.console import print_line
from finetune.runtime.errors import InputError, StoppedError

TINY = 1e-6  # as predictions are written with six digits
RESULTS = "results.json"


def fold_recipes(choices: Recipe) -> list[Recipe]:
    """The recipe of each fold's run; last of all, that of the run on all rows.

    Raises:
        InputError: where a run in folds cannot do what is asked for.
    """
    run, many = choices.run, choices.run.folds
    assert many is not None
    if run.resume is not None and (run.resume != "auto" or run.dir is None):
        raise InputError(
            "run.resume: expected auto with run.folds, and run.dir, the folder that holds fold-1, "
            f"got {run.resume}"
        )
    home = Path("runs") / (run.name or "run") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    base = home if run.dir is None else Path(run.dir)

    def part(number: int) -> Recipe:
        to = run.model_copy(update={"dir": str(base / f"fold-{number}"), "folds": None})
        rows = choices.data.model_copy(update={"fold": f"{number}/{many}"})
        publish = choices.publish.model_copy(update={"repo_id": None})
        return choices.model_copy(update={"run": to, "data": rows, "publish": publish})

    whole = run.model_copy(update={"dir": str(base / "all")})
    parts = [part(number) for number in range(1, many + 1)]
    return [*parts, choices.model_copy(update={"run": whole})]


def check_folds(choices: Recipe) -> None:
    """Refuse before the first run what would keep a later one from its data.

    Raises:
        InputError: as `prepare.prepare_corpus` does, or where a fold that is finished judged
        other rows.
    """
    found = fold_recipes(choices)
    rows = sources.load_rows(choices.data, choices.cache.folder())
    for one in found[:-1]:
        prepare.prepare_corpus(rows, one.data)
    corpus = prepare.prepare_corpus(rows, choices.data, folds=choices.run.folds)
    if choices.run.resume is not None:
        folders = [Path(str(one.run.dir)) for one in found[:-1]]
        _check_judged([folder for folder in folders if (folder / RESULTS).is_file()], corpus)


def run_folds(choices: Recipe, run: Callable[[Recipe, Sequence[Path], bool], Path]) -> Path:
    """Run the folds, then all rows; that last run's folder.

    Args:
        run: is also given the folders of the folds' runs, where these have judged all rows, and
            whether it is the first.

    Raises:
        InputError, StoppedError: as one run does.
    """
    *folds, whole = fold_recipes(choices)
    folders: list[Path] = []
    try:
        for number, one in enumerate(folds, 1):
            print_line("\n" * (number > 1) + f"Fold {number} of {len(folds)}\n")
            folders.append(run(one, (), number == 1))
        print_line("\nAll rows, scored by the folds\n")
        return run(whole, folders, False)
    except StoppedError as error:
        raise error.within(Path(str(whole.run.dir)).parent) from None


def held_out_logits(folders: Sequence[Path], corpus: Corpus) -> NDArray[np.float32] | None:
    """What each row of test was given by the run that had not seen it. (rows, classes)

    None without such runs.

    Probabilities as logits: of single labels, their logarithms; of several, log odds.

    Args:
        folders: of the folds' finished runs, in order.
        corpus: of all rows, whose test is train itself.

    Raises:
        InputError: where a fold judged other rows than its part.
    """
    if not folders:
        return None
    _check_judged(folders, corpus)
    chances: dict[str, list[float]] = {}
    for folder in folders:
        # Not by splitlines(), which breaks at U+2028 in a label or a file's name.
        with (folder / "predictions" / "test.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                chances[row["row"]] = row["probabilities"]
    places = [corpus.test.places.place(i) for i in range(len(corpus.test))]
    found = np.clip(np.array([chances[place] for place in places]), TINY, 1 - TINY)
    odds: NDArray[np.float64] = np.log(found)
    if corpus.multi_label:
        odds = odds - np.log1p(-found)
    return odds.astype(np.float32)


def _check_judged(folders: Sequence[Path], corpus: Corpus) -> None:
    """Refuse finished runs of other folds, or of other documents, than those there are now.

    Args:
        folders: each named fold-1, fold-2, …
    """
    many = len(corpus.fold_hashes)
    for folder in folders:
        number = int(folder.name.removeprefix("fold-"))
        judged = json.loads((folder / RESULTS).read_text(encoding="utf-8"))["hashes"]["test"]
        if judged != corpus.fold_hashes[number - 1]:
            raise InputError(
                f"run.folds: {folder} judged other rows than those of part {number}/{many}: the "
                "data, or into how many parts they are dealt, changed since; choose another run.dir"
            )
