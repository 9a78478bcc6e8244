"""A model's folder or Hub id → its config and tokenizer; what can go wrong → one clear message.

Every error that reading a pretrained model may raise becomes an `InputError` here.
"""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from finetune.modeling_document_classifier import DocumentClassifierConfig
from finetune.problems import InputError, some
from finetune.recipe import Model

# Encoders whose position ids start behind `pad_token_id`, so that their table has rows which no
# text reaches (their `create_position_ids_from_input_ids`).
POSITIONS_AFTER_PADDING = {
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "layoutlmv3",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
BLANK = 16  # a tokenizer with fewer pieces than this was made up, not read


def load_config(source: str, choices: Model) -> PretrainedConfig:
    """The encoder's config; of a `DocumentClassifier` folder, the one inside.

    Args:
        source: a folder or a Hub id.

    Raises:
        InputError: where there is no config, or none of a text encoder.
    """
    return encoder_config(read_config(source, choices))


def load_tokenizer(source: str, choices: Model) -> PreTrainedTokenizerBase:
    """The tokenizer that stands beside the encoder.

    Raises:
        InputError: where there is none, or one that cannot pad.
    """
    missing = (
        f"model.source: expected the encoder's tokenizer in '{source}', found no tokenizer.json, "
        "vocab.txt or the like; copy the tokenizer files of the encoder there"
    )
    check_folder(source, "model.source")
    with quietly(), reading(source, "model.source"):
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                source, revision=choices.revision, trust_remote_code=choices.trust_remote_code
            )
        except ValueError as error:
            if "backend tokenizer" not in str(error):
                raise
            raise InputError(missing) from error
    # Without files, transformers 5 makes up a tokenizer that knows its special tokens only.
    if len(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)) < BLANK:
        raise InputError(missing)
    if tokenizer.pad_token is None:
        raise InputError(
            f"model.source: expected a tokenizer that can pad, found none of its tokens for that "
            f"in '{source}'; set pad_token in its tokenizer_config.json"
        )
    return tokenizer


def max_positions(config: PretrainedConfig) -> int | None:
    """How many tokens a text may have, special ones included; None where nothing limits it."""
    config = encoder_config(config)
    try:
        size: object = config.max_position_embeddings
    except (AttributeError, NotImplementedError):  # XLNet's raises
        return None
    if not isinstance(size, int) or size <= 0:
        return None
    if config.model_type in POSITIONS_AFTER_PADDING:
        return size - int(config.pad_token_id) - 1
    return size


def read_config(source: str, choices: Model) -> PretrainedConfig:
    check_folder(source, "model.source")
    with quietly(), reading(source, "model.source"):
        config = AutoConfig.from_pretrained(source, **hub_arguments(choices))
    encoder = encoder_config(config)
    if encoder.is_encoder_decoder or getattr(encoder, "vocab_size", None) is None:
        raise InputError(
            f"model.source: expected a text encoder such as BERT, found '{encoder.model_type}' in "
            f"'{source}'; name another model"
        )
    return config  # type: ignore[no-any-return]


def hub_arguments(choices: Model) -> dict[str, Any]:
    return {"revision": choices.revision, "trust_remote_code": choices.trust_remote_code}


def encoder_config(config: PretrainedConfig) -> PretrainedConfig:
    return config.encoder if isinstance(config, DocumentClassifierConfig) else config


def check_folder(source: str, key: str) -> None:
    """InputError where a folder lacks what a model folder has."""
    folder = Path(source)
    if not folder.is_dir():
        if folder.exists() or folder.is_absolute() or source.startswith((".", "~")):
            found = "a file" if folder.exists() else "nothing"
            raise InputError(
                f"{key}: expected a model folder with config.json, found {found} at '{source}'"
            )
        return
    names = sorted(path.name for path in folder.iterdir())
    if "config.json" not in names:
        raise InputError(
            f"{key}: expected a model folder with config.json, found {listed(names)} in "
            f"'{source}'; name the folder that save_pretrained wrote"
        )
    if not {"model.safetensors", "model.safetensors.index.json"} & set(names):
        raise InputError(no_safetensors(source, key, [n for n in names if n.endswith(".bin")]))


def listed(names: Sequence[str]) -> str:
    return some(names) if names else "no file"


def no_safetensors(source: str, key: str, pickles: Sequence[str]) -> str:
    return (
        f"{key}: expected weights in model.safetensors, found {listed(pickles)} in '{source}'; "
        "pickles (.bin) can run code when read: load such a model where that is safe, and "
        "save_pretrained writes safetensors"
    )


@contextmanager
def reading(source: str, key: str) -> Iterator[None]:
    """Turn what transformers raises about a source into one message."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of many libraries: Rust's, the Hub client's, config checks, …
        raise InputError(_reason(error, source, key)) from error


def _reason(error: Exception, source: str, key: str) -> str:
    # By name: only hub_*.py and publish.py import the Hub's client.
    names = {type(cause).__name__ for cause in _causes(error)}
    if "trust_remote_code" in str(error):
        return (
            f"{key}: '{source}' comes with its own Python code, which does not run unasked; read "
            "it, then set model.trust_remote_code=true"
        )
    if isinstance(error, SafetensorError):
        return (
            f"{key}: expected weights in model.safetensors, found a damaged file in '{source}' "
            f"({first_line(error)}); get the model again"
        )
    if not Path(source).is_dir():
        if "GatedRepoError" in names:
            return (
                f"{key}: '{source}' is gated on the Hub; accept its terms there, then `hf auth "
                "login`"
            )
        if "RevisionNotFoundError" in names:
            return f"{key}: '{source}' has no such model.revision on the Hub; name one it has"
        if names & {"RepositoryNotFoundError", "HFValidationError"}:
            return (
                f"{key}: expected a model folder or a Hub id, found neither under '{source}'; "
                "check its spelling, or `hf auth login` where it is private"
            )
        if names & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError"}:
            return (
                f"{key}: expected a model folder or a Hub id, found no folder '{source}', no copy "
                "in the local cache, and no way to the Hub; name a folder, or connect once"
            )
        if "safetensors" in str(error):
            return no_safetensors(source, key, ["other files"])
    why = f"something there lacks {error}" if isinstance(error, KeyError) else first_line(error)
    return (
        f"{key}: cannot read the model in '{source}': {why}; mend its files, or name another model"
    )


def _causes(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: Exception) -> str:
    """Of an error's message; with the next where it only announces that."""
    lines = [line.strip() for line in str(error).strip().split("\n")]
    return " ".join(lines[: 1 + lines[0].endswith(":")]).rstrip(".:")


@contextmanager
def quietly() -> Iterator[None]:
    """Without progress bars and the report on new weights, which `_check_weights` reads for us."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
