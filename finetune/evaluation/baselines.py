"""What classifiers without any pretraining say of the same rows: does the encoder earn its cost?

Both give logits, so that they are scored as the model is.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from finetune.data.corpus import Corpus, class_counts
from finetune.evaluation import probabilities, thresholds

MOST_CHARACTERS = 30_000_000  # of train that TF-IDF reads: some 20 seconds
AT_ONCE = 10_000  # test rows whose words are counted together
FEATURES = 50_000  # the commonest words and word pairs


@dataclass(frozen=True)
class Baseline:
    """Its logits on test, and how it came to them.

    Attributes:
        logits: log-probabilities. (rows, classes)
        train_rows: what it was fitted on.
        thresholds: of several labels a row, from which probability on each is given. (classes,), or
            (rows, classes) where each part of test has its own.
    """

    logits: NDArray[np.float32]
    train_rows: int
    seconds: float
    thresholds: NDArray[np.float64] | None = None


def majority_baseline(corpus: Corpus) -> Baseline:
    """Train's class frequencies, whatever the text: always its commonest label."""
    assert corpus.train.labels is not None
    counts = np.array([*class_counts(corpus.train, corpus.labels).values()])
    if corpus.multi_label:
        shares = np.clip(counts / len(corpus.train), 1e-9, 1 - 1e-9)
        odds = np.tile(np.log(shares / (1 - shares)), (len(corpus.test), 1)).astype(np.float32)
        alone = np.where(np.arange(len(counts)) == counts.argmax(), 0.0, 1.0)
        return Baseline(odds, len(corpus.train), 0.0, alone)
    logits = np.log(np.maximum(counts, 1e-9) / counts.sum()).astype(np.float32)
    return Baseline(np.tile(logits, (len(corpus.test), 1)), len(corpus.train), 0.0)


def tfidf_baseline(corpus: Corpus) -> Baseline:
    """Words and word pairs, weighted by TF-IDF, under a logistic regression.

    It reads whole documents, is fitted on train alone, and nothing in it is tuned. Of a train split
    of more than 30 million characters it reads the first rows of a fixed shuffle. Of several labels
    a row, it is one regression for each label, with thresholds that are chosen as the model's.
    """
    if corpus.folds is not None:
        return _by_fold(corpus, corpus.folds)
    began = time.perf_counter()
    assert corpus.train.labels is not None
    order = np.random.default_rng(0).permutation(len(corpus.train))
    texts = corpus.train.whole()
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    sizes = np.cumsum(lengths[order])
    order = np.sort(order[: max(1, int(np.searchsorted(sizes, MOST_CHARACTERS)))])
    labels = corpus.train.labels[order]
    if corpus.multi_label:
        return _tfidf_of_each(corpus, order, began)
    logits = np.full((len(corpus.test), len(corpus.labels)), np.log(1e-9), dtype=np.float32)
    if len(np.unique(labels)) < 2:
        logits[:, labels[0]] = 0.0
        return Baseline(logits, len(order), time.perf_counter() - began)
    model = make_pipeline(_words(), LogisticRegression(C=10, tol=1e-3, max_iter=200))
    try:
        model.fit([texts[i] for i in order], labels)
    except ValueError:  # not a word in all of train
        return majority_baseline(corpus)
    test = corpus.test.whole()
    for start in range(0, len(test), AT_ONCE):
        chances = model.predict_proba(test[start : start + AT_ONCE])
        logits[start : start + AT_ONCE, model.classes_] = np.log(np.maximum(chances, 1e-9))
    return Baseline(logits, len(order), time.perf_counter() - began)


def _by_fold(corpus: Corpus, folds: NDArray[np.int64]) -> Baseline:
    """Test is train itself: each part of it by what was fitted on the others, as the model was."""
    logits = np.zeros((len(corpus.test), len(corpus.labels)), dtype=np.float32)
    cuts = np.full(logits.shape, 0.5)
    rows, seconds = 0, 0.0
    for part in np.unique(folds):
        here, others = np.flatnonzero(folds == part), np.flatnonzero(folds != part)
        train, test = corpus.train.take(others), corpus.test.take(here)
        one = tfidf_baseline(replace(corpus, train=train, test=test, folds=None))
        logits[here], rows, seconds = one.logits, one.train_rows, seconds + one.seconds
        if one.thresholds is not None:
            cuts[here] = one.thresholds
    return Baseline(logits, rows, seconds, cuts if corpus.multi_label else None)


def _words() -> TfidfVectorizer:
    return TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, max_features=FEATURES, dtype=np.float32
    )


def _tfidf_of_each(corpus: Corpus, order: NDArray[np.int64], began: float) -> Baseline:
    """One regression for each label, on the rows of train in `order`."""
    assert corpus.train.labels is not None
    words, labels = _words(), corpus.train.labels[order]
    try:
        texts = corpus.train.whole()
        train = words.fit_transform([texts[i] for i in order])
    except ValueError:  # not a word in all of train
        return majority_baseline(corpus)
    truth, test = corpus.validation.labels, words.transform(corpus.test.whole())
    if truth is not None:
        tuned_by, logits = _of_each(train, labels, words.transform(corpus.validation.whole()), test)
        cuts = thresholds.choose_per_label(probabilities.sigmoid(tuned_by), truth)
    else:
        [logits] = _of_each(train, labels, test)
        cuts = thresholds.choose_shared(probabilities.sigmoid(_held_out(train, labels)), labels)
    return Baseline(logits, len(order), time.perf_counter() - began, cuts)


def _of_each(train: Any, labels: NDArray[Any], *others: Any) -> list[NDArray[np.float32]]:
    """What a regression for each label says of other rows' words. (rows, classes) each"""
    logits = [np.zeros((of.shape[0], labels.shape[1]), dtype=np.float32) for of in others]
    for c in range(labels.shape[1]):
        if labels[:, c].min() == labels[:, c].max():
            for column in logits:
                column[:, c] = -20.0 if labels[0, c] == 0 else 20.0
            continue
        model = LogisticRegression(C=10, tol=1e-2, max_iter=100, solver="liblinear")
        model.fit(train, labels[:, c])
        for column, of in zip(logits, others, strict=True):
            column[:, c] = model.decision_function(of)
    return logits


def _held_out(train: Any, labels: NDArray[Any]) -> NDArray[np.float32]:
    """What regressions say of train's own rows that were held out. (rows, classes)

    Of the rows that they were fitted on, they are sure, and a threshold that these choose is far
    too high.
    """
    fold = np.random.default_rng(0).permutation(len(labels)) % thresholds.FOLDS
    found = np.zeros(labels.shape, dtype=np.float32)
    for part in np.unique(fold):
        here, others = fold == part, fold != part
        if others.any():
            [found[here]] = _of_each(train[others], labels[others], train[here])
    return found


def tfidf_accuracy(corpus: Corpus) -> float | None:
    """Test accuracy of word and word-pair TF-IDF under a linear SVM; None for an unlabelled test.

    It reads whole documents, is fitted on train alone, and nothing in it is tuned. Of several
    labels a row, one SVM for each label, and their micro-F1.
    """
    if corpus.test.labels is None:
        return None
    machine = OneVsRestClassifier(LinearSVC()) if corpus.multi_label else LinearSVC()
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), machine)
    model.fit(corpus.train.whole(), corpus.train.labels)
    if corpus.multi_label:
        given = model.predict(corpus.test.whole())
        return float(f1_score(corpus.test.labels, given, average="micro", zero_division=0))
    return float(np.mean(model.predict(corpus.test.whole()) == corpus.test.labels))
