"""A model and documents → a label for each, as the model's own config.json says.

    classify = Classifier("runs/bbc_news/…")             # a run folder, a model folder, a Hub id
    classify(["Shares fell after the bank raised its rate."])
    # [{"label": "business", "score": 0.93}]

The model brings its label names, how long documents are read, its calibration (folded into the
head), thresholds, and from which probability on it answers at all.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from finetune.data import local_paths
from finetune.inference import engines
from finetune.inference.decision import DecisionRules
from finetune.inference.records import Record, RecordMaker, RequestedColumns
from finetune.modeling import pretrained, saved_model
from finetune.runtime.errors import InputError, shorten
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.token_table import TokenTable

AT_ONCE = 4096  # documents that are sorted by length and answered together

Document = str | Mapping[str, Any]
Answer = dict[str, Any]


class Classifier:
    """A trained classifier that answers.

    Args:
        source: a run folder, a model folder, `package:…` or a Hub id.
        engine: torch or onnx; None: onnx for a folder that `scripts/export_onnx.py` wrote.
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
        source: str | Path,
        *,
        engine: str | None = None,
        precision: str = "auto",
        threads: int | None = None,
        tokens: int | None = None,
        device: torch.device | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        folder = find_model(source)
        onnx = Path(folder) / engines.ONNX
        if engine == "onnx" or (engine is None and onnx.is_file()):
            config, self.tokenizer = _without_weights(Path(folder), trust_remote_code)
            self.reading = self._read(config, folder)
            self.rules = DecisionRules.of(config, self.reading, folder)
            self.engine = engines.onnx_engine(Path(folder), threads, tokens)
        else:
            model, self.tokenizer = saved_model.load_classifier(
                folder, trust_remote_code=trust_remote_code, revision=revision
            )
            config = model.config
            self.reading = self._read(config, folder)
            self.rules = DecisionRules.of(config, self.reading, folder)
            self.engine = engines.torch_engine(model, device, precision, threads, tokens)
        self.labels = self.rules.labels
        self.columns = self.reading.wanted().text_columns()
        self.identity = self._identity()

    def __call__(self, documents: Sequence[Document], probabilities: bool = False) -> list[Answer]:
        """An answer for each document, in their order.

        Args:
            documents: texts; or rows with the columns that the model was trained on, which there
                must be where it reads several.
            probabilities: give that of each label, too.

        Returns:
            `label` (None where the model abstains) and `score`; of a model of several labels,
            `labels` and `scores`.

        Raises:
            InputError: naming each document that is no text.
        """
        if isinstance(documents, str):
            documents = [documents]
        check = RecordMaker(
            "documents", RequestedColumns(self.columns, self.reading.wanted())
        ).from_cells
        named = [
            {self.columns[0]: row} if isinstance(row, str) and len(self.columns) == 1 else row
            for row in documents
        ]
        rows = [
            check("number", number, row)
            if isinstance(row, Mapping)
            else Record((), (), f"documents: number {number}: {self._expected()}, got {row!r}")
            for number, row in enumerate(named)
        ]
        wrong = [row.error for row in rows if row.error is not None]
        if wrong:
            raise InputError(shorten(wrong))
        found: list[Answer] = []
        for start in range(0, len(rows), AT_ONCE):
            some_rows = rows[start : start + AT_ONCE]
            found += self.answers(some_rows, self.encode(some_rows), probabilities)
        return found

    def encode(self, rows: Sequence[Record]) -> TokenTable:
        """The tokens of the rows that are right. Other threads go on meanwhile."""
        right = [row.texts for row in rows if row.error is None]
        seconds = [texts[1] for texts in right] if self.reading.text_pair is not None else None
        return self.reading.encode([texts[0] for texts in right], seconds, self.tokenizer)

    def answers(
        self, rows: Sequence[Record], table: TokenTable, probabilities: bool = False
    ) -> Iterator[Answer]:
        """The answer to each row, or `error`.

        Args:
            table: what `encode` made of the rows.
        """
        answers: Iterator[Answer] = iter(())
        if len(table):
            answers = self.rules.answers(self.engine.logits(table), probabilities)
        nothing = dict.fromkeys(("labels", "scores") if self.rules.several else ("label", "score"))
        for row in rows:
            yield next(answers) if row.error is None else nothing | {"error": row.error}

    def _read(self, config: Any, where: str) -> DocumentFormat:
        reading = DocumentFormat.of_model(config, self.tokenizer, where)
        limit = pretrained.max_positions(config)
        return dataclasses.replace(
            reading, max_length=min(reading.max_length, limit or reading.max_length)
        )

    def _expected(self) -> str:
        if len(self.columns) == 1:
            return "expected text"
        return f"expected a row with the columns {', '.join(self.columns)}"

    def _identity(self) -> str:
        """A hash of all that decides an answer."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        spelled = (
            repr(sorted(self.tokenizer.get_vocab().items()))
            if backend is None
            else backend.to_str()
        )
        parts = (self.engine.identity, spelled, repr(self.rules), repr(self.reading))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def find_model(source: str | Path) -> str:
    """The model folder of a run folder; a model folder, a package's or a Hub id as they are.

    Raises:
        InputError: where it is written as a path, and nothing stands there.
    """
    found = local_paths.resolve_model_source(str(source), "MODEL")
    inside = Path(found) / "model"
    if (inside / "config.json").is_file() and not (Path(found) / "config.json").is_file():
        return str(inside)
    if (Path(found) / "recipe.yaml").is_file() and not inside.exists():
        raise InputError(
            f"MODEL: {found} is the folder of a run that has not finished: no model in it"
        )
    runs = [file.parents[1] for file in Path(found).glob("*/model/config.json")]
    if runs and not (Path(found) / "config.json").is_file():
        newest = max(runs, key=lambda run: run.stat().st_mtime)
        raise InputError(
            f"MODEL: {found} holds {len(runs)} run{'s' * (len(runs) > 1)}, and is none itself; "
            f"name one, such as the newest, {newest}"
        )
    return found


def _without_weights(folder: Path, trust_remote_code: bool) -> tuple[Any, PreTrainedTokenizerBase]:
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder}: expected a folder that scripts/export_onnx.py wrote, with config.json"
        )
    with pretrained.silence_loading(), pretrained.explain_load_errors(str(folder), str(folder)):
        more: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
        return (
            AutoConfig.from_pretrained(folder, **more),
            AutoTokenizer.from_pretrained(folder, **more),
        )
