"""Trained classifiers and train → the probabilities that a student learns (`distil`).

    corpus, targets = consult_teachers(recipe, corpus, folder=None)

The teachers' logits are computed once, by the engine of `finetune predict`. What the student is
given are probabilities at `distil.temperature`, of several teachers their mean.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.config.schema import Recipe
from finetune.data.corpus import Corpus, Finding, Split, texts_hash
from finetune.evaluation.probabilities import to_probabilities
from finetune.inference.classifier import CHUNK_ROWS, Classifier
from finetune.runtime.console import print_line
from finetune.runtime.errors import InputError, shorten
from finetune.training.teacher_targets import TeacherTargets, read_targets

KEY = "distil.teacher"


def consult_teachers(recipe: Recipe, corpus: Corpus, folder: Path | None) -> TeacherTargets:
    """What the recipe's teachers say of each row of train. On one process.

    Args:
        folder: of a run that is taken up, which has them already.

    Raises:
        InputError: where a teacher is none, or has other labels than the documents.
    """
    key = _key(recipe, corpus)
    if folder is not None and (known := read_targets(folder, key)) is not None:
        return known
    total, named = np.zeros((len(corpus.train), len(corpus.labels))), []
    names = recipe.distil.teachers()
    for name in names:
        teacher = _load(name, recipe, corpus)
        print_line(f"Teacher {name}: predicts {len(corpus.train):,} documents")
        logits = _compute(teacher, name, corpus)
        total += to_probabilities(logits / recipe.distil.temperature, corpus.multi_label)
        named.append(f"{name} ({teacher.identity[:12]})")
        del teacher
    return TeacherTargets((total / len(names)).astype(np.float32), key, tuple(named))


def check_teachers(recipe: Recipe, corpus: Corpus) -> None:
    """Load each of the recipe's teachers, as far as a dry run has them; they are asked nothing.

    Raises:
        InputError: as `consult_teachers` does.
    """
    for name in recipe.distil.teachers():
        _load(name, recipe, corpus)


def label_by_teacher(recipe: Recipe, corpus: Corpus, targets: TeacherTargets) -> Corpus:
    """The corpus whose rows without a label have the teacher's, and what was found of that."""
    train, labels = corpus.train, corpus.train.labels
    assert labels is not None, "train rows without labels are refused"
    said = targets.probabilities
    own = np.ones(len(train), bool) if train.is_labelled is None else train.is_labelled
    best = (said >= 0.5).astype(labels.dtype) if corpus.multi_label else said.argmax(axis=1)
    same = best == labels
    agreed = (same.all(axis=1) if corpus.multi_label else same)[own]
    distil = recipe.distil
    rule = (
        f"learned from {shorten(targets.teachers, 3)} at temperature {distil.temperature:g}, with "
        f"weight {distil.weight:g} where the row has a label: it is the teacher's own in "
        f"{agreed.mean():.1%} of {len(agreed):,} such rows"
    ).replace("%", " %")
    finding = Finding("distilled", "train", len(train), (), rule)
    mask = own[:, None] if corpus.multi_label else own
    train = replace(train, labels=np.where(mask, labels, best.astype(labels.dtype)))
    return replace(corpus, train=train, findings=(*corpus.findings, finding))


def _key(recipe: Recipe, corpus: Corpus) -> str:
    distil, train = recipe.distil, corpus.train
    seconds = None if train.seconds is None else texts_hash(train.seconds)
    parts = [distil.teachers(), distil.temperature, corpus.labels, texts_hash(train.texts), seconds]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _load(name: str, recipe: Recipe, corpus: Corpus) -> Classifier:
    """
    Raises:
        InputError: where there is no such teacher, or it does not fit the documents.
    """
    try:
        teacher = Classifier(name, threads=recipe.train.threads)
    except InputError as error:
        problems = [problem.removeprefix("MODEL: ") for problem in error.problems]
        raise InputError(f"{KEY}: {problem}" for problem in problems) from None
    teacher.rules.refuse_number(KEY, f"has no probabilities: {name}")
    teacher.rules.refuse_tasks(KEY, f"which teaches no model of one: {name}")
    problems = []
    if teacher.rules.multi_label != corpus.multi_label:
        kinds = ("one label for a document", "several labels for a document")
        problems.append(
            f"{KEY}: expected a classifier of {kinds[corpus.multi_label]}, got {name}, which "
            f"predicts {kinds[teacher.rules.multi_label]}"
        )
    elif {*teacher.labels} != {*corpus.labels}:
        problems.append(
            f"{KEY}: expected a classifier of the labels of train ({shorten(corpus.labels, 10)}), "
            f"got {name}, whose labels are {shorten(teacher.labels, 10)}"
        )
    if (teacher.reading.text_pair is not None) != (corpus.train.seconds is not None):
        what = "pairs of texts" if teacher.reading.text_pair is not None else "single texts"
        problems.append(f"{KEY}: {name} reads {what}, and data.text_pair says otherwise")
    if problems:
        raise InputError(problems)
    return teacher


def _compute(teacher: Classifier, name: str, corpus: Corpus) -> NDArray[np.float64]:
    """The logits of each row of train, in the order of its labels. (rows, classes)"""
    place = {label: k for k, label in enumerate(teacher.labels)}
    columns = [place[label] for label in corpus.labels]
    train, found = corpus.train, []
    for start in range(0, len(train), CHUNK_ROWS):
        found.append(_compute_some(teacher, train, slice(start, start + CHUNK_ROWS)))
    logits = np.concatenate(found)[:, columns].astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        where = train.places.place(int(bad[0]))
        raise InputError(f"{KEY}: {name}: its logits are not finite for {where}; name another")
    return logits


def _compute_some(teacher: Classifier, train: Split, rows: slice) -> NDArray[np.float32]:
    texts: Sequence[str] = train.texts[rows]
    seconds = None if train.seconds is None else train.seconds[rows]
    table = teacher.reading.encode([*texts], seconds, teacher.tokenizer)
    return teacher.engine.logits(table)
