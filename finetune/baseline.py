"""What classifiers without any pretraining say of the same rows: does the encoder earn its cost?

Both give logits, so that they are scored as the model is.
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from finetune.corpus import Corpus

MOST_CHARACTERS = 30_000_000  # of train that TF-IDF reads: some 20 seconds
FEATURES = 50_000  # the commonest words and word pairs


@dataclass(frozen=True)
class Baseline:
    """Its logits on test, and how it came to them.

    Attributes:
        logits: log-probabilities. (rows, classes)
        train_rows: what it was fitted on.
    """

    logits: NDArray[np.float32]
    train_rows: int
    seconds: float


def majority(corpus: Corpus) -> Baseline:
    """Train's class frequencies, whatever the text: always its commonest label."""
    assert corpus.train.labels is not None
    counts = np.bincount(corpus.train.labels, minlength=len(corpus.labels))
    logits = np.log(np.maximum(counts, 1e-9) / counts.sum()).astype(np.float32)
    return Baseline(np.tile(logits, (len(corpus.test), 1)), len(corpus.train), 0.0)


def tfidf(corpus: Corpus) -> Baseline:
    """Words and word pairs, weighted by TF-IDF, under a logistic regression.

    It reads whole documents, is fitted on train alone, and nothing in it is tuned. Of a train split
    of more than 30 million characters it reads the first rows of a fixed shuffle.
    """
    began = time.perf_counter()
    assert corpus.train.labels is not None
    order = np.random.default_rng(0).permutation(len(corpus.train))
    texts = corpus.train.whole()
    sizes = np.cumsum([len(texts[i]) for i in order])
    order = np.sort(order[: max(1, int(np.searchsorted(sizes, MOST_CHARACTERS)))])
    labels = corpus.train.labels[order]
    logits = np.full((len(corpus.test), len(corpus.labels)), np.log(1e-9), dtype=np.float32)
    if len(np.unique(labels)) < 2:
        logits[:, labels[0]] = 0.0
        return Baseline(logits, len(order), time.perf_counter() - began)
    model = make_pipeline(
        TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, max_features=FEATURES, dtype=np.float32
        ),
        LogisticRegression(C=10, tol=1e-3, max_iter=200),
    )
    try:
        model.fit([texts[i] for i in order], labels)
    except ValueError:  # not a word in all of train
        return majority(corpus)
    chances = model.predict_proba(corpus.test.whole())
    logits[:, model.classes_] = np.log(np.maximum(chances, 1e-9))
    return Baseline(logits, len(order), time.perf_counter() - began)


def tfidf_accuracy(corpus: Corpus) -> float | None:
    """Test accuracy of word and word-pair TF-IDF under a linear SVM; None for an unlabelled test.

    It reads whole documents, is fitted on train alone, and nothing in it is tuned.
    """
    if corpus.test.labels is None:
        return None
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC())
    model.fit(corpus.train.whole(), corpus.train.labels)
    return float(np.mean(model.predict(corpus.test.whole()) == corpus.test.labels))
