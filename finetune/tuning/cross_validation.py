"""Cross-validation, for documents too few to spare any: k runs and one more, as `run.folds` asks.

    run.folds: 5    # → runs/<recipe>/<time>/fold-1 … fold-5, all

Train is split into k folds. Run i trains on all folds but the i-th, which is its test split. Then
one more run trains on all rows. Its score is the k runs' predictions of their held-out rows: each
document counts once. That is the score of models that learned from (k - 1) / k of the documents, so
if anything a little too low for the one that is kept (Stone 1974; Kohavi 1995).
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.config.schema import Recipe
from finetune.data import prepare, sources
from finetune.data.corpus import Corpus
from finetune.reporting.predictions import FILE, read_predictions
from finetune.reporting.results_model import read_results
from finetune.runtime.console import print_line
from finetune.runtime.errors import InputError, StoppedError
from finetune.training.run_folder import has_results, is_complete
from finetune.training.runs_home import runs_home

SMALLEST = 1e-6  # probability, as predictions are written with six digits


def fold_recipes(recipe: Recipe) -> list[Recipe]:
    """The recipe of each fold's run; last, that of the run on all rows.

    Raises:
        InputError: where cross-validation cannot do what the recipe asks for.
    """
    run, count = recipe.run, recipe.run.folds
    assert count is not None
    if run.resume is not None and (run.resume != "auto" or run.dir is None):
        raise InputError(
            "run.resume: expected auto with run.folds, and run.dir, the folder that holds fold-1, "
            f"got {run.resume}"
        )
    home = runs_home(run) / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    base = home if run.dir is None else Path(run.dir)

    def fold(number: int) -> Recipe:
        its_run = run.model_copy(
            update={"dir": str(base / f"fold-{number}"), "folds": None, "mlflow_model": None}
        )
        data = recipe.data.model_copy(update={"fold": f"{number}/{count}"})
        publish = recipe.publish.model_copy(update={"repo_id": None})
        return recipe.model_copy(update={"run": its_run, "data": data, "publish": publish})

    last = run.model_copy(update={"dir": str(base / "all")})
    folds = [fold(number) for number in range(1, count + 1)]
    return [*folds, recipe.model_copy(update={"run": last})]


def check_folds(recipe: Recipe) -> None:
    """Refuse, before the first run, data that a later one cannot use.

    Raises:
        InputError: as `prepare.prepare_corpus` does, or where a finished fold scored other rows.
    """
    *folds, _ = fold_recipes(recipe)
    rows = sources.load_rows(recipe.data, recipe.cache.folder())
    for fold in folds:
        prepare.prepare_corpus(rows, fold.data)
    corpus = prepare.prepare_corpus(rows, recipe.data, folds=recipe.run.folds)
    if recipe.run.resume is not None:
        folders = [Path(str(fold.run.dir)) for fold in folds]
        _check_same_rows([folder for folder in folders if has_results(folder)], corpus)


def has_finished(recipe: Recipe) -> bool:
    """Whether the run on all rows, which is taken up again, has nothing left to do."""
    last = fold_recipes(recipe)[-1].run
    return last.resume is not None and is_complete(Path(str(last.dir)))


def run_folds(recipe: Recipe, run: Callable[[Recipe, Sequence[Path], bool], Path]) -> Path:
    """Run the folds, then all rows; that last run's folder.

    Args:
        run: called with a recipe, the folders of the finished folds (none but for the last run),
            and whether this run is the first.

    Raises:
        InputError, StoppedError: as one run does.
    """
    *folds, last = fold_recipes(recipe)
    folders: list[Path] = []
    try:
        for number, fold in enumerate(folds, 1):
            print_line("\n" * (number > 1) + f"Fold {number} of {len(folds)}\n")
            folders.append(run(fold, (), number == 1))
        print_line("\nAll rows, scored by the folds\n")
        return run(last, folders, False)
    except StoppedError as error:
        raise error.with_run_dir(Path(str(last.run.dir)).parent) from None


def held_out_logits(folders: Sequence[Path], corpus: Corpus) -> NDArray[np.float32] | None:
    """The logits of each row by the run that did not train on it; None without such runs.

    From the written probabilities: their logarithms, of a multi-label model their log odds.
    (rows, classes)

    Args:
        folders: of the folds' finished runs, in order.
        corpus: of all rows, whose test is train itself.

    Raises:
        InputError: where a fold scored other rows than its own.
    """
    if not folders:
        return None
    _check_same_rows(folders, corpus)
    by_place: dict[str, list[float]] = {}
    for folder in folders:
        for row in read_predictions(folder / FILE, corpus.labels):
            by_place[row.row] = row.probabilities
    places = [corpus.test.places.place(i) for i in range(len(corpus.test))]
    probabilities = np.array([by_place[place] for place in places])
    probabilities = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    logits: NDArray[np.float64] = np.log(probabilities)
    if corpus.multi_label:
        logits = logits - np.log1p(-probabilities)
    return logits.astype(np.float32)


def _check_same_rows(folders: Sequence[Path], corpus: Corpus) -> None:
    """Refuse finished runs of other folds, or of other documents, than the present ones.

    Args:
        folders: each named fold-1, fold-2, …
    """
    count = len(corpus.fold_hashes)
    for folder in folders:
        number = int(folder.name.removeprefix("fold-"))
        if read_results(folder).hashes.test != corpus.fold_hashes[number - 1]:
            raise InputError(
                f"run.folds: {folder} scored other rows than those of fold {number}/{count}: the "
                "data or the number of folds changed since; choose another run.dir"
            )
