"""A saved model, loaded for an engine: rows → tokens → logits → predictions.

    classify.predict(rows, classify.encode(rows))      # a `classifier.Classifier`

Its decisions are those of its config.json: label names, how long documents are read, calibration
(folded into the head), thresholds, abstention, and a detector of documents out of scope.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from finetune.evaluation.out_of_scope import Detector
from finetune.inference import engines
from finetune.inference.decision import DecisionRules
from finetune.inference.detector_file import hash_detector, read_detector, reads_states
from finetune.inference.engine import Logits
from finetune.inference.engines import EngineOptions, ModelSource
from finetune.inference.explanation import add_explanations
from finetune.inference.records import Record
from finetune.modeling import pretrained
from finetune.modeling.model_folder import find_model
from finetune.runtime.errors import InputError
from finetune.runtime.memory_errors import explain_memory_errors
from finetune.runtime.wording import count_of
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.token_table import TokenTable

LOWER = "choose a smaller model, or end other programs"
NOT_FINITE = (
    "the model's logits for this document are not finite; try --precision fp32, or another model"
)

Prediction = dict[str, Any]


class LoadedClassifier:
    """What the classifier of every engine has.

    Attributes:
        source: the folder or Hub id that it was loaded from.
        graph: as of `ModelSource`.
        rules: how logits become predictions; `labels` are its label names.
        reading: how documents are read; `columns` are theirs.
        identity: a hash of all that decides a prediction.
    """

    def _load(self, source: ModelSource, engine: str | None, options: EngineOptions) -> None:
        folder, self.graph = find_model(source.name), source.graph
        self.source = folder
        named = dataclasses.replace(source, name=folder)
        self.engine_name = engines.pick_engine(engine, folder)
        with explain_memory_errors("loading the model", LOWER):
            loaded = engines.load_model(self.engine_name, named, options)
        self.tokenizer = loaded.tokenizer
        self.reading = self._read_format(loaded.config, folder)
        rules = DecisionRules.from_config(loaded.config, self.reading, folder)
        detector = self._read_detector(loaded.hidden or None, source.revision)
        self.rules = dataclasses.replace(rules, detector=detector)
        with explain_memory_errors("loading the model", LOWER):
            self.engine = loaded.build(states=True) if reads_states(detector) else loaded.build()
        self.labels = self.rules.labels
        if self.engine.classes != len(self.labels):
            raise InputError(
                f"{folder}: config.json names {count_of(len(self.labels), 'label')}, and the "
                f"model computes {count_of(self.engine.classes, 'logit')} for each document; copy "
                "the whole model folder again"
            )
        self.columns = self.reading.column_spec().text_columns()
        self.identity = self._hash()

    def encode(self, rows: Sequence[Record]) -> TokenTable:
        """The tokens of the rows without an error. Other threads run meanwhile."""
        valid = [row.texts for row in rows if row.error is None]
        seconds = [texts[1] for texts in valid] if self.reading.text_pair is not None else None
        return self.reading.encode([texts[0] for texts in valid], seconds, self.tokenizer)

    def predict(
        self,
        rows: Sequence[Record],
        table: TokenTable,
        probabilities: bool = False,
        explain: int = 0,
    ) -> Iterator[Prediction]:
        """The prediction for each row, or its `error`: what is wrong with it, or with its logits.

        Args:
            table: what `encode` made of the rows.
            explain: how many words of each label its `explanation` has; 0: it has none.
        """
        outputs = self.compute(table) if len(table) else None
        found = self.decide(rows, outputs, probabilities)
        if not explain:
            return found
        return add_explanations(self, rows, table, outputs, found, explain)

    def compute(self, table: TokenTable) -> Logits:
        """The logits of every row, and behind them the states that `decide` needs, if any.
        (rows, classes + hidden)"""
        return self.engine.outputs(table) if self.engine.hidden else self.engine.logits(table)

    def decide(
        self, rows: Sequence[Record], outputs: Logits | None, probabilities: bool = False
    ) -> Iterator[Prediction]:
        """The prediction for each row, as of `predict`.

        Args:
            outputs: the engine's, of the rows without an error; None: there is none.
                (valid rows, classes + hidden)
        """
        predictions: Iterator[Prediction] = iter(())
        if outputs is not None:
            is_finite: Any = np.isfinite(outputs).all(axis=1)
            decided = self.rules.decide(np.where(is_finite[:, None], outputs, 0), probabilities)
            predictions = (
                one if finite else dict.fromkeys(self.rules.fields) | {"error": NOT_FINITE}
                for one, finite in zip(decided, is_finite, strict=True)
            )
        empty = dict.fromkeys(self.rules.fields)
        for row in rows:
            yield next(predictions) if row.error is None else empty | {"error": row.error}

    def _read_detector(self, hidden: int | None, revision: str | None) -> Detector | None:
        """What tells documents out of scope; None: nothing."""
        return read_detector(self.source, revision, hidden) if self.reading.out_of_scope else None

    def _read_format(self, config: Any, where: str) -> DocumentFormat:
        reading = DocumentFormat.of_model(config, self.tokenizer, where)
        limit = pretrained.max_positions(config)
        return dataclasses.replace(
            reading, max_length=min(reading.max_length, limit or reading.max_length)
        )

    def _hash(self) -> str:
        """A hash of all that decides a prediction."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        spelled = (
            repr(sorted(self.tokenizer.get_vocab().items()))
            if backend is None
            else backend.to_str()
        )
        parts = [self.engine.identity, spelled, repr(self.rules), repr(self.reading)]
        if self.rules.detector is not None:
            parts.append(hash_detector(self.rules.detector))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
