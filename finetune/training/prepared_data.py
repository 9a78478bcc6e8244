"""A recipe → its documents: labels and splits, then tokens. The next run of a command has them too.

    cache = DataCache()                                    # one for all runs of a command
    corpus = load_splits(recipe, accelerator, cache)
    read = tokenize_splits(recipe, corpus, accelerator, cache)

Trials of a sweep, seeds and studies differ in how they train, and mostly not in what they train on:
that is prepared once. A file that changes while a command runs is not read again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from finetune.compute.hardware_plan import Hardware
from finetune.compute.packing import is_static
from finetune.config.schema import Recipe
from finetune.data import prepare as prepare_module
from finetune.data import sources
from finetune.data.corpus import Corpus
from finetune.data.unlabelled import add_unlabelled
from finetune.evaluation.metrics import Metric
from finetune.modeling import pretrained
from finetune.modeling.kept_labels import match_labels
from finetune.modeling.model_folder import find_model
from finetune.runtime.console import print_wrapped
from finetune.runtime.distributed import run_on_main_first
from finetune.tokenization import encoding, token_cache
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.token_table import TokenTable
from finetune.tokenization.truncation_audit import ReadingOption
from finetune.training.teacher_targets import TeacherTargets

# What only decides how texts become tokens, and so has no part in which rows there are.
AS_TOKENS = dict.fromkeys(("max_length", "truncation", "stride", "max_windows", "window_pooling"))
STATIC_LENGTH = 4096  # tokens that static embeddings read by default, as each costs next to nothing
Value = TypeVar("Value")


@dataclass
class DataCache:
    """The last of each kind of thing, with what it was made from."""

    _kept: dict[str, tuple[object, Any]] = field(default_factory=dict)

    def get(self, kind: str, origin: object, make: Callable[[], Value]) -> Value:
        """The cached value, if it was made from the same origin.

        Else it is made and kept, and what was made after its like, and so from it, is let go.
        """
        kinds = [*self._kept]
        if kind not in kinds or self._kept[kind][0] != origin:
            for later in kinds[kinds.index(kind) :] if kind in kinds else ():
                del self._kept[later]
            self._kept[kind] = (origin, make())
        found: Value = self._kept[kind][1]
        return found


@dataclass(frozen=True)
class TokenizedData:
    """Documents as an encoder reads them.

    Attributes:
        source: the encoder's folder or Hub id.
        config: the encoder's.
        max_length: of a piece, in tokens.
        reads: how texts become pieces.
        tables: the tokens of each split, by its name.
    """

    source: str
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    reads: DocumentFormat
    tables: Mapping[str, TokenTable]


def load_splits(
    recipe: Recipe,
    accelerator: Accelerator,
    cache: DataCache,
    folds: int | None = None,
    test: bool = True,
) -> Corpus:
    """Labels and splits.

    Args:
        folds: as of `prepare.prepare_corpus`.
        test: whether test stays, or is taken out before anything could look at it.

    Raises:
        InputError: as `sources.load_rows` and `prepare.prepare_corpus` do.
    """
    home = recipe.cache.folder()  # of what would crowd memory
    slices, files = recipe.score.slices or (), recipe.distil.files()

    def prepare() -> Corpus:
        corpus = prepare_module.prepare_corpus(
            sources.load_rows(recipe.data, home, slices), recipe.data, folds=folds
        )
        if files:
            corpus = add_unlabelled(corpus, recipe.data, files)
        return corpus if test else corpus.without_test()

    origin = recipe.data.model_copy(update=AS_TOKENS), home, folds, test, slices, files
    return cache.get("rows", origin, lambda: run_on_main_first(accelerator, prepare))


def tokenize_splits(
    recipe: Recipe, corpus: Corpus, accelerator: Accelerator, cache: DataCache
) -> TokenizedData:
    """Tokens, and what makes them.

    Args:
        corpus: as `split` gave it for the same recipe.

    Raises:
        InputError: where there is no encoder, or no tokenizer with it.
    """
    kept = recipe.cache.folder() if recipe.cache.tokens and recipe.cache.keep else None

    def encode() -> TokenizedData:
        source = find_model(recipe.model.source, "model.source")
        config, tokenizer = run_on_main_first(
            accelerator,
            lambda: (
                pretrained.load_config(source, recipe.model),
                pretrained.load_tokenizer(source, recipe.model),
            ),
        )
        asked = recipe.data.max_length
        if asked is None and is_static(config):
            asked = STATIC_LENGTH
        longest = encoding.resolve_max_length(asked, pretrained.max_positions(config))
        reads = DocumentFormat.of_recipe(recipe.data, longest)
        reads.set_up(tokenizer)
        tables = run_on_main_first(
            accelerator,
            lambda: {
                split.name: token_cache.encode(
                    reads, split.texts, split.seconds, tokenizer, kept, recipe.cache.max_bytes()
                )
                for split in corpus.splits()
            },
        )
        return TokenizedData(source, config, tokenizer, longest, reads, tables)

    of = recipe.model
    files = recipe.distil.files()
    origin = recipe.data, of.source, of.revision, of.trust_remote_code, kept, files
    return cache.get("tokens", origin, encode)


def print_kept_labels(recipe: Recipe, corpus: Corpus, source: str) -> None:
    """Say which labels keep their weights, where the recipe keeps those of its source.

    Raises:
        InputError: where there is nothing to keep.
    """
    model = recipe.model
    if model.head_init == "keep":
        config = pretrained.read_config(source, model)
        known = match_labels(config, source, model, corpus.labels, corpus.multi_label)
        print_wrapped(known.describe(model.new_labels), mark="Labels ")


@dataclass(frozen=True)
class PreparedData:
    """All that a run knows before it loads any weights.

    Attributes:
        recipe: as these documents need it: multi-label metrics, recorded learning rates.
        metrics: what is measured on each split.
        plan: this machine's, with what this encoder allows.
        class_weights: of each class in the loss; None: all equal. (classes,)
        audit: what each way of reading long documents would cut and cost.
        teacher: what teachers say of train; None: there is none.
    """

    recipe: Recipe
    corpus: Corpus
    tokens: TokenizedData
    metrics: Sequence[Metric]
    plan: Hardware
    class_weights: NDArray[np.float64] | None
    audit: Sequence[ReadingOption]
    teacher: TeacherTargets | None = None
