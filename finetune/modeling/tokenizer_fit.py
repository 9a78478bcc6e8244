"""A model's tokenizer, read and compared with the encoder's config, before anything is encoded.

    tokenizer = read_tokenizer(source, "model.source", encoder_config)

A tokenizer with an id that the embedding table lacks would end a run, or a whole prediction job, at
the first document that has it, with an index error. Training and every loader of a saved model
read their tokenizer here.
"""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import (
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from finetune.modeling.load_errors import explain_load_errors, first_line
from finetune.modeling.modeling_document_classifier import DocumentClassifier
from finetune.modeling.source_checks import find_file, leads_out, read_json
from finetune.runtime.errors import InputError, shorten
from finetune.runtime.memory_errors import reraise_memory_error

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
MIN_VOCABULARY = 16  # a tokenizer with fewer pieces was made up, not read
# A word that no vocabulary has: its pieces are unknown, or bytes.
UNKNOWN_WORD = "\U0001f9ff\ue000\U00020bb7"
# Words, and how often each is encoded: one that samples divides some of them in several ways.
WORDS = ["ab", "the", "lazy", "fox", "over", "an", "international", "representation"]
REPEATS = 32
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
SENTENCEPIECE_FILES = (
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spm.model",
    "tokenizer.model",
)


def read_tokenizer(
    source: str,
    key: str,
    config: PretrainedConfig,
    *,
    trust_remote_code: bool,
    revision: str | None = None,
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's folder or Hub id, which fits the encoder.

    Args:
        key: what the messages begin with: the recipe's key, or the folder.
        config: the encoder's.
        trust_remote_code: run code that comes with it.

    Raises:
        InputError: where there is none; where it cannot pad, or cannot encode some word; where it
            has ids that the embedding table lacks; where it pads with another id than the one
            from which the encoder counts positions; where it draws at random.
    """
    missing = (
        f"{key}: expected the encoder's tokenizer in '{source}', found no tokenizer.json, "
        "vocab.txt or the like; copy the tokenizer files of the encoder there"
    )
    _check_sentencepiece(source, key)
    _check_named_files(source, key, revision)
    with explain_load_errors(source, key):
        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                source, revision=revision, trust_remote_code=trust_remote_code
            )
        except (ImportError, KeyError, ValueError) as error:
            if (file := find_file(source, "tokenizer.json", revision)) is not None:
                read_json(file, key)  # if it is that, it is named
            # Where there is no file, transformers 4 asks for libraries that might read one, or does
            # not know which class a model of this package has.
            is_unknown = isinstance(error, ImportError | KeyError)
            of_nothing = is_unknown and _lacks_vocabulary(Path(source))
            if of_nothing or "backend tokenizer" in str(error):
                raise InputError(missing) from error
            if "tiktoken" in str(error) and find_spec("sentencepiece") is None:
                raise InputError(_describe_sentencepiece(source, key)) from error
            raise
    # Templates of conversations come with some encoders; a text classifier needs and saves none.
    tokenizer.chat_template = None
    _switch_sampling_off(tokenizer)
    # Without files, transformers 5 makes up a tokenizer that knows its special tokens only.
    ids: dict[str, int] = dict(tokenizer.get_vocab())
    if len(ids.keys() - set(tokenizer.all_special_tokens)) < MIN_VOCABULARY:
        raise InputError(missing)
    problems = [*_find_problems(tokenizer, ids, config, source)]
    if problems:
        raise InputError(f"{key}: {problem}" for problem in problems)
    if getattr(config, "type_vocab_size", None) == 1:
        # One type cannot tell the texts of a pair apart, and the table has no row for another.
        names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
        tokenizer.model_input_names = names
    return tokenizer


def _switch_sampling_off(tokenizer: PreTrainedTokenizerBase) -> None:
    """Have the same text always give the same tokens.

    BPE dropout and the sampling of Unigram are for pretraining, and stay in a tokenizer.json. Each
    reading of a document, at inference too, would be another.
    """
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    for name in ("dropout", "alpha", "nbest_size"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)


def _lacks_vocabulary(folder: Path) -> bool:
    """Whether a folder here has no file that a tokenizer's vocabulary could be in."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else ["unknown"]
    return all(name.startswith(("config", "identity", "model", "README")) for name in names)


def align_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Have a classifier's own head find the padding by the id that the tokenizer pads with.

    Some heads read the last real token (GPT-2's), and refuse a batch where config.json names no
    padding. Encoders that count positions from that id keep theirs, which is the same.
    """
    is_native = not isinstance(model, DocumentClassifier)  # which pools by the attention mask
    if is_native and model.config.model_type not in POSITIONS_AFTER_PADDING:
        model.config.pad_token_id = tokenizer.pad_token_id


def _find_problems(
    tokenizer: PreTrainedTokenizerBase, ids: dict[str, int], config: PretrainedConfig, source: str
) -> Iterator[str]:
    """What does not fit, each with what to do.

    Args:
        ids: of the tokenizer's vocabulary, with the tokens that were added to it.
    """
    if tokenizer.pad_token is None:
        yield (
            f"expected a tokenizer that can pad, found none of its tokens for that in '{source}'; "
            "set pad_token in its tokenizer_config.json"
        )
    try:
        # Its special tokens too: what puts them around a text has ids of its own.
        encoded: Any = tokenizer([UNKNOWN_WORD], verbose=False)
        repeated: Any = tokenizer(WORDS * REPEATS, verbose=False)["input_ids"]
        ids |= {
            str(tokenizer.convert_ids_to_tokens(one) or "a special token"): one
            for one in encoded["input_ids"][0]
        }
    except Exception as error:  # of tokenizers, in Rust
        reraise_memory_error(error)
        yield (
            f"the tokenizer in '{source}' cannot encode a word that it does not know "
            f"({first_line(error)}); set unk_token in its tokenizer.json to a token that it has"
        )
    else:
        if repeated != repeated[: len(WORDS)] * REPEATS:
            yield (
                f"the tokenizer in '{source}' draws the tokens of a text at random; switch its "
                "sampling off (sp_model_kwargs in its tokenizer_config.json)"
            )
    yield from _find_type_problems(tokenizer, config, source)
    rows = getattr(config, "vocab_size", None)
    if rows is not None and max(ids.values()) >= rows:
        beyond = sorted((one, token) for token, one in ids.items() if one >= rows)
        beyond.sort(key=lambda pair: pair[1] != tokenizer.pad_token)  # first what every batch has
        listed = shorten([f"'{token}' ({one:,})" for one, token in beyond], most=3)
        yield (
            f"expected token ids below {rows:,}, the rows of the embedding table (vocab_size in "
            f"config.json), found {listed} in the tokenizer of '{source}'; resize the table with "
            "model.resize_token_embeddings(len(tokenizer)) and save both, or copy the tokenizer "
            "files that belong to these weights there"
        )
    counted_from = getattr(config, "pad_token_id", None)
    if (
        config.model_type in POSITIONS_AFTER_PADDING
        and tokenizer.pad_token is not None
        and counted_from != tokenizer.pad_token_id
    ):
        yield (
            f"expected pad_token_id {tokenizer.pad_token_id} in config.json, the id of the "
            f"tokenizer's '{tokenizer.pad_token}', found {counted_from} in '{source}': a "
            f"'{config.model_type}' encoder counts positions from there; make the two the same"
        )


def _find_type_problems(
    tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, source: str
) -> Iterator[str]:
    """Token types, of single texts and pairs, that the encoder has no embedding for."""
    types = getattr(config, "type_vocab_size", None)
    if (
        not isinstance(types, int)
        or types <= 1
        or "token_type_ids" not in (tokenizer.model_input_names)
    ):
        return  # no table, or one of a single row, for which no types are given
    for texts in (("a",), ("a", "a")):
        try:
            encoded: Any = tokenizer(*texts, verbose=False)
        except Exception:  # noqa: S112 # of tokenizers, in Rust; for words, it is told above
            continue
        highest = max(encoded.get("token_type_ids") or [0])
        if highest >= types:
            yield (
                f"expected token types below {types}, the rows of their table (type_vocab_size in "
                f"config.json), found {highest} in the tokenizer of '{source}'; copy the tokenizer "
                "files that belong to these weights there"
            )
            return


def _check_named_files(source: str, key: str, revision: str | None) -> None:
    """Refuse a tokenizer_config.json that names files elsewhere: transformers 4 would read them,
    and saving the tokenizer would copy them.
    """
    file = find_file(source, "tokenizer_config.json", revision)
    settings = None if file is None else read_json(file, key)
    if file is None or not isinstance(settings, dict):
        return
    for name, value in settings.items():
        values = value if isinstance(value, list) else [value]
        for path in values if name.endswith(("_file", "_files")) else ():
            # Published ones name what was there when they were saved, and is nowhere else.
            named = [folder / str(path) for folder in (Path(), file.parent)]
            if path and any(one.is_file() and leads_out(one, file.parent) for one in named):
                raise InputError(
                    f"{key}: tokenizer_config.json: {name}: expected a file of '{source}', found "
                    f"another, {str(path)!r}; remove {name} from it"
                )


def _check_sentencepiece(source: str, key: str) -> None:
    """Refuse a folder with a sentencepiece file alone where nothing here can read that."""
    folder = Path(source)
    if find_spec("sentencepiece") is not None or any(
        (folder / name).is_file() for name in TOKENIZER_FILES
    ):
        return
    for name in SENTENCEPIECE_FILES:
        if (folder / name).is_file():
            raise InputError(_describe_sentencepiece(source, key, f"only {name}"))


def _describe_sentencepiece(source: str, key: str, found: str = "a sentencepiece file only") -> str:
    return (
        f"{key}: expected a tokenizer.json in '{source}', found {found}, which the package "
        "sentencepiece reads; `pip install sentencepiece protobuf`, then run the same again"
    )
