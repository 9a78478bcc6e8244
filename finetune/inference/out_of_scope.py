"""A trained run → its detector of documents that no label fits, saved beside the weights; and the
section of the results that says how good it is.

    check_out_of_scope(recipe, corpus)                        # before anything is trained
    results = add_detector(session, results, outputs)

One process computes it, with the saved model as `finetune predict` loads it, so that it is the same
of one process and of many, and after a resume.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.config.schema import Recipe
from finetune.data.corpus import Corpus, Split
from finetune.data.formats.source import ReadProgress
from finetune.evaluation import out_of_scope
from finetune.evaluation.analysis_model import OutOfScope
from finetune.evaluation.out_of_scope import Choice, Detector, Seen
from finetune.inference import inputs
from finetune.inference.detector_file import FILE, write_detector
from finetune.inference.engine import Engine
from finetune.inference.engines import EngineOptions
from finetune.inference.inputs import InputSpec
from finetune.inference.records import Record, RequestedColumns, read_records
from finetune.inference.scope_counts import count_flagged
from finetune.inference.torch_engine import torch_engine
from finetune.modeling import saved_model
from finetune.reporting.results_model import Results
from finetune.reporting.run_outputs import RunOutputs
from finetune.runtime.console import print_line, print_wrapped
from finetune.runtime.errors import InputError
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.token_table import TokenTable
from finetune.training.session import Session

KEY = "score.out_of_scope"
WORDS = ("auto", "off")


def check_out_of_scope(recipe: Recipe, corpus: Corpus) -> None:
    """
    Raises:
        InputError: with all that keeps a run from having the detector that its recipe asks for.
    """
    asked, rate = recipe.score.out_of_scope, recipe.score.out_of_scope_rate
    if asked == "off":
        return
    problems = []
    held: NDArray[Any] = (
        np.zeros(0) if corpus.validation.labels is None else corpus.validation.labels
    )
    rows = len(held)
    least = out_of_scope.least_rows(rate)
    if corpus.multi_label:
        problems.append(
            f"{KEY}: expected documents with one label each; one of several labels gets none "
            f"where none fits, by the thresholds; set {KEY}=off"
        )
    elif len(corpus.labels) < out_of_scope.LEAST_LABELS:
        problems.append(
            f"{KEY}: expected {out_of_scope.LEAST_LABELS} labels or more, of which some are held "
            f"out in turn to choose a detector, found {len(corpus.labels)}; set {KEY}=off"
        )
    if recipe.model.head != "linear":
        problems.append(
            f"{KEY}: expected model.head=linear, which reads one vector of each document, got "
            f"{recipe.model.head}"
        )
    if rows < least and not corpus.multi_label:
        problems.append(
            f"{KEY}: a share of {rate:g} ({KEY}_rate) needs {least:,} validation documents with "
            f"labels or more, found {rows:,}; raise it, or have a larger validation split"
        )
    elif not corpus.multi_label and len(np.unique(held)) < 2:
        problems.append(
            f"{KEY}: expected validation documents of two labels or more, of which some are held "
            f"out in turn to choose a detector, found those of one; set {KEY}=off"
        )
    if asked not in WORDS:
        try:
            _read_given(recipe)
        except InputError as error:
            problems += [f"{KEY}: {problem}" for problem in error.problems]
    if problems:
        raise InputError(problems)


def _read_given(recipe: Recipe) -> list[Record]:
    """The documents of the file that the recipe names.

    Raises:
        InputError: where it cannot be read, or holds none.
    """
    data = recipe.data
    items = inputs.find_inputs(InputSpec(recipe.score.out_of_scope))
    spec = DocumentFormat.of_recipe(data, 1).column_spec()
    columns = RequestedColumns(spec.text_columns(), spec, option="data.text")
    inputs.check_inputs(items, columns)
    found = [one for item in items for one in read_records(item, columns, ReadProgress())]
    valid = [one for one in found if one.error is None]
    if not valid:
        why = f": {found[0].error}" if found else ""
        raise InputError(f"{recipe.score.out_of_scope}: no row of it is a document{why}")
    return valid


def add_detector(session: Session, results: Results, outputs: RunOutputs) -> Results:
    """Choose, save and describe a detector, where the recipe asks for one. On all processes."""
    if session.recipe.score.out_of_scope == "off":
        return results
    found: list[OutOfScope] = []
    with session.env.meter("out of scope"):
        outputs.attempt(f"model/{FILE}", lambda: found.append(make_detector(session)))
        shared: list[OutOfScope] = session.env.on_main(lambda: found)
    if not shared:
        return results
    return results.model_copy(update={"out_of_scope": shared[0]})


def make_detector(session: Session) -> OutOfScope:
    """On one process."""
    recipe, corpus = session.recipe, session.data.corpus
    tables, folder = session.data.tokens.tables, session.folder / "model"
    print_line("Choosing a detector of documents out of scope, by labels held out in turn")
    engine = _load_engine(session, folder)
    train = _see(engine, corpus.train, tables["train"], out_of_scope.MOST_STATES)
    validation = _see(engine, corpus.validation, tables["validation"])
    ordered = recipe.data.task == "ordered"
    chosen = out_of_scope.choose_detector(train, validation, ordered=ordered)
    rate = recipe.score.out_of_scope_rate
    detector = out_of_scope.fit_detector(chosen.kind, train, validation, rate)
    test, of_test = None, None
    if len(corpus.test):
        test = _score(engine, detector, tables["test"])
        of_test = count_flagged(test, detector.threshold)
    given = None
    if recipe.score.out_of_scope not in WORDS:
        known = test
        if known is None:
            known = detector.score(validation.logits, validation.states)
        given = _score_given(session, engine, detector, known)
    write_detector(folder, detector)
    found = describe_detector(detector, chosen, len(train), len(validation), of_test, given)
    print_wrapped(describe_result(found), mark="  ")
    return found


def describe_result(found: OutOfScope) -> str:
    """What the chosen detector tells apart, in a line."""
    best = next(one for one in found.tried if one.kind == found.kind)
    low, high = best.interval
    said = f"{found.kind}: AUROC {best.auroc:.3f} (95 % interval {low:.3f} to {high:.3f})"
    if found.test is not None:
        said += f"; it flags {found.test.flagged:,} of {found.test.rows:,} test documents"
    if found.given is not None:
        given = found.given
        said += f" and {given.flagged:,} of {given.rows:,} of {given.source}"
    return said


def describe_detector(
    detector: Detector,
    chosen: Choice,
    train_rows: int,
    validation_rows: int,
    test: dict[str, Any] | None,
    given: dict[str, Any] | None,
) -> OutOfScope:
    """Its section of the results."""
    tried = [
        {"kind": kind, "auroc": float(values.mean()), "interval": chosen.interval(kind)}
        for kind, values in chosen.aurocs.items()
    ]
    curve = zip(out_of_scope.CURVE.tolist(), chosen.curve.tolist(), strict=True)
    return OutOfScope.model_validate(
        {
            "kind": detector.kind,
            "rate": detector.rate,
            "threshold": detector.threshold,
            "states": train_rows if detector.kind == "neighbours" else 0,
            "validation_rows": validation_rows,
            "groups": chosen.groups,
            "tried": tried,
            "curve": [{"flagged": flagged, "found": found} for flagged, found in curve],
            "test": test,
            "given": given,
        }
    )


def _load_engine(session: Session, folder: Path) -> Engine:
    model, _ = saved_model.load_classifier(
        folder, trust_remote_code=session.recipe.model.trust_remote_code
    )
    plan = session.data.plan
    options = EngineOptions(
        precision=plan.precision,
        threads=plan.threads,
        in_turn=True,
        packing=plan.packed,
        states=True,
        device=session.env.accelerator.device,
    )
    return torch_engine(model, options)


def _see(engine: Engine, split: Split, table: TokenTable, most: int | None = None) -> Seen:
    """A split's documents, or as many at random, as the model sees them."""
    assert split.labels is not None
    rows = np.arange(len(table))
    if most is not None and len(rows) > most:
        rows = np.sort(np.random.default_rng(0).permutation(len(rows))[:most])
    outputs = engine.outputs(table.take(rows))
    return Seen(outputs[:, : engine.classes], outputs[:, engine.classes :], split.labels[rows])


def _score(engine: Engine, detector: Detector, table: TokenTable) -> NDArray[np.float64]:
    outputs = engine.outputs(table)
    return detector.score(outputs[:, : engine.classes], outputs[:, engine.classes :])


def _score_given(
    session: Session, engine: Engine, detector: Detector, known: NDArray[np.float64]
) -> dict[str, Any]:
    """The documents that the recipe names, against those of known labels."""
    records, tokens = _read_given(session.recipe), session.data.tokens
    texts = [record.texts for record in records]
    seconds = [one[1] for one in texts] if tokens.reads.text_pair is not None else None
    table = tokens.reads.encode([one[0] for one in texts], seconds, tokens.tokenizer)
    scores = _score(engine, detector, table)
    return (count_flagged(scores, detector.threshold) or {}) | {
        "source": session.recipe.score.out_of_scope,
        "auroc": out_of_scope.measure_auroc(scores, known),
        "auroc_interval": out_of_scope.auroc_interval(scores, known),
    }
