"""A finished run's folder → its results, its classifier, its report.

run = Run("runs/tickets/2026-01-31_12-00-00")
run.test.metric("accuracy")
run.classifier(["Where is my parcel?"])
"""

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.config import loader
from finetune.config.python_recipe import Recipe
from finetune.config.trust import without_grants
from finetune.reporting import run_summary
from finetune.reporting.results_model import FILE, Results, read_results
from finetune.reporting.run_summary import EmbeddedPage
from finetune.reporting.seeds_report import SeedsSummary
from finetune.runtime.errors import InputError

if TYPE_CHECKING:
    from finetune.data.frames import HeldSource
    from finetune.evaluation.analysis_model import SplitScores
    from finetune.inference.classifier import Classifier

SEEDS = "seeds.json"


class Run:
    """A finished run.

    It is a path too: what takes a run's folder, such as `finetune.compare`, takes the run.

    Args:
        folder: a run's; or that which holds the runs of several seeds, or of folds.

    Raises:
        InputError: where it is none, or the run is not finished.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not (self.folder / FILE).is_file() and (self.folder / "all" / FILE).is_file():
            self.folder = self.folder / "all"  # of folds: the run on all rows, which they score
        self._data: HeldSource | None = None
        if not (self.folder / SEEDS).is_file():
            self.results  # noqa: B018 # raises where the folder is none of a finished run

    @cached_property
    def results(self) -> Results:
        """All numbers of the run, as results.json holds them.

        Raises:
            InputError: of several seeds, each of which has its own.
        """
        self._refuse_seeds("results")
        if not (self.folder / FILE).is_file() and (self.folder / "recipe.yaml").is_file():
            raise InputError(
                f"{self.folder}: the run in it is not finished; to go on, train the same with "
                f"run.resume={self.folder}"
            )
        return read_results(self.folder)

    @property
    def test(self) -> "SplitScores":
        """The scores on test: `run.test.metric("accuracy")`, `run.test.intervals`."""
        return self.results.test

    @property
    def validation(self) -> "SplitScores":
        """The scores on validation."""
        return self.results.validation

    @property
    def report(self) -> Path:
        """The page with everything about the run."""
        return self.folder / "report.html"

    @cached_property
    def recipe(self) -> Recipe:
        """Every setting of the run: training it again gives the same numbers.

        It publishes nothing and trusts no code from elsewhere, until that is said again:
        `finetune.train(run.recipe, {"publish.repo_id": "owner/name"})`.
        """
        self._refuse_seeds("recipe")
        return Recipe.of(without_grants(loader.load_saved(self.folder)))

    @cached_property
    def classifier(self) -> "Classifier":
        """The trained model, loaded when it is first asked for."""
        from finetune.inference.classifier import Classifier

        self._refuse_seeds("classifier")
        return Classifier(self.folder / "model")

    @cached_property
    def seeds(self) -> "tuple[Run, ...]":
        """The run of each seed, with `run.seeds`; else none."""
        if self.spread is None:
            return ()
        return tuple(Run(self.folder / name) for name in self.spread.runs)

    @cached_property
    def spread(self) -> SeedsSummary | None:
        """The mean and the spread over seeds, with `run.seeds`; else None."""
        file = self.folder / SEEDS
        if not file.is_file():
            return None
        return SeedsSummary.model_validate_json(file.read_text(encoding="utf-8"))

    @cached_property
    def folds(self) -> "tuple[Run, ...]":
        """The run of each fold, with `run.folds`; else none.

        This run then trained on all rows, and the folds' predictions are its test.
        """
        count = None if self.spread is not None else self.results.data.folds
        home = self.folder.parent
        return tuple(Run(home / f"fold-{number}") for number in range(1, (count or 0) + 1))

    def show_report(self, height: int = 700) -> EmbeddedPage:
        """The report, shown in a notebook where this is a cell's last value.

        Args:
            height: in pixels.
        """
        return EmbeddedPage(self.report.read_text(encoding="utf-8"), height)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        if self.spread is not None:
            return f"<Run {self.folder}: {run_summary.describe_seeds(self.spread)}>"
        return f"<Run {self.folder}: {run_summary.describe_run(self.results)}>"

    def _repr_html_(self) -> str:
        if self.spread is not None:
            return run_summary.seeds_html(self.spread, self.folder)
        return run_summary.run_html(self.results, self.folder)

    def _refuse_seeds(self, name: str) -> None:
        """
        Raises:
            InputError: where the folder holds the runs of several seeds.
        """
        if self.spread is not None:
            raise InputError(
                f"{self.folder} holds the runs of {len(self.spread.seeds)} seeds; ask one of them, "
                f"such as run.seeds[0].{name}, or run.spread for all together"
            )
