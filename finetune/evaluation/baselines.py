"""Baselines without pretraining on the same rows: is the encoder worth its cost?

They give logits, so that they are scored as the model is.
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
from finetune.evaluation.probabilities import sigmoid
from finetune.evaluation.thresholds import FOLDS, choose_per_label, choose_shared

MAX_CHARACTERS = 30_000_000  # of train that TF-IDF reads: some 20 seconds
CHUNK = 10_000  # test rows whose words are counted together
FEATURES = 50_000  # the commonest words and word pairs


@dataclass(frozen=True)
class Baseline:
    """A baseline's logits on test, and how it was fitted.

    Attributes:
        logits: log-probabilities. (rows, classes)
        train_rows: that it was fitted on.
        thresholds: multi-label: from which probability on each label is predicted. (classes,), or
            (rows, classes) where each fold of test has its own.
    """

    logits: NDArray[np.float32]
    train_rows: int
    seconds: float
    thresholds: NDArray[np.float64] | None = None


def majority_baseline(corpus: Corpus) -> Baseline:
    """Train's class frequencies, whatever the text: always predicts the most frequent label.

    Rows count as much as their weights say; those without a label of their own do not.
    """
    corpus = replace(corpus, train=corpus.train.labelled_only())
    assert corpus.train.labels is not None
    counts = np.array([*class_counts(corpus.train, corpus.labels).values()])
    rows, weights = len(corpus.train), corpus.train.weights
    if weights is not None and weights.any():
        own, rows = corpus.train.labels, weights.sum()
        counts = weights @ own if own.ndim == 2 else np.bincount(own, weights, len(corpus.labels))
    if corpus.multi_label:
        shares = np.clip(counts / rows, 1e-9, 1 - 1e-9)
        odds = np.tile(np.log(shares / (1 - shares)), (len(corpus.test), 1)).astype(np.float32)
        alone = np.where(np.arange(len(counts)) == counts.argmax(), 0.0, 1.0)
        return Baseline(odds, len(corpus.train), 0.0, alone)
    logits = np.log(np.maximum(counts, 1e-9) / counts.sum()).astype(np.float32)
    return Baseline(np.tile(logits, (len(corpus.test), 1)), len(corpus.train), 0.0)


def tfidf_baseline(corpus: Corpus) -> Baseline:
    """Words and word pairs, weighted by TF-IDF, under a logistic regression.

    It reads whole documents, is fitted on train alone, and nothing in it is tuned. Of a train split
    of more than 30 million characters it reads the first rows of a fixed shuffle. Multi-label,
    it is one regression for each label, with thresholds that are chosen as the model's. Rows have
    their weights; of soft labels, the majority label is fitted.
    """
    if corpus.folds is not None:
        return _tfidf_by_fold(corpus, corpus.folds)
    corpus = replace(corpus, train=corpus.train.labelled_only())
    began = time.perf_counter()
    assert corpus.train.labels is not None
    (order, weights), texts = choose_rows(corpus), corpus.train.whole()
    labels = corpus.train.labels[order]
    if corpus.multi_label:
        return _tfidf_one_vs_rest_logits(corpus, order, weights, began)
    logits = np.full((len(corpus.test), len(corpus.labels)), np.log(1e-9), dtype=np.float32)
    if len(np.unique(labels)) < 2:
        logits[:, labels[0]] = 0.0
        return Baseline(logits, len(order), time.perf_counter() - began)
    regression = LogisticRegression(C=10, tol=1e-3, max_iter=200)
    model = make_pipeline(build_vectorizer(), regression)
    try:
        model.fit([texts[i] for i in order], labels, logisticregression__sample_weight=weights)
    except ValueError:  # not a word in all of train
        return majority_baseline(corpus)
    test = corpus.test.whole()
    for start in range(0, len(test), CHUNK):
        probabilities = model.predict_proba(test[start : start + CHUNK])
        logits[start : start + CHUNK, model.classes_] = np.log(np.maximum(probabilities, 1e-9))
    return Baseline(logits, len(order), time.perf_counter() - began)


def choose_rows(corpus: Corpus) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """The rows of train that TF-IDF reads: all, or the first of a fixed shuffle, in their order;
    and their weights, where they have some."""
    order = np.random.default_rng(0).permutation(len(corpus.train))
    texts = corpus.train.whole()
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    sizes = np.cumsum(lengths[order])
    order = np.sort(order[: max(1, int(np.searchsorted(sizes, MAX_CHARACTERS)))])
    weights = None if corpus.train.weights is None else corpus.train.weights[order]
    if weights is not None and weights.any():  # what has a weight of 0 is not there
        order, weights = order[weights > 0], weights[weights > 0]
    return order, weights


def _tfidf_by_fold(corpus: Corpus, folds: NDArray[np.int64]) -> Baseline:
    """Test is train itself: each fold is predicted by what was fitted on the others."""
    logits = np.zeros((len(corpus.test), len(corpus.labels)), dtype=np.float32)
    thresholds = np.full(logits.shape, 0.5)
    rows, seconds = 0, 0.0
    for k in np.unique(folds):
        here, others = np.flatnonzero(folds == k), np.flatnonzero(folds != k)
        train, test = corpus.train.take(others), corpus.test.take(here)
        fitted = tfidf_baseline(replace(corpus, train=train, test=test, folds=None))
        logits[here], rows, seconds = fitted.logits, fitted.train_rows, seconds + fitted.seconds
        if fitted.thresholds is not None:
            thresholds[here] = fitted.thresholds
    return Baseline(logits, rows, seconds, thresholds if corpus.multi_label else None)


def build_vectorizer() -> TfidfVectorizer:
    """Words and word pairs, the commonest."""
    return TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, max_features=FEATURES, dtype=np.float32
    )


def _tfidf_one_vs_rest_logits(
    corpus: Corpus,
    order: NDArray[np.int64],
    weights: NDArray[np.float64] | None,
    began: float,
) -> Baseline:
    """One regression for each label, on the rows of train in `order`, and their weights."""
    assert corpus.train.labels is not None
    words, labels = build_vectorizer(), corpus.train.labels[order]
    try:
        texts = corpus.train.whole()
        train = words.fit_transform([texts[i] for i in order])
    except ValueError:  # not a word in all of train
        return majority_baseline(corpus)
    truth, test = corpus.validation.labels, words.transform(corpus.test.whole())
    if truth is not None:
        tuned_by, logits = _one_vs_rest_logits(
            train, labels, weights, words.transform(corpus.validation.whole()), test
        )
        thresholds = choose_per_label(sigmoid(tuned_by), truth)
    else:
        [logits] = _one_vs_rest_logits(train, labels, weights, test)
        thresholds = choose_shared(sigmoid(_held_out_logits(train, labels, weights)), labels)
    return Baseline(logits, len(order), time.perf_counter() - began, thresholds)


def _one_vs_rest_logits(
    train: Any, labels: NDArray[Any], weights: NDArray[np.float64] | None, *others: Any
) -> list[NDArray[np.float32]]:
    """The logits of one regression for each label on other rows. (rows, classes) each"""
    logits = [np.zeros((of.shape[0], labels.shape[1]), dtype=np.float32) for of in others]
    for c in range(labels.shape[1]):
        if labels[:, c].min() == labels[:, c].max():
            for column in logits:
                column[:, c] = -20.0 if labels[0, c] == 0 else 20.0
            continue
        model = LogisticRegression(C=10, tol=1e-2, max_iter=100, solver="liblinear")
        model.fit(train, labels[:, c], sample_weight=weights)
        for column, of in zip(logits, others, strict=True):
            column[:, c] = model.decision_function(of)
    return logits


def _held_out_logits(
    train: Any, labels: NDArray[Any], weights: NDArray[np.float64] | None
) -> NDArray[np.float32]:
    """Logits of train's own rows, each by regressions that did not see it. (rows, classes)

    On the rows that they were fitted on, regressions are overconfident, and a threshold chosen
    there is far too high.
    """
    fold = np.random.default_rng(0).permutation(len(labels)) % FOLDS
    logits = np.zeros(labels.shape, dtype=np.float32)
    for k in np.unique(fold):
        here, others = fold == k, fold != k
        if others.any():
            own = None if weights is None else weights[others]
            [logits[here]] = _one_vs_rest_logits(train[others], labels[others], own, train[here])
    return logits


def tfidf_accuracy(corpus: Corpus) -> float | None:
    """Test accuracy of word and word-pair TF-IDF under a linear SVM; None for an unlabelled test.

    It reads whole documents, is fitted on train alone, and nothing in it is tuned. Multi-label,
    one SVM for each label, and their micro-F1.
    """
    if corpus.test.labels is None:
        return None
    machine = OneVsRestClassifier(LinearSVC()) if corpus.multi_label else LinearSVC()
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), machine)
    model.fit(corpus.train.whole(), corpus.train.labels)
    if corpus.multi_label:
        predictions = model.predict(corpus.test.whole())
        return float(f1_score(corpus.test.labels, predictions, average="micro", zero_division=0))
    return float(np.mean(model.predict(corpus.test.whole()) == corpus.test.labels))
