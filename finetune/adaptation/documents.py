"""Unlabelled documents → rows of tokens to learn from, and rows that are held out.

    documents = read_documents(settings, tell)
    rows = tokenize(documents, settings.recipe, config, tokenizer)

They are read as `finetune predict` reads its input. What is no document (no text, not UTF-8) is
left out and told, and so are repeats: each would be learned twice, or held out and learned. A
document that is longer than a row becomes several, without a gap or an overlap.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from finetune.adaptation.settings import MAX_LENGTH, Settings
from finetune.config import schema
from finetune.data.columns import ColumnSpec
from finetune.data.corpus import Corpus, Split
from finetune.data.formats.source import DataSource, ReadProgress
from finetune.data.places import Places
from finetune.data.text_store import Column, Store, Texts, hash_text
from finetune.inference.inputs import InputSpec, check_inputs, find_inputs
from finetune.inference.records import Record, RequestedColumns, read_records
from finetune.modeling import pretrained
from finetune.runtime.errors import InputError, ProblemList, shorten
from finetune.runtime.wording import count_of
from finetune.tokenization import encoding, token_cache
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.token_table import TokenTable
from finetune.training.masking import Masking

HELD_OUT, MOST_HELD_OUT = 0.05, 500  # of the documents; and documents at most
SHOWN = 5  # rows that are named of those left out
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Documents:
    """What is learned from, and what is held out.

    Attributes:
        train, held_out: texts.
        invalid: rows that are no document.
        repeats: documents that repeat an earlier one.
    """

    train: Texts
    held_out: Texts
    invalid: int
    repeats: int

    def corpus(self) -> Corpus:
        """As a run's checkpoints know their documents."""
        parts = {"train": self.train, "validation": self.held_out}
        splits = {
            name: Split(name, texts, None, Places(name, range(len(texts)), "row"), name)
            for name, texts in parts.items()
        }
        none = splits["validation"].without_rows()
        return Corpus((), splits["train"], splits["validation"], none, ())


def find_documents(settings: Settings, tell: Tell) -> list[DataSource]:
    """The files of all that is named, their columns checked.

    Args:
        tell: is called with what is not read, although it is there.

    Raises:
        InputError: with every problem of them.
    """
    data, problems = settings.recipe.data, ProblemList()
    found: list[DataSource] = []
    for name in settings.documents:
        with problems.collect():
            if name == "-":
                raise InputError(
                    "DOCUMENTS: expected files, which a run that is taken up reads again, got "
                    "standard input"
                )
            where = InputSpec(name, encoding=data.encoding, delimiter=data.delimiter)
            items = find_inputs(where, tell)
            check_inputs(items, _columns(data))
            found += items
    problems.raise_if_any()
    return found


def read_documents(settings: Settings, sources: list[DataSource], tell: Tell) -> Documents:
    """The documents, some of them held out: a twentieth, one at least, and at most 500.

    Args:
        tell: is called with what is left out.

    Raises:
        InputError: where fewer than two documents are left, or a file cannot be read.
    """
    recipe, seen = settings.recipe, set[bytes]()
    column, shown = Column(Store(recipe.cache.folder())), list[str]()
    invalid = repeats = 0
    for record in _records(sources, _columns(recipe.data)):
        if record.error is not None:
            invalid += 1
            shown += [record.error] * (len(shown) < SHOWN)
            continue
        [text] = record.texts
        digest = hash_text(text.strip())
        if digest in seen:
            repeats += 1
            continue
        seen.add(digest)
        column.append(text)
    if invalid:
        more = f" and {invalid - len(shown):,} more" if invalid > len(shown) else ""
        rows = count_of(invalid, "row is", "rows are")
        tell(f"{rows} left out, which hold no document: {'; '.join(shown)}{more}")
    if repeats:
        told = count_of(repeats, "document repeats", "documents repeat")
        tell(f"{told} an earlier one: left out")
    texts = column.texts()
    if len(texts) < 2:
        raise InputError(
            f"DOCUMENTS: expected at least 2 different documents, one of which is held out, found "
            f"{len(texts)} in {shorten(settings.documents)}"
        )
    held = min(MOST_HELD_OUT, max(1, round(HELD_OUT * len(texts))))
    order = np.random.default_rng([recipe.run.seed]).permutation(len(texts))
    return Documents(
        texts.take(np.sort(order[held:])), texts.take(np.sort(order[:held])), invalid, repeats
    )


@dataclass(frozen=True)
class TokenRows:
    """Tokens, in rows as the encoder takes them.

    Attributes:
        tables: of `train` and `validation`, which is what is held out.
        counts: how often each token that can be asked for is in train. (vocabulary,)
        max_length: tokens that a row may have, special ones included.
    """

    tables: Mapping[str, TokenTable]
    counts: NDArray[np.int64]
    max_length: int


def tokenize(
    documents: Documents,
    recipe: schema.Recipe,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    masking: Masking,
) -> TokenRows:
    """The documents' tokens; of a long document, in several rows.

    Raises:
        InputError: where rows would be longer than the encoder takes, or no token is left to ask
            for.
    """
    limit = pretrained.max_positions(config)
    longest = encoding.resolve_max_length(recipe.data.max_length, limit)
    if recipe.data.max_length is None:
        longest = min(longest, MAX_LENGTH)
    reads = DocumentFormat(max_length=longest, truncation="windows")
    kept = recipe.cache.folder() if recipe.cache.tokens and recipe.cache.keep else None
    tables = {}
    for name, texts in {"train": documents.train, "validation": documents.held_out}.items():
        table = token_cache.encode(reads, texts, None, tokenizer, kept, recipe.cache.max_bytes())
        rows = table.by_piece()
        tables[name] = rows.take(np.flatnonzero(masking.count_asked(rows)))
        if not len(tables[name]):
            raise InputError(
                f"DOCUMENTS: the tokenizer of {recipe.model.source} knows no word of the "
                f"{'documents' if name == 'train' else 'documents that are held out'}; expected "
                "texts in a language of the encoder"
            )
    counts = np.bincount(tables["train"].ids, minlength=int(config.vocab_size))
    ordinary = np.zeros(len(counts), dtype=bool)
    ordinary[masking.ordinary] = True
    return TokenRows(tables, np.where(ordinary, counts, 0), longest)


def _columns(data: schema.Data) -> RequestedColumns:
    columns = data.columns()
    return RequestedColumns(columns, ColumnSpec(columns, ""))


def _records(sources: list[DataSource], columns: RequestedColumns) -> Iterator[Record]:
    for source in sources:
        yield from read_records(source, columns, ReadProgress())
