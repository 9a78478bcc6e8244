"""A model and documents in any shape → predictions in the same shape."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.api.run import Run
from finetune.data.formats.registry import suffix_of
from finetune.inference.classifier import Classifier
from finetune.inference.inputs import InputSpec, find_inputs

Model = str | os.PathLike[str] | Run | Classifier


def load(model: str | os.PathLike[str], **options: Any) -> Classifier:
    """A trained classifier, ready to predict.

        classify = finetune.load("runs/tickets/2026-01-31_12-00-00")
        classify(["Where is my parcel?"])       # [{"label": "delivery", "score": 0.97}]

    Args:
        model: a run or its folder, a model folder, `package:…` or a Hub id.
        options: those of `finetune.Classifier`, such as engine, precision and device.

    Raises:
        InputError: where there is no such model, or it is no classifier.
    """
    return Classifier(os.fspath(model), **options)


def predict(
    model: Model, data: Any, *, text: str | Sequence[str] | None = None, probabilities: bool = False
) -> Any:
    """Predict a label for each document.

        finetune.predict(run, ["Where is my parcel?"])      # a list of dicts
        frame.join(finetune.predict(run, frame))            # a frame with the same index

    Args:
        model: a run, a classifier, or what `finetune.load` takes.
        data: a text; a list of texts or of rows; a column or a data frame of pandas or polars, an
            Arrow table, a `datasets.Dataset`; or a data file: a Path, or text with the ending of
            one, such as "tickets.csv". `finetune predict` writes files of any size.
        text: the columns of the documents, where they are not called as in training.
        probabilities: include the probability of each label.

    Returns:
        Of a frame, table or data set, or of a column of one: the same kind, with a row for each
        row and the columns label and score (multi-label: labels and scores), and
        `probabilities.LABEL` for each label. Of anything else: a dict with these for each document.
        A row that is no document has an `error` instead.

    Raises:
        InputError: for a file that cannot be read, or a table without the columns.
    """
    classify = model if isinstance(model, Classifier) else _classifier(model)
    named = None if text is None else (text,) if isinstance(text, str) else tuple(text)
    if _is_file(data):
        files = find_inputs(InputSpec(os.fspath(data)))
        parts = [classify.predict_source(file, named, probabilities) for file in files]
        return [prediction for part in parts for prediction in part]
    return classify(data, probabilities, named)


def _classifier(model: str | os.PathLike[str] | Run) -> Classifier:
    return model.classifier if isinstance(model, Run) else load(model)


def _is_file(data: Any) -> bool:
    """Whether a path is meant: a text that ends like a data file is one, unless it has a space."""
    if not isinstance(data, str):
        return isinstance(data, os.PathLike)
    if "\n" in data or not suffix_of(Path(data)):
        return False
    return re.search(r"\s", data) is None or Path(data).is_file()
