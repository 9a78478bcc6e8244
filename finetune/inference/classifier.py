"""A model and documents → predictions, as the model's own config.json says.

    classify = Classifier("runs/bbc_news/…")             # a run folder, a model folder, a Hub id
    classify(["Shares fell after the bank raised its rate."])
    # [{"label": "business", "score": 0.93}]

The model brings its label names, how long documents are read, its calibration (folded into the
head), thresholds, and the probability below which it abstains.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch

from finetune.data import frames
from finetune.data.cells import clip
from finetune.data.formats.registry import peek_columns
from finetune.data.formats.source import DataSource, ReadProgress
from finetune.data.identifiers import is_missing
from finetune.inference.detector_file import FILE
from finetune.inference.documents import DocumentReader
from finetune.inference.engine_choice import Choice, choose_engine
from finetune.inference.engines import AUTO, EngineOptions, ModelSource
from finetune.inference.explanation import check_explainable
from finetune.inference.loaded_classifier import LoadedClassifier, Prediction
from finetune.inference.records import MOST_WORDS, Record, RequestedColumns, read_records
from finetune.inference.sample_texts import sample_records
from finetune.modeling.model_folder import find_model
from finetune.runtime.errors import InputError
from finetune.runtime.wording import count_of

SAMPLE = 128  # documents to compare engines on
CHUNK_ROWS = 4096  # documents that are sorted by length and classified together


class Classifier(LoadedClassifier):
    """A trained classifier that predicts.

    Args:
        source: a run folder, a model folder, `package:…` or a Hub id.
        engine: torch, onnx or openvino; auto: the fastest that predicts the same, as a probe of
            about a second says; None: that of a folder that `finetune export` wrote, else torch.
        precision: auto, bf16, fp16 or fp32; of torch.
        threads: of a CPU; None: all cores.
        tokens: computed at once, which bounds memory; None: as the hardware plan says.
        device: where torch computes; None: as the hardware plan says.
        revision, trust_remote_code: of a Hub id, as transformers has them.

    Raises:
        InputError: where there is no such model, or it is no classifier.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        engine: str | None = None,
        precision: str = "auto",
        threads: int | None = None,
        tokens: int | None = None,
        device: torch.device | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self._choose(
            ModelSource(os.fspath(source), revision, trust_remote_code),
            engine,
            EngineOptions(precision, threads, tokens, device),
        )

    @classmethod
    def with_options(
        cls,
        source: ModelSource,
        engine: str | None,
        options: EngineOptions,
        read_rows: "Callable[[Classifier], Sequence[Record]] | None" = None,
    ) -> Self:
        """The same, with all options of how an engine computes.

        Args:
            read_rows: the first rows of what it will predict, on which `auto` compares engines;
                None: texts of the model's run, or drawn ones.
        """
        made = cls.__new__(cls)
        made._choose(source, engine, options, read_rows)
        return made

    @staticmethod
    def choose_engine(
        source: ModelSource,
        options: EngineOptions,
        read_rows: "Callable[[Classifier], Sequence[Record]] | None" = None,
    ) -> Choice:
        """What `auto` means for a model; arguments as of `with_options`."""

        def load(choice: Choice) -> Classifier:
            return Classifier.with_options(choice.apply(source), choice.engine, options)

        model = find_model(source.name)
        if (Path(model) / FILE).is_file():  # no export has one
            why = "auto: torch, which alone tells documents that no label fits"
            return Choice("torch", model, (why,))
        return choose_engine(model, load, read_rows or _sample_rows)

    def _choose(
        self,
        source: ModelSource,
        engine: str | None,
        options: EngineOptions,
        read_rows: "Callable[[Classifier], Sequence[Record]] | None" = None,
    ) -> None:
        """Load the model for an engine, which `auto` chooses before."""
        if engine != AUTO:
            self._load(source, engine, options)
            return

        choice = self.choose_engine(source, options, read_rows)
        self._load(choice.apply(source), choice.engine, options)
        self.engine.reasons = (*choice.reasons, *self.engine.reasons)

    def __repr__(self) -> str:
        labels = f"{count_of(len(self.labels), 'label')}: {clip(', '.join(self.labels), 60)}"
        if self.rules.number is not None:
            labels = f"the number '{clip(self.labels[0], 60)}'"
        if self.rules.tasks is not None:
            labels += f" of the tasks {clip(', '.join(self.rules.tasks.names), 60)}"
        return f"<Classifier {self.source!r} ({labels}; engine {self.engine_name})>"

    def __call__(
        self, documents: Any, probabilities: bool = False, text: Sequence[str] | None = None
    ) -> Any:
        """A prediction for each document, in their order.

        Args:
            documents: a text or several; rows with the columns that the model was trained on, as
                dicts or as tuples in the order of the columns; a data frame or a column of pandas
                or polars, an Arrow table or array, a `datasets.Dataset`.
            probabilities: include the probability of each label.
            text: what the rows call the columns of the documents; None: as in training.

        Returns:
            Of a frame, table or data set, or of a column of one: the same kind, with a row for each
            row: `label` (None where the model abstains) and `score`, of a multi-label model
            `labels` and `scores`, of several tasks for each its label (`topic`) and
            `topic_score`, of one of numbers `number` (with `low` and `high`, where it has
            prediction intervals); `probabilities.LABEL` for each label. Of anything else a dict
            with these for each document, its probabilities by label; before them `id`, of rows with
            the column that data.id named in training.

            Where a row is no document, or the model's logits are not finite, these are None, and
            `error` says so.

        Raises:
            InputError: for a table without the columns, or for what is neither a document nor some.
        """
        self._check_names(text)
        self._check_probabilities(probabilities)
        source = frames.as_source(documents)
        cells = frames.as_texts(documents) if source is None else None
        if source is not None:
            found = self.predict_source(source, text, probabilities)
        else:
            reader = DocumentReader(self.reading, text)
            found = self._predict_all(
                reader.read(documents if cells is None else cells), probabilities
            )
            if cells is None:
                return found
        return frames.like(documents, self._as_columns(found, probabilities))

    def explain(
        self, documents: Any, n: int = 10, text: Sequence[str] | None = None
    ) -> list[Prediction]:
        """A prediction for each document, with the `explanation`: which words spoke for it.

            classify.explain("The striker scored twice.")[0]["explanation"]
            # [{"word": "striker", "start": 4, "end": 11, "score": 2.31}, …]

        `start` and `end` are the word's characters in the document, and `score` is by how much it
        raises the log-odds of the label, by integrated gradients. Only words that spoke for the
        label are in it, the most telling first; where the model predicts none, it is None. Of a
        multi-label model it has such a list for each label; of a pair, `column` says where the word
        is. Several columns that make up one document count as that one text.

        Args:
            documents, text: as of `__call__`.
            n: words of each label, at most.

        Raises:
            InputError: as `__call__` does, and where the engine is not torch.
        """
        check_explainable(self, "explain")
        if not 0 < n <= MOST_WORDS:
            raise InputError(f"n: expected a number of words from 1 to {MOST_WORDS}, got {n}")
        self._check_names(text)
        source = frames.as_source(documents)
        if source is not None:
            return self._predict_all(self._read_source(source, text), False, n)
        cells = frames.as_texts(documents)
        rows = DocumentReader(self.reading, text).read(documents if cells is None else cells)
        return self._predict_all(rows, False, n)

    def predict_source(
        self, source: DataSource, text: Sequence[str] | None = None, probabilities: bool = False
    ) -> list[Prediction]:
        """A prediction for each row of a file or table, as of `__call__`.

        Args:
            text: what the source calls the columns of the documents; None: as in training.

        Raises:
            InputError: where the source cannot be read, or for columns that are not there.
        """
        self._check_names(text)
        self._check_probabilities(probabilities)
        return self._predict_all(self._read_source(source, text), probabilities)

    def _read_source(self, source: DataSource, text: Sequence[str] | None) -> list[Record]:
        known = self.reading.id
        has_id = known is not None and known in (peek_columns(source, (known,)) or ())
        requested = RequestedColumns(
            tuple(text or self.columns),
            self.reading.column_spec(),
            option="text=",
            id=known if has_id else None,
        )
        return [*read_records(source, requested, ReadProgress())]

    def _check_probabilities(self, wanted: bool) -> None:
        """
        Raises:
            InputError: where they are asked of a model of numbers.
        """
        if wanted:
            self.rules.refuse_number("probabilities", "has none")

    def _check_names(self, text: Sequence[str] | None) -> None:
        """
        Raises:
            InputError: for another number of columns than the model reads.
        """
        if text is not None and len(text) != len(self.columns):
            raise InputError(
                f"text: the model reads {count_of(len(self.columns), 'column')} "
                f"({', '.join(self.columns)}), got {len(text)}"
            )

    def _predict_all(
        self, rows: Sequence[Record], probabilities: bool, explain: int = 0
    ) -> list[Prediction]:
        predictions: list[Prediction] = []
        for start in range(0, len(rows), CHUNK_ROWS):
            chunk = rows[start : start + CHUNK_ROWS]
            found = self.predict(chunk, self.encode(chunk), probabilities, explain)
            predictions += (
                {"id": row.beside[0]} | one if row.beside and not is_missing(row.beside[0]) else one
                for row, one in zip(chunk, found, strict=True)
            )
        return predictions

    def _as_columns(
        self, found: Sequence[Prediction], probabilities: bool
    ) -> dict[str, Sequence[Any]]:
        """Predictions as columns; `error` is among them where some row has one."""
        columns: dict[str, Sequence[Any]] = {
            name: [one[name] for one in found] for name in self.rules.fields
        }
        for label in self.labels if probabilities else ():
            columns[f"probabilities.{label}"] = [
                one.get("probabilities", {}).get(label) for one in found
            ]
        if any("error" in one for one in found):
            columns["error"] = [one.get("error") for one in found]
        return columns


def _sample_rows(classifier: Classifier) -> list[Record]:
    """Documents to compare engines on where none are given."""
    is_pair = classifier.reading.text_pair is not None
    folder = Path(classifier.source)
    return sample_records(folder.parent, classifier.tokenizer, is_pair, SAMPLE)
