"""A fast classifier for the documents that it is sure of, and its teacher for the others.

    plan = plan_cascade(options, teacher, student)     # the threshold, chosen on labelled rows
    cascade = Cascade(teacher, student, plan.threshold)
    cascade.predict(rows, cascade.encode(rows))        # as of a `Classifier`

The student's probabilities are calibrated, as its run has folded the temperature into its head. The
rows that choose the threshold are the validation split of both models' runs, or those of a file.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from finetune.data import sources
from finetune.data.corpus import Corpus, Split, split_hash
from finetune.data.prepare import prepare_corpus
from finetune.evaluation.cascade import CascadeThreshold, choose_threshold
from finetune.inference.classifier import CHUNK_ROWS, Classifier
from finetune.inference.engines import ModelSource
from finetune.inference.labelled_input import LabelledInput, read_labelled
from finetune.inference.loaded_classifier import Prediction
from finetune.inference.records import ANSWERED_BY, STUDENT, TEACHER, Record
from finetune.runtime.errors import InputError, shorten
from finetune.tokenization.token_table import TokenTable

if TYPE_CHECKING:
    from finetune.inference.evaluation_job import TrainedRun

KEY = "--cascade"
DATA = "--cascade-data"
LABEL_OPTION = re.compile(r"--label(?![\w-])")
EVALUATE_ADVICE = re.compile(r"; --unknown-labels drop .*?; ")


@dataclass(frozen=True)
class CascadeOptions:
    """A cascade, as a person says it.

    Attributes:
        student: the fast classifier.
        max_loss: points of accuracy that it may lose against the teacher alone.
        data: labelled rows to choose the threshold on; None: the validation split of both runs.
    """

    student: ModelSource
    max_loss: float = 0.3
    data: LabelledInput | None = None


@dataclass(frozen=True)
class CascadePlan:
    """The threshold of a cascade, and where it comes from.

    Attributes:
        student: the fast classifier's name.
        max_loss: points of accuracy that may be lost.
        data: the labelled rows that chose the threshold, in words.
    """

    student: str
    max_loss: float
    data: str
    chosen: CascadeThreshold

    def as_json(self) -> dict[str, Any]:
        """The plan as the file beside the output has it."""
        return {
            "student": self.student,
            "max_loss": self.max_loss,
            "data": self.data,
            **asdict(self.chosen),
            "lost": list(self.chosen.lost),  # a tuple is never equal to what JSON gives back
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """What `as_json` made."""
        own = {field.name for field in fields(cls)}
        chosen = {key: value for key, value in tree.items() if key not in own}
        named = {key: value for key, value in tree.items() if key in own}
        chosen["lost"] = tuple(chosen["lost"])
        return cls(**named, chosen=CascadeThreshold(**chosen))

    def describe(self) -> str:
        """What is to be expected, in words."""
        found = self.chosen
        low, high = (100 * one for one in found.lost)
        change = 100 * (found.accuracy - found.teacher_accuracy)
        return (
            f"{self.student} answers where its probability is {found.threshold:.4f} or more: "
            f"{100 * found.share:.1f} % of {found.rows:,} rows ({self.data}), with an accuracy of "
            f"{100 * found.accuracy:.2f} % in all; MODEL alone has "
            f"{100 * found.teacher_accuracy:.2f} %: {change:+.2f} points (95 % interval "
            f"{-high:+.2f} to {-low:+.2f})"
        )

    def warnings(self) -> list[str]:
        """What speaks against this cascade, in words."""
        found, said = self.chosen, []
        if found.student_accuracy > found.teacher_accuracy:
            said.append(
                f"{self.student} alone is right more often than MODEL "
                f"({100 * found.student_accuracy:.2f} % and {100 * found.teacher_accuracy:.2f} %): "
                "the student comes after --cascade, and its teacher, the better and slower one, "
                "is MODEL"
            )
        if found.rows * self.max_loss < 100:
            said.append(
                f"one of {found.rows:,} rows is {100 / found.rows:.2f} points, and --max-loss is "
                f"{self.max_loss:g}: name more labelled rows with {DATA}"
            )
        return said


class Cascade:
    """Two classifiers that predict as one.

    Attributes:
        threshold: the least probability of its label with which the student answers.
        identity: a hash of all that decides a prediction.
    """

    def __init__(self, teacher: Classifier, student: Classifier, threshold: float) -> None:
        self.teacher, self.student, self.threshold = teacher, student, threshold
        parts = f"{teacher.identity} {student.identity} {threshold!r}"
        self.identity = hashlib.sha256(parts.encode()).hexdigest()

    def encode(self, rows: Sequence[Record]) -> TokenTable:
        """The student's tokens of the rows without an error."""
        return self.student.encode(rows)

    def predict(
        self,
        rows: Sequence[Record],
        table: TokenTable,
        probabilities: bool = False,
        explain: int = 0,
    ) -> Iterator[Prediction]:
        """The prediction for each row with who made it, or its `error`.

        Args:
            table: what `encode` made of the rows.
            explain: must be 0.
        """
        assert not explain, "explanations of two models are refused"
        found = [*self.student.predict(rows, table, probabilities)]
        others = [
            i
            for i, (row, one) in enumerate(zip(rows, found, strict=True))
            if row.error is None and score_of(one) < self.threshold
        ]
        rest = [rows[i] for i in others]
        by_teacher = dict(
            zip(
                others,
                self.teacher.predict(rest, self.teacher.encode(rest), probabilities),
                strict=True,
            )
        )
        for i, (row, own) in enumerate(zip(rows, found, strict=True)):
            who = None if row.error is not None else TEACHER if i in by_teacher else STUDENT
            yield by_teacher.get(i, own) | {ANSWERED_BY: who}


def score_of(prediction: Prediction) -> float:
    """The probability of a prediction's label; below 0 where it has none."""
    if "error" in prediction or prediction["label"] is None:
        return -1.0
    return float(prediction["score"])


def check_pair(teacher: Classifier, student: Classifier) -> None:
    """
    Raises:
        InputError: where the two do not answer the same question.
    """
    for one in (teacher, student):
        one.rules.refuse_number(KEY, "has no probability to be sure by")
    several = [one.source for one in (teacher, student) if one.rules.multi_label]
    if several:
        raise InputError(
            f"{KEY}: expected classifiers of one label for each document, got {shorten(several)}, "
            "which predicts several"
        )
    if teacher.identity == student.identity:
        raise InputError(
            f"{KEY}: expected a student and its teacher, got the same model twice "
            f"({student.source}, {teacher.source}); leave out {KEY} to use one"
        )
    problems = []
    if {*teacher.labels} != {*student.labels}:
        problems.append(
            f"{KEY}: expected two classifiers of the same labels, got {shorten(student.labels, 10)}"
            f" of the student {student.source} and {shorten(teacher.labels, 10)} of the teacher "
            f"{teacher.source}"
        )
    elif teacher.rules.fields != student.rules.fields:
        problems.append(
            f"{KEY}: expected two classifiers that give the same columns, got "
            f"{', '.join(student.rules.fields)} of the student and "
            f"{', '.join(teacher.rules.fields)} of the teacher"
        )
    if teacher.reading.column_spec() != student.reading.column_spec():
        problems.append(
            f"{KEY}: expected two classifiers that read the same columns in the same way, got "
            f"{', '.join(student.columns)} of the student and {', '.join(teacher.columns)} of the "
            "teacher"
        )
    if problems:
        raise InputError(problems)


def plan_cascade(
    options: CascadeOptions, teacher: Classifier, student: Classifier, teacher_name: str
) -> CascadePlan:
    """The threshold from which on the student answers.

    Args:
        teacher_name: as the user names it.

    Raises:
        InputError: where there are no labelled rows to choose it on, or none loses little enough.
    """
    split, labels, where = _read_rows(options, teacher, teacher_name)
    assert split.labels is not None, "rows without labels are refused"
    names = np.array(labels, dtype=object)[split.labels]
    scores, student_is_right = _answer(student, split, names)
    _, teacher_is_right = _answer(teacher, split, names)
    chosen = choose_threshold(scores, student_is_right, teacher_is_right, options.max_loss / 100)
    if chosen is None:
        raise InputError(
            f"--max-loss: on {len(split):,} rows ({where}), even the surest answers of the student "
            f"lose more than {options.max_loss:g} points; raise it, or leave out {KEY}"
        )
    return CascadePlan(options.student.name, options.max_loss, where, chosen)


def describe_data(options: CascadeOptions) -> str:
    """The labelled rows that choose the threshold, in words."""
    return "validation" if options.data is None else options.data.source


def _read_rows(
    options: CascadeOptions, teacher: Classifier, teacher_name: str
) -> tuple[Split, Sequence[str], str]:
    """Labelled rows, the names of their labels, and what they are in words."""
    from finetune.inference.evaluation_job import find_run  # which loads metrics and reports

    run = find_run(teacher_name)
    if options.data is not None:
        trained_on = None if run is None else run.recipe.data
        try:
            found = read_labelled(options.data, teacher, trained_on)
        except InputError as error:
            own = (_with_own_options(problem) for problem in error.problems)
            raise InputError(f"{DATA}: {problem}" for problem in own) from None
        return found.split, found.labels, describe_data(options)
    corpus = _read_corpus(run, find_run(options.student.name))
    return corpus.validation, corpus.labels, describe_data(options)


def _with_own_options(problem: str) -> str:
    """A message on labelled rows, with the options of a cascade in the place of evaluate's."""
    problem = EVALUATE_ADVICE.sub("; ", problem).removeprefix("DATA: ")
    problem = problem.replace("name one with --split", "name the file of one")
    return LABEL_OPTION.sub(f"{DATA.removesuffix('data')}label", problem)


def _read_corpus(teacher_run: "TrainedRun | None", student_run: "TrainedRun | None") -> Corpus:
    """The documents whose validation split both runs have, read again.

    Raises:
        InputError: where they have none in common, or the data have changed.
    """
    remedy = f"name labelled documents that neither has learned from with {DATA}"
    if teacher_run is None or student_run is None:
        raise InputError(
            f"{KEY}: the threshold is chosen on the validation split of both models' runs, and "
            f"{'MODEL' if teacher_run is None else 'the student'} is no run's folder; {remedy}"
        )
    hashes = [run.results.hashes.validation for run in (teacher_run, student_run)]
    if hashes[0] is None or hashes[0] != hashes[1]:
        raise InputError(
            f"{KEY}: the runs {teacher_run.folder} and {student_run.folder} have no validation "
            f"split in common; {remedy}"
        )
    recipe = teacher_run.recipe
    try:
        rows = sources.load_rows(recipe.data, recipe.cache.folder(), recipe.score.slices or ())
        corpus = prepare_corpus(rows, recipe.data)
    except InputError as error:
        raise InputError(
            f"{KEY}: the rows of the run {teacher_run.folder}, whose validation split chooses the "
            f"threshold, cannot be read again: {'; '.join(error.problems)}. Put them back, or "
            f"{remedy}"
        ) from None
    if not len(corpus.validation):
        raise InputError(f"{KEY}: the run {teacher_run.folder} has no validation split; {remedy}")
    if split_hash(corpus.validation) != hashes[0]:
        raise InputError(
            f"{KEY}: {recipe.data.source} has changed since the run {teacher_run.folder}, whose "
            f"validation split is no longer in it; {remedy}"
        )
    return corpus


def _answer(classifier: Classifier, split: Split, names: Any) -> tuple[Any, Any]:
    """A classifier's scores of some rows, and whether its labels are right. (rows,) each"""
    seconds = split.seconds
    records = [
        Record((text,) if seconds is None else (text, seconds[i]), ())
        for i, text in enumerate(split.texts)
    ]
    found: list[Prediction] = []
    for start in range(0, len(records), CHUNK_ROWS):
        some = records[start : start + CHUNK_ROWS]
        found += classifier.predict(some, classifier.encode(some))
    scores = np.array([score_of(one) for one in found])
    is_right = np.array([one["label"] == name for one, name in zip(found, names, strict=True)])
    return scores, is_right
