"""What a run writes after its last step, each on its own: a failure of one loses no other.

    outcome, results = conclude(session, held_out)      # calibrate, score test, analyse
    outputs = RunOutputs(session.folder, session.env)
    write_run_folder(session, results, outcome, outputs)
    with outputs.reported(): …                          # one line of what failed

`results.json` comes first, and names what of the others is missing. By that `run.resume` knows that
the run is to be completed: from its last checkpoint, without a step of training.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.analysis import analyse
from finetune.evaluation.outcome import Outcome
from finetune.evaluation.task_analysis import analyse_tasks
from finetune.reporting import html_report, model_card, predictions
from finetune.reporting import results as results_module
from finetune.reporting.results_model import FILE, SCHEMA, Hashes, Results, read_results
from finetune.runtime.atomic_files import write_json
from finetune.runtime.errors import InputError, ProblemList, from_os_error
from finetune.runtime.memory_errors import describe_memory_error, is_out_of_memory
from finetune.training import folder_mark, lr_finder, run_folder
from finetune.training.finalize import finalize
from finetune.training.parent import predict_by_parent
from finetune.training.run_environment import RunEnvironment
from finetune.training.run_identity import recipe_hash
from finetune.training.session import Session

# What results.json says until the other outputs are written.
UNFINISHED = "the run ended before all its outputs were written"


class IncompleteError(InputError):
    """A run that has done all its steps, of whose outputs some could not be made.

    Attributes:
        folder: the run's.
        has_results: whether its `results.json` is whole.
    """

    def __init__(self, problems: str | Iterable[str], folder: Path, has_results: bool) -> None:
        super().__init__(problems)
        self.folder, self.has_results = folder, has_results


class RunOutputs:
    """The outputs of a run that is written, and what failed of them.

    Attributes:
        recorded: those of its failures that `results.json` names.
        has_card: whether the model folder is whole, with its card.
    """

    def __init__(self, folder: Path, env: RunEnvironment) -> None:
        self.folder, self._env = folder, env
        self._failed: dict[str, list[str]] = {}  # why → the names of what failed
        self.recorded: list[str] = []
        self.has_card = True

    @property
    def failures(self) -> list[str]:
        """What failed, and why: a full disk is told once."""
        return [f"{', '.join(names)} failed: {why}" for why, names in self._failed.items()]

    def attempt(self, name: str, call: Callable[[], Any], everywhere: bool = False) -> bool:
        """`call()` on the main process, or on each; whether that went well."""

        def explain() -> str | None:
            try:
                call()
            except Exception as error:  # whatever it is: the other outputs are still to be made
                return describe_failure(error)
            return None

        why = explain() if everywhere else self._env.on_main(explain)
        if why is not None:
            # An output may be recorded in the run's mark, too: that is a part of writing it.
            for place in (name, folder_mark.FILE):
                why = why.replace(f"{self.folder / place}: ", "")
            names = self._failed.setdefault(why, [])
            names.extend([name] if name not in names else [])
        return why is None

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Do what comes last, then tell what failed before it, and how to get it.

        Raises:
            IncompleteError: where something failed before; also with the problems of the block.
            InputError: with those of the block alone.
        """
        problems = ProblemList()
        with problems.collect():
            yield
        has_results = self._env.on_main(lambda: run_folder.has_results(self.folder))
        if self.failures:
            before = (
                f"{self.folder}: the model is trained and saved, but {'; '.join(self.failures)}; "
                f"{how_to_complete(self.folder)}"
            )
            raise IncompleteError([before, *problems], self.folder, has_results)
        problems.raise_if_any()


def how_to_complete(folder: Path) -> str:
    return f"to complete it without training again, run the same with run.resume={folder}"


def describe_failure(error: Exception) -> str:
    """An error in one line; one that nobody expected with the place where it arose."""
    if isinstance(error, OSError):
        error = from_os_error(error) or error
    if is_out_of_memory(error):
        error = describe_memory_error(error)
    if isinstance(error, InputError):
        return "; ".join(error.problems)
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {said} ({Path(last.filename).name}, line {last.lineno})"


def conclude(
    session: Session, held_out: NDArray[np.float32] | None = None
) -> tuple[Outcome, Results]:
    """Calibrate, score test once, and analyse.

    Args:
        held_out: as of `finalize.finalize`.

    Raises:
        IncompleteError: for whatever fails; `results.json` then holds what there is.
    """
    outcome = None
    try:
        with session.env.meter("close"):
            outcome = finalize(session, held_out)
            outcome = replace(outcome, parent=predict_by_parent(session))
        return outcome, build_results(session, outcome)
    except Exception as error:
        what = "calibrating or scoring it" if outcome is None else "analysing its predictions"
        why = f"{what} failed: {describe_failure(error)}"
        if session.env.accelerator.is_main_process:
            _write_partial_results(session, outcome, why)
        raise IncompleteError(
            f"{session.folder}: the model is trained and saved, but {why}; {FILE} holds what there "
            f"is; {how_to_complete(session.folder)}",
            session.folder,
            has_results=False,
        ) from error


def build_results(session: Session, outcome: Outcome) -> Results:
    """All that `results.json` holds."""
    data, env, recipe = session.data, session.env, session.recipe
    tables, score = data.tokens.tables, recipe.score

    def analyse_on_main() -> Any:
        try:
            analyse_all = analyse if data.corpus.tasks is None else analyse_tasks
            return analyse_all(data.corpus, tables, outcome, data.metrics, score)
        except Exception as error:  # said on all processes, or the others would wait
            raise InputError(describe_failure(error)) from error

    with env.meter("analyse"):
        analysis = env.on_main(analyse_on_main)
    return results_module.build_results(
        recipe,
        results_module.Execution.of(env.started, env.accelerator, session.parts.plan),
        results_module.data_section(recipe, data.corpus, tables, data.tokens.reads, data.audit),
        results_module.model_section(recipe, session.parts.bare, data.tokens.reads),
        results_module.train_section(
            recipe,
            session.stages,
            session.log,
            session.state.best["step"],
            session.state.back_offs,
            env.on_main(lambda: lr_finder.read_range_tests(session.folder)),
        ),
        analysis,
        Hashes(
            **session.hashes,
            recipe=recipe_hash(session.resolved_recipe),
            weights=outcome.weights,
        ),
        results_module.cost_section(env.meter, session.log),
    )


def reopen_results(session: Session) -> Results:
    """The results of a run that was ended before its last outputs, whose trackers go on.

    Raises:
        InputError: where `results.json` cannot be read, or a tracker does not start.
    """
    folder = session.folder

    def read() -> tuple[Results, str]:
        mark = folder_mark.read_mark(folder)
        assert mark is not None, "without a mark, a run with results is complete"
        return read_results(folder), mark.id

    results, run_id = session.env.on_main(read)
    session.open_trackers(run_id, results.train.steps)
    return results


def write_run_folder(
    session: Session, results: Results, outcome: Outcome, outputs: RunOutputs
) -> None:
    """Write results.json, predictions, the model card and the report."""
    folder = session.folder
    outputs.attempt(FILE, lambda: _write_numbers(results, [UNFINISHED], folder))
    outputs.attempt(predictions.FILE, lambda: _write_predictions(session, outcome))
    outputs.has_card = outputs.attempt(
        "model/README.md",
        lambda: model_card.write_card(results, session.recipe, session.data.tokens.source, folder),
    )
    outputs.attempt("report.html", lambda: html_report.write_report(results, folder))
    failures = [*outputs.failures]
    outputs.attempt(FILE, lambda: _write_numbers(results, failures, folder))
    outputs.recorded = [*outputs.failures]


def record_failures(results: Results, outputs: RunOutputs) -> None:
    """Have results.json name what failed after it was written, so that a resume completes that."""
    failures = [*outputs.failures]

    def write_if_more() -> None:
        if failures != outputs.recorded:
            _write_numbers(results, failures, outputs.folder)

    outputs.attempt(FILE, write_if_more)  # on all processes alike: the main one decides


def _write_numbers(results: Results, failures: list[str], folder: Path) -> None:
    results_module.write_results(results.model_copy(update={"failures": failures}), folder)


def _write_predictions(session: Session, outcome: Outcome) -> None:
    corpus = session.data.corpus
    predictions.write_predictions(
        session.folder / predictions.FILE,
        corpus.test,
        corpus.labels,
        outcome.test.logits,
        corpus.tasks or corpus.multi_label,
        outcome.test.thresholds,
        None if outcome.interval is None else outcome.interval.half_width,
    )


def _write_partial_results(session: Session, outcome: Outcome | None, why: str) -> None:
    """What there is of `results.json`: what went wrong, the training, and the scores by then."""
    log, recipe = session.log, session.recipe
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "incomplete": True,
        "failures": [why],
        "recipe": recipe.run.name,
        "seed": recipe.run.seed,
        "started": session.env.started.isoformat(timespec="seconds"),
        "hashes": dict(session.hashes),
        "train": {"steps": log.steps, "rows": log.rows, "seconds": log.seconds},
        "best": dict(session.state.best),
    }
    if outcome is not None:
        found["test"] = dict(outcome.test.values)
        if outcome.validation is not None:
            found["validation"] = dict(outcome.validation.values)
    writes: list[Callable[[], None]] = [lambda: write_json(session.folder / FILE, found)]
    if outcome is not None:
        writes.append(lambda: _write_predictions(session, outcome))
    for write in writes:
        try:
            write()
        except Exception:  # noqa: S112 # the failure before this one is what will be reported
            continue
