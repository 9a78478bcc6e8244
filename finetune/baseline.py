"""What a text classifier without any pretraining scores on the same rows."""

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from finetune.corpus import Corpus


def tfidf_accuracy(corpus: Corpus) -> float | None:
    """Test accuracy of word and word-pair TF-IDF under a linear SVM; None for an unlabelled test.

    It reads whole documents, is fitted on train alone, and nothing in it is tuned.
    """
    if corpus.test.labels is None:
        return None
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC())
    model.fit(corpus.train.texts, corpus.train.labels)
    return float(np.mean(model.predict(corpus.test.texts) == corpus.test.labels))
